// One client's connection: what comes in, the one request that may be outstanding, and its reply. HTTPServer makes one for
// a client that it accepts, and keeps it, once that has gone, for another.
//
// This object reads and writes the socket, and owns it. What parses requests, the Gate and evhttp, is lent to it by the
// pool from the first byte of a request to the answer: a client that rests takes little. The reply gives the request back;
// nothing may touch it after that.
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
    /// The client's socket; -1 while there is no client.
    private(set) var descriptor: Int32 = -1
    /// What parses the present request; nil between two requests.
    private var parser: RequestParser?
    /// Whether nothing is read, as the request has to wait for a parser, or its body for others to pass.
    private(set) var isWaiting = false
    /// Whether the present body has been let in.
    private var isInWindow = false
    /// Whether the client has sent a large body; another one is then likely.
    private var hadLargeBody = false
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

    init(server: HTTPServer) {
        self.server = server
        phaseStart = server.loop.now
    }

    /// Serves a client, whose request may be there already.
    func begin(_ descriptor: Int32) {
        precondition(self.descriptor < 0)
        self.descriptor = descriptor
        phase = .idle
        phaseStart = server.loop.now
        hasReplied = false
        hadLargeBody = false
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
        guard descriptor >= 0, !isWatched, !isWaiting else { return }
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
        var isMoreToCome = true
        while isMoreToCome, isInWindow || mayReadBody() {
            let limit = readLimit
            let count = isInLargeBody ? receiveBody(limit) : receive(limit)
            if count == 0 || count < 0 && errno != EAGAIN && errno != EINTR { return abort() }
            isMoreToCome = count == limit && isInLargeBody
        }
        returnParser()
    }

    /// How many bytes to read at once: with a head little of a large body, which is itself read to where it stays.
    private var readLimit: Int {
        if phase == .body { return server.scratch.count }
        return phase == .idle && hadLargeBody ? InboundConnection.headSize : InboundConnection.sizeReadWithHead
    }

    private func receive(_ limit: Int) -> Int {
        let count = recv(descriptor, server.scratch.baseAddress, limit, 0)
        if count > 0 { received(UnsafeRawBufferPointer(rebasing: server.scratch[..<count])) }
        return count
    }

    private func receiveBody(_ limit: Int) -> Int {
        guard let parser else { preconditionFailure("a body without a parser") }
        // With its last byte the request is handed over, which enters the next phase.
        let count = parser.receiveBody(from: descriptor, limit: limit)
        if count > 0, descriptor >= 0, !parser.sendOutput(to: descriptor) { server.atTurnEnd(.close(self)) }
        return count
    }

    /// How many bytes of the present body are to come, where its head has told; else 0.
    var bodyBytesToCome: Int { phase == .body ? parser?.bodyBytesToCome ?? 0 : 0 }

    private var isInLargeBody: Bool {
        bodyBytesToCome >= InboundConnection.sizeReadWithHead || parser?.incomingBody != nil
    }

    /// Whether there is nothing of a large body to read or it has been let in; false when it has to wait.
    private func mayReadBody() -> Bool {
        guard isInLargeBody else { return true }
        isInWindow = server.bodies.enter(self, bodyBytesToCome)
        if !isInWindow { wait() }
        return isInWindow
    }

    private func wait() {
        isWaiting = true
        if isWatched { readEvent?.stop() }
        isWatched = false
    }

    /// Sees to it that what has come can be parsed; false when it has to wait.
    private func hasParser() -> Bool {
        guard parser == nil else { return true }
        parser = server.parsers.lend(to: self)
        guard parser == nil else { return true }
        enter(.head)
        wait()
        return false
    }

    /// There is a parser for what has come; evhttp is on no stack.
    func goOn(with parser: RequestParser) {
        self.parser = parser
        isWaiting = false
        phase = .idle
        readOn()
        if request == nil { watch() }
    }

    /// There is room for its body.
    func readBody() {
        isWaiting = false
        isInWindow = true
        // The time that it had to wait for others is not the client's.
        phaseStart = server.loop.now
        readable()
        if request == nil { watch() }
    }

    /// Between two requests the parser can be of use to others.
    private func returnParser() {
        guard let parser, phase == .idle, readAhead.count == 0, !parser.isParsing else { return }
        self.parser = nil
        server.parsers.takeBack(parser)
    }

    private func received(_ bytes: UnsafeRawBufferPointer) {
        switch phase {
        case .outstanding, .writing: keep(bytes)
        case .lingering: break
        // What has come before them is first.
        case .idle where readAhead.count > 0: keep(bytes)
        case .idle, .head, .body: if hasParser() { pass(bytes) } else { keep(bytes) }
        }
    }

    /// Shows the bytes to the Gate and then to evhttp, request by request, as long as none is outstanding.
    private func pass(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        while !rest.isEmpty, descriptor >= 0, phase.rawValue < Phase.outstanding.rawValue, let parser {
            // A reload changes the limits of the next request.
            if parser.gate.isBetweenRequests { parser.gate.limits = server.limits.gate }
            let reading = parser.gate.read(rest)
            if let refusal = reading.refusal {
                stopListening()
                server.atTurnEnd(.refuse(self, refusal))
                return
            }
            enter(parser.gate.isBetweenRequests ? .idle : parser.gate.isInBody ? .body : .head)
            parser.parse(UnsafeRawBufferPointer(rebasing: rest[..<reading.count]))
            if descriptor >= 0, !parser.sendOutput(to: descriptor) { server.atTurnEnd(.close(self)) }
            rest = UnsafeRawBufferPointer(rebasing: rest[reading.count...])
        }
        if descriptor >= 0 { keep(rest) }
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
        guard descriptor >= 0, phase == .idle, hasParser() else { return }
        var kept = ByteBuffer(capacity: 0)
        swap(&kept, &readAhead)
        pass(kept.readable)
        returnParser()
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
        hadLargeBody = isInWindow
        enter(.outstanding)
        let (isLast, nameHeaders) = readConnectionHeaders()
        closesAfterReply = isLast
        isLastOfClient = isLast
        hasConnectionHeaders = nameHeaders
    }

    /// Does what comes before an answer, of which `server.reply` has the status line and headers. The connection ends with it
    /// where the server wants it back and no request waits behind this one.
    func prepareReply() {
        guard server.isAttentive || server.isFull else { return }
        if server.isDraining || server.isFull, readAhead.count == 0 { closesAfterReply = true }
        server.onAnswer?(self, statusOfReply)
    }

    /// The digits after "HTTP/1.1 ".
    private var statusOfReply: Int {
        server.reply.readable.dropFirst(9).prefix(3).reduce(0) { 10 * $0 + Int($1) - 0x30 }
    }

    /// How long the outstanding request has waited for its answer.
    var waitingTime: TimeSpan { server.loop.now.since(phaseStart) }

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

    /// Gives the answered request back.
    private func finish(_ request: UnsafeMutablePointer<evhttp_request>) {
        leaveWindow()
        hasReplied = true
        if parser?.isEmpty == false {
            // evhttp has read the request otherwise than the Gate, and neither can be trusted with the next one.
            stopListening()
            return server.atTurnEnd(.close(self))
        }
        self.request = nil
        phase = .idle
        phaseStart = server.loop.now
        parser?.complete(request)
        if closesAfterReply { return abort() }
        if readAhead.count > 0 { server.atTurnEnd(.readOn(self)) }
        returnParser()
        watch()
    }

    /// So much is read of a body, about, before it is known for a large one, of which as much is still to come; and no more of
    /// that before others have passed. What evbuffer keeps with it makes 32 kB of it.
    static let sizeReadWithHead = 32768 - 64
    /// What a head takes, about.
    private static let headSize = 4096 - 64

    // MARK: The end

    /// Takes no more notice of what the client sends.
    func stopListening() {
        stopWaiting()
        phase = .lingering
        phaseStart = server.loop.now
    }

    private func stopWaiting() {
        leaveWindow()
        guard isWaiting else { return }
        isWaiting = false
        if phase == .body { server.bodies.cancel(self) } else { server.parsers.cancel(self) }
    }

    private func leaveWindow() {
        if isInWindow { server.bodies.leave(self) }
        isInWindow = false
    }

    /// Ends the connection at once, whatever it is doing.
    func abort() {
        guard descriptor >= 0 else { return }
        ended()
        letGoOfParser()
    }

    /// No more requests will come; evhttp may be on the stack only if it has none.
    func letGoOfParser() {
        guard let parser else { return }
        self.parser = nil
        parser.client = nil
        if parser.isReusable { server.parsers.takeBack(parser) } else { parser.free() }
    }

    /// evhttp has closed its part of the connection, and with it the request, if there is one.
    func parserIsGone() {
        parser = nil
        request = nil
        ended()
    }

    private func ended() {
        guard descriptor >= 0 else { return }
        if isWatched { readEvent?.stop() }
        isWatched = false
        if unsent.count > 0 { writeEvent?.stop() }
        stopWaiting()
        close(descriptor)
        if server.isAttentive, phase == .outstanding, request != nil { server.onAnswer?(self, nil) }
        let owner = self.owner
        self.owner = nil
        owner?.clientDisconnected()
        request = nil
        server.forget(self)
        descriptor = -1
    }
}
