// One client's connection: what comes in, the Gate on it, the one request that may be outstanding, and its reply.
// HTTPServer makes one for every connection that it accepts and lets go of it once evhttp has closed it.
//
// Who owns what: this object reads and writes the socket. evhttp parses: it is given, through its bufferevent, the bytes
// of one request at a time, after the Gate has passed them; the bufferevent itself has no descriptor any more. evhttp
// owns its connection and the request, and closes the socket with the former; its close callback tells when. The reply
// gives the request back; nothing may touch it after `evhttp_send_reply_end`.
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
    /// The request that has been handed over and whose reply has not been sent.
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
    private var hasReplied = false
    private var gate: Gate
    private var readEvent: DescriptorEvent?
    private var writeEvent: DescriptorEvent?
    private var isReadingPaused = false
    /// What the client has sent while its request was outstanding.
    private var readAhead = ByteBuffer(capacity: 0)
    /// What the client has not yet taken of its reply.
    private var unsent = ByteBuffer(capacity: 0)

    init(server: HTTPServer, base: OpaquePointer?) {
        self.server = server
        gate = Gate(limits: server.limits.gate)
        phaseStart = server.loop.now
        guard let bufferevent = bufferevent_socket_new(base, -1, 0) else { preconditionFailure("out of memory") }
        self.bufferevent = bufferevent
        bufferevent_incref(bufferevent)
    }

    /// Takes the socket from evhttp's bufferevent, at the end of the turn in which it was accepted.
    ///
    /// - Returns: false when evhttp has closed it already; this object is then of no more use.
    func adopt() -> Bool {
        var context: UnsafeMutableRawPointer?
        bufferevent_getcb(bufferevent, nil, nil, nil, &context)
        defer { bufferevent_decref(bufferevent) }
        guard let context else { return false }
        let connection = OpaquePointer(context)
        self.connection = connection
        descriptor = bufferevent_getfd(bufferevent)
        bufferevent_setfd(bufferevent, -1)
        evhttp_connection_set_closecb(
            connection,
            { _, context in
                guard let context else { return }
                Unmanaged<InboundConnection>.fromOpaque(context).takeUnretainedValue().closed()
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        readEvent = DescriptorEvent(loop: server.loop, descriptor: descriptor, interest: .read) { [unowned self] _ in
            readable()
        }
        readEvent?.start()
        return true
    }

    // MARK: Reading

    private func readable() {
        let scratch = server.scratch
        let count = recv(descriptor, scratch.baseAddress, scratch.count, 0)
        if count > 0 {
            received(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
        } else if count == 0 || errno != EAGAIN && errno != EINTR {
            abort()
        }
    }

    private func received(_ bytes: UnsafeRawBufferPointer) {
        switch phase {
        case .idle, .head, .body: pass(bytes)
        case .outstanding, .writing: keep(bytes)
        case .lingering: break
        }
    }

    /// Shows the bytes to the Gate and then to evhttp, request by request, as long as none is outstanding.
    private func pass(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty, connection != nil, phase.rawValue < Phase.outstanding.rawValue {
            // A reload changes the limits of the next request.
            if gate.isBetweenRequests { gate.limits = server.limits.gate }
            let reading = gate.read(rest)
            if let refusal = reading.refusal {
                stopListening()
                server.atTurnEnd(.refuse(self, refusal))
                return
            }
            enter(gate.isBetweenRequests ? .idle : gate.isInBody ? .body : .head)
            parse(UnsafeRawBufferPointer(rebasing: rest[..<reading.count]))
            rest = UnsafeRawBufferPointer(rebasing: rest[reading.count...])
        }
        if connection != nil { keep(rest) }
    }

    /// Has evhttp read some bytes of a request; with the last ones it hands the request over, before this returns.
    private func parse(_ bytes: UnsafeRawBufferPointer) {
        evbuffer_add(bufferevent_get_input(bufferevent), bytes.baseAddress, bytes.count)
        server.parsing = self
        bufferevent_trigger(bufferevent, Int16(EV_READ), 0)
        server.parsing = nil
        if connection != nil { sendOutput() }
    }

    /// Sends what evhttp has to say of its own: that the client may continue, or that a target is none.
    private func sendOutput() {
        guard let output = bufferevent_get_output(bufferevent), evbuffer_get_length(output) > 0 else { return }
        let count = evbuffer_get_length(output)
        let sent = send(descriptor, evbuffer_pullup(output, -1), count, Int32(MSG_NOSIGNAL))
        guard sent == count else { return server.atTurnEnd(.close(self)) }
        evbuffer_drain(output, count)
        bufferevent_trigger(bufferevent, Int16(EV_WRITE), 0)
    }

    /// Keeps what belongs to the requests after the outstanding one; a client that sends too much of it has to wait.
    private func keep(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        readAhead.append(bytes)
        guard readAhead.count >= HTTPServer.readAheadLimit, !isReadingPaused else { return }
        isReadingPaused = true
        readEvent?.stop()
    }

    /// Goes on with what was kept; evhttp is on no stack.
    func readOn() {
        guard connection != nil, phase == .idle else { return }
        var kept = ByteBuffer(capacity: 0)
        swap(&kept, &readAhead)
        pass(kept.readable)
        if isReadingPaused, readAhead.count < HTTPServer.readAheadLimit {
            isReadingPaused = false
            readEvent?.start()
        }
    }

    private func enter(_ next: Phase) {
        guard next != phase else { return }
        phase = next
        phaseStart = server.loop.now
    }

    // MARK: The request and its reply

    /// evhttp has read a whole request.
    func requestArrived(_ request: UnsafeMutablePointer<evhttp_request>) {
        self.request = request
        enter(.outstanding)
        let (isLast, nameHeaders) = readConnectionHeaders()
        closesAfterReply = isLast
        hasConnectionHeaders = nameHeaders
    }

    /// Has the connection end with this answer where the server wants it back and no request waits behind this one.
    func closeIfWanted() {
        if server.isDraining || server.isFull, readAhead.count == 0 { closesAfterReply = true }
    }

    /// Whether it may be closed to make room: it is between two requests, or has never sent any. The first request of a
    /// new connection may be on its way, and no client would send it again.
    var isDispensable: Bool {
        phase == .idle && (hasReplied || server.loop.now.since(phaseStart) >= server.limits.headerTimeout)
    }

    /// Sends a whole response; `bytes` is a head with the right framing, and a body.
    ///
    /// In the usual case one `send` takes it all, and evhttp's own reply with its events is not needed.
    func reply(_ bytes: UnsafeRawBufferPointer) {
        guard let request else { preconditionFailure("a reply without a request") }
        owner = nil
        let sent = max(0, send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL)))
        if sent == bytes.count { return finish(request) }
        enter(.writing)
        unsent.append(UnsafeRawBufferPointer(rebasing: bytes[sent...]))
        if writeEvent == nil {
            writeEvent = DescriptorEvent(loop: server.loop, descriptor: descriptor, interest: .write) {
                [unowned self] _ in writable()
            }
        }
        writeEvent?.start()
    }

    private func writable() {
        guard let request, phase == .writing else { return }
        let bytes = unsent.readable
        let sent = send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
        if sent > 0 { unsent.consume(sent) }
        if unsent.count == 0 {
            unsent = ByteBuffer(capacity: 0)
            finish(request)
        } else if sent < 0, errno != EAGAIN, errno != EINTR {
            abort()
        } else {
            writeEvent?.start()
        }
    }

    /// Gives the answered request back to evhttp, which then closes the connection or makes ready for the next one.
    private func finish(_ request: UnsafeMutablePointer<evhttp_request>) {
        self.request = nil
        hasReplied = true
        phase = .idle
        phaseStart = server.loop.now
        if closesAfterReply, !evhttpCloses(after: request) {
            evhttp_add_header(request.pointee.output_headers, "Connection", "close")
        }
        if readAhead.count > 0 { server.atTurnEnd(.readOn(self)) }
        request.pointee.chunked = 0
        evhttp_send_reply_end(request)
    }

    // MARK: The end

    /// Takes no more notice of what the client sends.
    func stopListening() {
        phase = .lingering
        phaseStart = server.loop.now
    }

    /// Ends the connection at once, whatever it is doing.
    func abort() {
        if let connection { evhttp_connection_free(connection) }
    }

    /// evhttp is closing the connection, and with it the request, if there is one.
    private func closed() {
        connection = nil
        request = nil
        readEvent = nil
        writeEvent = nil
        let owner = self.owner
        self.owner = nil
        owner?.clientDisconnected()
        server.forget(self)
    }
}
