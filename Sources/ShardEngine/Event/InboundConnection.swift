// One client's connection: the Gate on the bytes that come in, the one request that may be outstanding, its reply.
// HTTPServer makes one for every connection that it accepts and lets go of it once evhttp has closed it.
//
// Who owns what: evhttp owns the evhttp_connection, its bufferevent and the request; this object is told by evhttp's
// close callback when they end. A request without a reply belongs to evhttp until the client is gone; then it is ours
// to free. The reply gives the request back; nothing may touch it after `evhttp_send_reply_end`.
import CEvent
import Glibc

/// What has to know when the client of an outstanding request is gone.
protocol InboundRequestOwner: AnyObject {
    /// The client closed its connection; the connection and the request must not be used any more.
    func clientDisconnected()
}

/// A connection from a client; confined to the loop of its server.
final class InboundConnection {
    /// What the connection is waiting for; each has a limit in time.
    enum Phase: UInt8 {
        case idle, head, body, outstanding, writing, lingering
    }

    unowned(unsafe) let server: HTTPServer
    let bufferevent: OpaquePointer
    /// evhttp's connection; nil before this object is adopted and after evhttp has closed it.
    private(set) var connection: OpaquePointer?
    private(set) var descriptor: Int32 = -1
    /// The request that has been handed over and not been answered.
    private(set) var request: UnsafeMutablePointer<evhttp_request>?
    /// Whoever answers the outstanding request.
    var owner: (any InboundRequestOwner)?
    private(set) var phase = Phase.idle
    /// When the phase began.
    private(set) var phaseStart: MonotonicTime
    /// Whether the connection ends with the present request, by the client's wish or ours.
    private(set) var closesAfterReply = false
    /// Whether the outstanding request names headers, in Connection, that belong to the connection.
    private(set) var hasConnectionHeaders = false
    private var gate: Gate
    private var refusal: Refusal?
    private var repliedRequests: UInt64 = 0
    private var isChangingInput = false
    private var inputWatch: OpaquePointer?

    init(server: HTTPServer, base: OpaquePointer?) {
        self.server = server
        gate = Gate(limits: server.limits.gate)
        phaseStart = server.loop.now
        guard let bufferevent = bufferevent_socket_new(base, -1, Int32(BEV_OPT_CLOSE_ON_FREE.rawValue)) else {
            preconditionFailure("out of memory")
        }
        self.bufferevent = bufferevent
        bufferevent_incref(bufferevent)
        inputWatch = evbuffer_add_cb(
            bufferevent_get_input(bufferevent),
            { input, info, context in
                guard let input, let info, let context else { return }
                Unmanaged<InboundConnection>.fromOpaque(context).takeUnretainedValue().inputChanged(input, info.pointee)
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
    }

    /// Takes hold of evhttp's connection, which exists by the end of the turn in which it was accepted.
    ///
    /// - Returns: false when evhttp has closed it already; this object is then of no more use.
    func adopt() -> Bool {
        if connection != nil { return true }
        var context: UnsafeMutableRawPointer?
        bufferevent_getcb(bufferevent, nil, nil, nil, &context)
        defer { bufferevent_decref(bufferevent) }
        guard let context else { return false }
        let connection = OpaquePointer(context)
        self.connection = connection
        descriptor = bufferevent_getfd(bufferevent)
        evhttp_connection_set_closecb(
            connection,
            { _, context in
                guard let context else { return }
                Unmanaged<InboundConnection>.fromOpaque(context).takeUnretainedValue().closed()
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        return true
    }

    /// Bytes have been added to what evhttp has not read, or evhttp has read some.
    private func inputChanged(_ input: OpaquePointer, _ change: evbuffer_cb_info) {
        guard change.n_added > 0, !isChangingInput else { return }
        isChangingInput = true
        defer { isChangingInput = false }
        if connection == nil { server.adopt(self) }
        if phase == .lingering {
            evbuffer_drain(input, evbuffer_get_length(input))
        } else {
            check(input, from: change.orig_size)
            if change.n_added >= HTTPServer.evhttpReadSize, phase != .outstanding { topUp(input) }
        }
    }

    /// evhttp reads 4 KiB at a time; when a read was full there is more, and it is fetched at once.
    private func topUp(_ input: OpaquePointer) {
        let scratch = server.scratch
        for _ in 0..<8 where refusal == nil {
            let count = recv(descriptor, scratch.baseAddress, scratch.count, Int32(MSG_DONTWAIT))
            guard count > 0 else { return }
            let before = evbuffer_get_length(input)
            evbuffer_add(input, scratch.baseAddress, count)
            check(input, from: before)
            if count < scratch.count { return }
        }
    }

    /// Shows the Gate what follows the first `offset` bytes of the input, and drops what it refuses.
    private func check(_ input: OpaquePointer, from offset: Int) {
        // A reload changes the limits of the next request.
        if gate.isBetweenRequests { gate.limits = server.limits.gate }
        var position = evbuffer_ptr()
        evbuffer_ptr_set(input, &position, offset, EVBUFFER_PTR_SET)
        var piece = iovec()
        var left = evbuffer_get_length(input) - offset
        while left > 0, evbuffer_peek(input, left, &position, &piece, 1) > 0 {
            let length = min(left, piece.iov_len)
            if let refusal = gate.read(UnsafeRawBufferPointer(start: piece.iov_base, count: length)) {
                self.refusal = refusal
            }
            left -= length
            evbuffer_ptr_set(input, &position, length, EVBUFFER_PTR_ADD)
        }
        updatePhase()
        if refusal != nil {
            keepFinishedRequests(of: input)
            refuseIfDue()
        }
    }

    /// The requests before a refused one are still to be answered; nothing after them may reach evhttp.
    private func keepFinishedRequests(of input: OpaquePointer) {
        let finished = max(0, evbuffer_get_length(input) - gate.unfinishedBytes)
        let kept = evbuffer_new()
        evbuffer_remove_buffer(input, kept, finished)
        evbuffer_drain(input, evbuffer_get_length(input))
        evbuffer_add_buffer(input, kept)
        evbuffer_free(kept)
    }

    private func refuseIfDue() {
        guard let refusal, phase != .writing, gate.completedRequests == repliedRequests else { return }
        server.atTurnEnd(.refuse(self, refusal))
    }

    private func updatePhase() {
        guard phase != .outstanding, phase != .writing else { return }
        enter(gate.isBetweenRequests ? .idle : gate.isInBody ? .body : .head)
    }

    private func enter(_ next: Phase) {
        guard next != phase else { return }
        phase = next
        phaseStart = server.loop.now
    }

    /// evhttp has read a whole request.
    func requestArrived(_ request: UnsafeMutablePointer<evhttp_request>) {
        self.request = request
        enter(.outstanding)
        let (isLast, nameHeaders) = readConnectionHeaders()
        closesAfterReply = isLast
        hasConnectionHeaders = nameHeaders
        var write: bufferevent_data_cb?
        var event: bufferevent_event_cb?
        var context: UnsafeMutableRawPointer?
        bufferevent_getcb(bufferevent, nil, &write, &event, &context)
        // Reading on, to notice that the client goes away, takes a NULL read callback: with evhttp's own in place the
        // client's next byte would end the process ("illegal connection state").
        bufferevent_setcb(bufferevent, nil, write, event, context)
        bufferevent_setwatermark(bufferevent, Int16(EV_READ), 0, HTTPServer.readAheadLimit)
        bufferevent_enable(bufferevent, Int16(EV_READ))
    }

    /// Has the connection end with this answer where the server wants it back and no request waits behind this one.
    func closeIfWanted() {
        guard server.isDraining || server.isFull else { return }
        if evbuffer_get_length(bufferevent_get_input(bufferevent)) == 0 { closesAfterReply = true }
    }

    /// Whether it may be closed to make room: it is between two requests, or has never sent any. The first request of a
    /// new connection may be on its way, and no client would send it again.
    var isDispensable: Bool {
        phase == .idle && (repliedRequests > 0 || server.loop.now.since(phaseStart) >= server.limits.headerTimeout)
    }

    /// Sends a whole response and gives the request back to evhttp; `bytes` is a head with the right framing and a body.
    ///
    /// In the usual case one `send` takes it all, and evhttp's own reply with its events is not needed.
    func reply(_ bytes: UnsafeRawBufferPointer) {
        guard let request else { preconditionFailure("a reply without a request") }
        self.request = nil
        owner = nil
        repliedRequests += 1
        bufferevent_setwatermark(bufferevent, Int16(EV_READ), 0, 0)
        if closesAfterReply, !evhttpCloses(after: request) {
            evhttp_add_header(request.pointee.output_headers, "Connection", "close")
        }
        let output = bufferevent_get_output(bufferevent)
        var sent = 0
        if evbuffer_get_length(output) == 0 {
            sent = max(0, send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)))
        }
        if sent < bytes.count {
            evbuffer_add(output, bytes.baseAddress?.advanced(by: sent), bytes.count - sent)
            finishWriting(request)
        } else {
            replyWritten()
        }
        request.pointee.chunked = 0
        evhttp_send_reply_end(request)
    }

    /// The client takes the response slowly: evhttp writes the rest.
    private func finishWriting(_ request: UnsafeMutablePointer<evhttp_request>) {
        enter(.writing)
        evhttp_request_set_on_complete_cb(
            request,
            { _, context in
                guard let context else { return }
                Unmanaged<InboundConnection>.fromOpaque(context).takeUnretainedValue().replyWritten()
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        bufferevent_enable(bufferevent, Int16(EV_WRITE))
    }

    private func replyWritten() {
        phase = .idle
        phaseStart = server.loop.now
        updatePhase()
        refuseIfDue()
    }

    /// Whether no more bytes are taken from the client, which is being told so or has been.
    func stopListening() {
        phase = .lingering
        phaseStart = server.loop.now
    }

    /// evhttp is closing the connection.
    private func closed() {
        connection = nil
        if let inputWatch {
            evbuffer_remove_cb_entry(bufferevent_get_input(bufferevent), inputWatch)
        }
        if let request {
            self.request = nil
            let owner = self.owner
            self.owner = nil
            owner?.clientDisconnected()
            if evhttp_request_get_connection(request) == nil { evhttp_request_free(request) }
        }
        server.forget(self)
    }
}
