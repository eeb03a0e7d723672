// One client's connection: what comes in, the Gate on it, the one request that may be outstanding, and its reply.
// HTTPServer makes one for a connection that it accepts, and once that has ended keeps it, with evhttp's part of it, for
// another client.
//
// Who owns what: this object reads and writes the socket. evhttp parses: it is given, through its bufferevent, the bytes
// of one request at a time, after the Gate has passed them; the bufferevent itself has no descriptor any more. evhttp
// owns its connection and the request, and closes with the former the socket that it came with; its close callback tells
// when. That socket's number stays evhttp's: once the first client has gone a placeholder has it, and the sockets of later
// clients are closed here. The reply gives the request back; nothing may touch it after `evhttp_send_reply_end`.
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
    /// The client's socket; -1 while there is no client.
    private(set) var descriptor: Int32 = -1
    /// The number that evhttp knows its connection by: the client's socket or a placeholder.
    private var evhttpDescriptor: Int32 = -1
    /// The request that has been handed over and whose reply has not been sent.
    private(set) var request: UnsafeMutablePointer<evhttp_request>?
    /// Whoever answers the outstanding request.
    var owner: (any InboundRequestOwner)?
    private(set) var phase = Phase.idle
    /// When the phase began.
    private(set) var phaseStart: MonotonicTime
    /// Whether the connection ends with the present request, by the client's wish or ours.
    private(set) var closesAfterReply = false
    /// Whether it is the client that wants it to end, and so sends nothing more.
    private var isLastOfClient = false
    /// Whether the outstanding request names headers, in Connection, that belong to the connection.
    private(set) var hasConnectionHeaders = false
    private var hasReplied = false
    /// Whether evhttp has no part of a request.
    private var isBetweenRequests = true
    private var gate: Gate
    private var readEvent: DescriptorEvent?
    /// Whether the loop tells of what the client sends. Of a client that has sent its request with the connection, it need
    /// not before the answer: what that takes is saved where the connection then ends.
    private var isWatched = false
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
        evhttpDescriptor = descriptor
        bufferevent_setfd(bufferevent, -1)
        evhttp_connection_set_closecb(
            connection,
            { _, context in
                guard let context else { return }
                Unmanaged<InboundConnection>.fromOpaque(context).takeUnretainedValue().closed()
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        watch()
        return true
    }

    /// Whether another client can have it.
    var isSpare: Bool { descriptor < 0 && connection != nil }

    /// Serves another client, whose request may be there already.
    func begin(_ descriptor: Int32) {
        precondition(isSpare)
        self.descriptor = descriptor
        gate = Gate(limits: server.limits.gate)
        phase = .idle
        phaseStart = server.loop.now
        hasReplied = false
        isReadingPaused = false
        readAhead.reset(keeping: 64)
        unsent.reset(keeping: 64)
        readEvent?.retarget(to: descriptor)
        writeEvent?.retarget(to: descriptor)
        readable()
        if request == nil { watch() }
    }

    /// Has the loop tell of what the client sends, and of its end, from now on.
    func watch() {
        guard descriptor >= 0, !isWatched else { return }
        isWatched = true
        if readEvent == nil {
            readEvent = DescriptorEvent(loop: server.loop, descriptor: descriptor, interest: .read) {
                [unowned self] _ in readable()
            }
        }
        readEvent?.start()
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
        while !rest.isEmpty, descriptor >= 0, phase.rawValue < Phase.outstanding.rawValue {
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
        if descriptor >= 0 { keep(rest) }
    }

    /// Has evhttp read some bytes of a request; with the last ones it hands the request over, before this returns.
    private func parse(_ bytes: UnsafeRawBufferPointer) {
        isBetweenRequests = false
        evbuffer_add(bufferevent_get_input(bufferevent), bytes.baseAddress, bytes.count)
        server.parsing = self
        bufferevent_trigger(bufferevent, Int16(EV_READ), 0)
        server.parsing = nil
        if descriptor >= 0 { sendOutput() }
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
        guard descriptor >= 0, phase == .idle else { return }
        var kept = ByteBuffer(capacity: 0)
        swap(&kept, &readAhead)
        pass(kept.readable)
        if descriptor >= 0, isReadingPaused, readAhead.count < HTTPServer.readAheadLimit {
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
        isLastOfClient = isLast
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
        // The end of the connection, which follows at once, then takes the answer along in its own packet.
        let flags = isLastOfClient ? Int32(MSG_NOSIGNAL) | Int32(MSG_MORE) : Int32(MSG_NOSIGNAL)
        let sent = max(0, send(descriptor, bytes.baseAddress, bytes.count, flags))
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

    /// Gives the answered request back to evhttp, which makes ready for the next one, of this client or of another.
    private func finish(_ request: UnsafeMutablePointer<evhttp_request>) {
        self.request = nil
        hasReplied = true
        isBetweenRequests = true
        phase = .idle
        phaseStart = server.loop.now
        letEvhttpKeep(after: request)
        request.pointee.chunked = 0
        evhttp_send_reply_end(request)
        if closesAfterReply { return abort() }
        if readAhead.count > 0 { server.atTurnEnd(.readOn(self)) }
        watch()
    }

    // MARK: The end

    /// Takes no more notice of what the client sends.
    func stopListening() {
        phase = .lingering
        phaseStart = server.loop.now
    }

    /// Ends the connection at once, whatever it is doing.
    func abort() {
        guard let connection else { return }
        if !isBetweenRequests || descriptor < 0 || !leaveToAnother() { evhttp_connection_free(connection) }
    }

    /// Lets go of the client and keeps what evhttp has, which is between two requests.
    private func leaveToAnother() -> Bool {
        if descriptor == evhttpDescriptor {
            guard server.putPlaceholder(at: descriptor) else { return false }
        } else {
            close(descriptor)
        }
        ended()
        return true
    }

    /// evhttp is closing its connection, and with it the request, if there is one.
    private func closed() {
        connection = nil
        request = nil
        if descriptor != evhttpDescriptor {
            server.forgetPlaceholder()
            if descriptor >= 0 { close(descriptor) }
        }
        if descriptor >= 0 { ended() }
    }

    private func ended() {
        if isWatched { readEvent?.stop() }
        isWatched = false
        if unsent.count > 0 { writeEvent?.stop() }
        let owner = self.owner
        self.owner = nil
        owner?.clientDisconnected()
        server.forget(self)
        descriptor = -1
    }
}
