// How a connection ends: refusals, time limits, and the client's last answer, which must not be lost because the client still
// sends: a socket that is closed with unread bytes is reset, and a reset takes the answer along (RFC 9112, section 9.6).
import CEvent
import Glibc

/// What a client has sent after its last answer.
struct Lingering {
    /// How much is thrown away for one client. The rest stays in its socket, as the client may not have read its answer yet.
    static let mostBytes = 64 << 20
    /// How long it may go on sending.
    static let mostTime = TimeSpan.seconds(5)
    /// How long it may be silent before the socket is closed; and while the server shuts down.
    static let silence = TimeSpan.seconds(1)
    static let shortSilence = TimeSpan.milliseconds(200)

    var bytes = 0
    /// When it last sent something.
    var heardAt = MonotonicTime(nanoseconds: 0)

    var isAtLimit: Bool { bytes >= Lingering.mostBytes }
}

extension InboundConnection {
    /// Whether the client has closed its socket, or its sending half: the two look the same from here.
    var hasClientClosed: Bool {
        guard descriptor >= 0 else { return true }
        var state = pollfd(fd: descriptor, events: Int16(shardd_poll_end), revents: 0)
        return poll(&state, 1, 0) > 0 && state.revents & Int16(shardd_poll_end) != 0
    }

    /// Answers what is not a request, or has taken too long to become one, and ends the connection; evhttp is on no stack.
    func refuse(_ refusal: Refusal) {
        guard descriptor >= 0, request == nil, phase != .lingering else { return }
        server.onRefusal(refusal)
        writeRefusal(refusal)
        let bytes = server.reply.readable
        _ = send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
        linger()
    }

    /// Sends no more, and throws away for a while what comes. The answer has been sent, or goes with the end; only then may the
    /// socket be closed, as the client can send at any moment.
    func linger() {
        let isSilent = isLastOfClient && readAhead.count == 0
        endWait()
        leaveRequest()
        dropPartial()
        letGoOfParser()
        forgetReadAhead()
        enter(.lingering)
        lingering = Lingering(heardAt: server.loop.now)
        if isHalfClosed || shutdown(descriptor, Int32(SHUT_WR)) != 0 { return server.atTurnEnd(.close(self)) }
        if isSilent, shardd_unread(descriptor) == 0 { return abort() }
        watch()
    }

    /// Throws away what has come.
    func discard() {
        for _ in 0..<InboundConnection.discardsAtOnce {
            let count = recv(descriptor, server.scratch.baseAddress, server.scratch.count, Int32(MSG_TRUNC))
            if count < 0, errno == EAGAIN || errno == EINTR { return }
            lingering.bytes += count
            lingering.heardAt = server.loop.now
            guard count > 0 else { return abort() }
            if lingering.isAtLimit { return pauseReading() }
            if count < server.scratch.count { return }
        }
    }

    /// Whether there is a whole request: what has come of another one is not answered any more when the server shuts down.
    func hasWholeRequest(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var gate = Gate(limits: server.limits.gate)
        guard case .whole = gate.read(bytes) else { return false }
        let rest = UnsafeRawBufferPointer(rebasing: bytes[gate.head.byteCount...])
        guard gate.head.isChunked else { return rest.count >= gate.head.contentLength }
        var chunks = ChunkGate(limits: gate.limits)
        _ = chunks.read(rest) { _ in }
        return chunks.isAtEnd
    }

    // MARK: Time

    /// Ends the connection, or what it is waiting for, when that has taken too long.
    func enforceTimeLimit(at now: MonotonicTime) {
        let limits = server.limits
        let elapsed = now.since(phaseStart)
        switch phase {
        case .idle where elapsed >= limits.idleTimeout, .writing where elapsed >= limits.bodyTimeout:
            abort()
        case .lingering where elapsed >= Lingering.mostTime || now.since(lingering.heardAt) >= mostSilence:
            abort()
        case .head where elapsed >= limits.headerTimeout:
            refuse(Refusal(408, "the request's headers took too long"))
        case .body:
            enforceBodyLimit(at: now, elapsed: elapsed)
        default:
            break
        }
    }

    private var mostSilence: TimeSpan {
        if server.isDraining { return Lingering.shortSilence }
        return lingering.isAtLimit ? Lingering.mostTime : Lingering.silence
    }

    private func enforceBodyLimit(at now: MonotonicTime, elapsed: TimeSpan) {
        let limits = server.limits
        switch wait {
        case .nothing where elapsed >= limits.bodyTimeout:
            refuse(Refusal(408, "the request's body took too long"))
        case .nothing:
            let left = TimeSpan(nanoseconds: limits.bodyTimeout.nanoseconds - elapsed.nanoseconds)
            partial?.lookAtProgress(at: now, left: left)
        case .parser where elapsed >= limits.headerTimeout:
            refuse(Refusal(503, "too many requests at a time"))
        case .memory where elapsed >= limits.bodyTimeout, .window where elapsed >= limits.bodyTimeout:
            refuse(Refusal(503, "requests take too much memory"))
        default:
            break
        }
    }

    /// Whether it may be closed to make room: it is between two requests, or has never sent any, or has its last answer. The
    /// first request of a new connection may be on its way, and no client would send it again.
    var isDispensable: Bool {
        let elapsed = server.loop.now.since(phaseStart)
        if phase == .lingering { return elapsed >= Lingering.shortSilence }
        return phase == .idle && (hasReplied || elapsed >= server.limits.headerTimeout)
    }

    /// Whether a part of a request has been there for so long and the client is to blame.
    func isUnfinished(since time: TimeSpan, at now: MonotonicTime) -> Bool {
        phase == .head && now.since(phaseStart) >= time || isHopeless(at: now)
    }

    /// Whether it holds memory that others wait for, and will not be whole in time.
    func isHopeless(at now: MonotonicTime) -> Bool {
        phase == .body && wait == .nothing && partial?.isHopeless(at: now) == true
    }

    // MARK: Half-closed clients

    /// Learns whether a client that has closed its half of the connection has closed all of it: then its system answers the
    /// first bytes of the response by a reset. Every response begins with these.
    func sendStart() {
        hasSentStart = true
        let start = InboundConnection.startOfResponse
        let sent = send(descriptor, start.utf8Start, start.utf8CodeUnitCount, Int32(MSG_NOSIGNAL))
        if sent != start.utf8CodeUnitCount || isReset { return abort() }
        resetEvent = DescriptorEvent(loop: server.loop, descriptor: descriptor, interest: .change) { [unowned self] _ in
            if isReset { server.atTurnEnd(.close(self)) }
        }
        resetEvent?.start()
    }

    /// What is still to be sent of a response.
    func withoutStart(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        resetEvent = nil
        return UnsafeRawBufferPointer(rebasing: bytes[InboundConnection.startOfResponse.utf8CodeUnitCount...])
    }

    private static var startOfResponse: StaticString { "HTTP/1.1 " }

    /// Whether the client has reset the connection.
    var isReset: Bool {
        var error: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size) != 0 || error != 0
    }

    private static let discardsAtOnce = 4
}
