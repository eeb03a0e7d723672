// One client's connection: what comes in, the one request that may be outstanding, and its reply. HTTPServer makes one for
// a client that it accepts, and keeps it, once that has gone, for another.
// This object reads and writes the socket, and owns it. A request becomes one when it is whole: then a parser is lent to it
// until the answer, which gives the request back; nothing may touch it after that. Until then PartialRequest has what has
// come (InboundBody.swift). A client that rests takes little. InboundReply.swift has answers, InboundEnd.swift the end.
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

    /// What a request, or what is missing of it, has to wait for before it goes on; meanwhile nothing is read.
    enum Wait: UInt8 {
        case nothing, parser, memory, window
    }

    unowned(unsafe) let server: HTTPServer
    /// The client's socket; -1 while there is no client.
    private(set) var descriptor: Int32 = -1
    /// What has come of a request; nil once it is whole, and between two requests.
    var partial: PartialRequest?
    /// What parses the outstanding request, and has it.
    var parser: RequestParser?
    private(set) var wait = Wait.nothing
    /// Tells one wait from the next.
    private(set) var waitTicket: UInt32 = 0
    /// Whether the present body has been let in.
    var isInWindow = false
    /// Whether the client has sent a large body; another one is then likely.
    private var hadLargeBody = false
    /// The request that has been handed over and whose reply has not been sent.
    private(set) var request: UnsafeMutablePointer<evhttp_request>?
    /// What the memory of the server has for it, beside what its body has.
    var charge = 0
    /// What goes to a shard in place of the outstanding request's own target; nil for nearly all requests.
    var rewrittenTarget: RewrittenTarget?
    /// Whoever answers the outstanding request.
    var owner: (any InboundRequestOwner)?
    private(set) var phase = Phase.idle
    /// When the phase began.
    var phaseStart: MonotonicTime
    /// Whether the connection ends with the present request, by the client's wish or ours.
    var closesAfterReply = false
    /// Whether it is the client that wants it to end, and so sends nothing more.
    private(set) var isLastOfClient = false
    /// Whether the client has closed its half of the connection, or all of it: which of them, only sending tells.
    private(set) var isHalfClosed = false
    /// Whether the first bytes of the answer have been sent already, to learn that; then this event tells of a reset.
    var hasSentStart = false
    var resetEvent: DescriptorEvent?
    private(set) var hasReplied = false
    /// Whether a request of those that are being taken has its answer.
    private var isAnswered = false
    /// Empty lines since the last request.
    var emptyLines = 0
    private var readEvent: DescriptorEvent?
    /// Whether the loop tells of what the client sends. Of one that has sent its request with the connection, it need not
    /// before the answer: what that takes is saved where the connection then ends.
    private var isWatched = false
    private var writeEvent: DescriptorEvent?
    private var isReadingPaused = false
    /// What the client has sent while its request was outstanding.
    private(set) var readAhead = ByteBuffer(capacity: 0)
    private var isReadOnDue = false
    /// What the client has not yet taken of its reply.
    private var unsent = UnsentReply()
    /// What has been read and thrown away since the last answer, and when.
    var lingering = Lingering()

    init(server: HTTPServer) {
        self.server = server
        phaseStart = server.loop.now
    }

    /// Serves a client from now on.
    func begin(_ descriptor: Int32) {
        precondition(self.descriptor < 0)
        self.descriptor = descriptor
        phase = .idle
        phaseStart = server.loop.now
        hasReplied = false
        hadLargeBody = false
        isLastOfClient = false
        isHalfClosed = false
        hasSentStart = false
        emptyLines = 0
        isReadingPaused = false
        unsent.clear()
        readEvent?.retarget(to: descriptor)
        writeEvent?.retarget(to: descriptor)
    }

    /// Reads the first request, which may be there already.
    func readFirst() {
        if descriptor >= 0 { readable() }
        if request == nil { watch() }
    }

    /// Has the loop tell of what the client sends, and of its end, from now on.
    func watch() {
        guard descriptor >= 0, !isWatched, wait == .nothing, !isHalfClosed, !isReadingPaused else { return }
        isWatched = true
        if readEvent == nil {
            readEvent = DescriptorEvent(loop: server.loop, descriptor: descriptor, interest: .read) {
                [unowned self] _ in readable()
            }
        }
        readEvent?.start()
    }

    private func stopWatching() {
        if isWatched { readEvent?.stop() }
        isWatched = false
    }

    // MARK: Reading

    private func readable() {
        switch phase {
        case .lingering: discard()
        case .body: readBody()
        default: readMore()
        }
        returnParser()
    }

    private func readMore() {
        // Of a client that goes on sending there would be no last request; and what it sends takes memory.
        if readAhead.count > 0, server.isDraining || server.memory.isScarce { return pauseReading() }
        let limit = readLimit
        let count = recv(descriptor, server.scratch.baseAddress, limit, 0)
        guard count > 0 else { return receivedNothing(count) }
        received(UnsafeRawBufferPointer(rebasing: server.scratch[..<count]))
        if phase == .body, count == limit { readBody() }
        sendOwedContinue()
    }

    /// How many bytes to read at once: with a head little of a large body, which is itself read to where it stays.
    private var readLimit: Int {
        hadLargeBody && phase.rawValue < Phase.body.rawValue || server.memory.isScarce
            ? InboundConnection.headSize : InboundConnection.sizeReadWithHead
    }

    /// Takes a recv(2) that has got nothing: there is nothing, or the client has come to its end.
    func receivedNothing(_ count: Int) {
        if count < 0, errno == EAGAIN || errno == EINTR { return }
        guard count == 0, !isHalfClosed, phase == .outstanding || phase == .writing || readAhead.count > 0 else {
            return abort()
        }
        // What it has asked for it gets, unless it has closed the other half too.
        isHalfClosed = true
        stopWatching()
        if phase == .outstanding { sendStart() }
    }

    func received(_ bytes: UnsafeRawBufferPointer) {
        switch phase {
        // What has come before them is first.
        case .outstanding, .writing: keep(bytes)
        case .idle where readAhead.count > 0: keep(bytes)
        case .idle, .head, .body: pass(bytes)
        case .lingering: break
        }
    }

    /// Takes what has come, up to the end of a request; what was sent behind it waits a turn, so that it holds nobody up.
    private func pass(_ bytes: UnsafeRawBufferPointer) {
        var rest = bytes
        isAnswered = false
        while !rest.isEmpty, descriptor >= 0, !isAnswered, phase.rawValue < Phase.outstanding.rawValue, wait == .nothing
        {
            let taken = if let partial { take(rest, for: partial) } else { takeRequest(rest) }
            rest = UnsafeRawBufferPointer(rebasing: rest[taken...])
        }
        guard descriptor >= 0, phase != .lingering else { return }
        keep(rest)
        if isAnswered, !rest.isEmpty { readOnAtTurnEnd() }
    }

    /// Takes what has come of the next request; returns how many bytes that is.
    private func takeRequest(_ bytes: UnsafeRawBufferPointer) -> Int {
        // A reload changes the limits of the next request.
        server.gate.begin(server.limits.gate, emptyLines: emptyLines)
        switch server.gate.read(bytes) {
        case .refused(let refusal):
            refuse(refusal)
            return 0
        case .unfinished where server.gate.isBeforeRequest:
            emptyLines = server.gate.emptyLines
            return bytes.count
        case .unfinished:
            beginPartial(bytes)
            enter(.head)
            server.memory.countHead(bytes.count)
            return bytes.count
        case .whole:
            return takeWhole(bytes, server.gate.head)
        }
    }

    /// Hands a request over that has come in one piece, as nearly all do.
    private func takeWhole(_ bytes: UnsafeRawBufferPointer, _ head: RequestHead) -> Int {
        let end = head.byteCount + max(0, head.contentLength)
        let cost = end + head.headerCount * InboundConnection.headerCost
        guard !head.isChunked, end <= bytes.count, cost < InboundConnection.smallCost,
            let parser = server.parsers.lend(to: self)
        else {
            headIsWhole(beginPartial(UnsafeRawBufferPointer(rebasing: bytes[..<head.byteCount])))
            return head.byteCount
        }
        server.memory.take(cost)
        charge = cost
        emptyLines = 0
        self.parser = parser
        parser.parse(bytes, head, body: UnsafeRawBufferPointer(rebasing: bytes[head.byteCount..<end]))
        checkParsed(parser)
        return end
    }

    /// evhttp takes what the Gate has passed; should it not, the client still gets an answer of shardd's.
    func checkParsed(_ parser: RequestParser) {
        guard self.parser === parser, request == nil else { return }
        if parser.isReusable { returnParser() } else { refuse(Refusal(400, "bad request")) }
    }

    @discardableResult
    private func beginPartial(_ bytes: UnsafeRawBufferPointer) -> PartialRequest {
        let partial = PartialRequest(server.gate, bytes, now: server.loop.now)
        self.partial = partial
        return partial
    }

    /// Keeps what belongs to the requests after the outstanding one; a client that sends too much of it has to wait.
    private func keep(_ bytes: UnsafeRawBufferPointer) {
        guard !bytes.isEmpty else { return }
        readAhead.append(bytes)
        server.memory.take(bytes.count)
        if readAhead.count >= HTTPServer.readAheadLimit { pauseReading() }
    }

    /// Leaves what the client sends in its socket until the next request's turn comes.
    func pauseReading() {
        isReadingPaused = true
        stopWatching()
    }

    /// Goes on with what was kept at the end of the turn, once: one request of a connection is answered in each.
    private func readOnAtTurnEnd() {
        guard !isReadOnDue else { return }
        isReadOnDue = true
        server.atTurnEnd(.readOn(self))
    }

    /// Goes on with what was kept; evhttp is on no stack.
    func readOn() {
        isReadOnDue = false
        guard descriptor >= 0, phase.rawValue < Phase.outstanding.rawValue, wait == .nothing else { return }
        var kept = ByteBuffer(capacity: 0)
        swap(&kept, &readAhead)
        server.memory.giveBack(kept.count)
        pass(kept.readable)
        goOnReading()
    }

    /// Reads on after what has been kept, or has had to wait.
    func goOnReading() {
        guard descriptor >= 0 else { return }
        returnParser()
        // What was kept comes first.
        if readAhead.count > 0, phase.rawValue < Phase.outstanding.rawValue, wait == .nothing {
            return readOnAtTurnEnd()
        }
        if isHalfClosed, phase.rawValue < Phase.outstanding.rawValue, wait == .nothing { return abort() }
        sendOwedContinue()
        if readAhead.count < HTTPServer.readAheadLimit { isReadingPaused = false }
        watch()
    }

    /// What it has sent after its last request is of no interest.
    func forgetReadAhead() {
        server.memory.giveBack(readAhead.count)
        readAhead.reset(keeping: 64)
        isReadingPaused = false
    }

    func enter(_ next: Phase) {
        guard next != phase else { return }
        phase = next
        phaseStart = server.loop.now
    }

    // MARK: Waiting

    var isWaiting: Bool { wait != .nothing }

    /// Reads nothing until what it waits for is there.
    func wait(for wait: Wait) {
        self.wait = wait
        waitTicket &+= 1
        stopWatching()
    }

    /// Waits no more; the time that it had to wait for others is not the client's.
    func endWait() {
        guard wait != .nothing else { return }
        wait = .nothing
        waitTicket &+= 1
        phaseStart = server.loop.now
        partial?.restartProgress(at: phaseStart)
    }

    /// Between two requests the parser can be of use to others.
    private func returnParser() {
        guard let parser, request == nil, !parser.isParsing else { return }
        self.parser = nil
        if parser.isReusable { server.parsers.takeBack(parser) } else { parser.free() }
    }

    // MARK: The request and its reply

    /// evhttp has read a whole request.
    func requestArrived(_ request: UnsafeMutablePointer<evhttp_request>) {
        guard let parser else { preconditionFailure("a request without a parser") }
        self.request = request
        rewrittenTarget = nil
        hadLargeBody = isInWindow
        enter(.outstanding)
        isLastOfClient = parser.head.isLast
        closesAfterReply = isLastOfClient
    }

    /// Sends a whole response; `bytes` is a head with the right framing, and a body, or what comes before a page.
    ///
    /// In the usual case one `send` takes it all, and evhttp's own reply with its events is not needed.
    func reply(_ bytes: UnsafeRawBufferPointer, page: PageRest? = nil) {
        server.loop.assertOnLoop()
        guard let request else { preconditionFailure("a reply without a request") }
        owner = nil
        let bytes = hasSentStart ? withoutStart(bytes) : bytes
        // The end of the connection, which follows at once, takes the answer along in its own packet.
        let flags = Int32(MSG_NOSIGNAL) | (closesAfterReply || page != nil ? Int32(MSG_MORE) : 0)
        let sent = max(0, send(descriptor, bytes.baseAddress, bytes.count, flags))
        if sent == bytes.count, page == nil { return finish(request) }
        enter(.writing)
        unsent.fill(UnsafeRawBufferPointer(rebasing: bytes[sent...]), page)
        writable()
    }

    private func writable() {
        guard let request, phase == .writing else { return }
        switch unsent.send(to: descriptor) {
        case .all: finish(request)
        case .notReady: waitToWrite()
        case .failed: server.atTurnEnd(.close(self))
        }
    }

    private func waitToWrite() {
        if writeEvent == nil {
            writeEvent = DescriptorEvent(loop: server.loop, descriptor: descriptor, interest: .write) {
                [unowned self] _ in writable()
            }
        }
        writeEvent?.start()
    }

    /// Gives the answered request back.
    private func finish(_ request: UnsafeMutablePointer<evhttp_request>) {
        leaveRequest()
        hasReplied = true
        isAnswered = true
        hasSentStart = false
        if parser?.isEmpty == false {
            // evhttp has read the request otherwise than the Gate, and neither can be trusted with the next one.
            enter(.lingering)
            return server.atTurnEnd(.close(self))
        }
        self.request = nil
        phase = .idle
        phaseStart = server.loop.now
        parser?.complete(request)
        if closesAfterReply { return linger() }
        if readAhead.count > 0 || isHalfClosed { readOnAtTurnEnd() }
        returnParser()
        watch()
    }

    /// Takes no memory or room any more.
    func leaveRequest() {
        if isInWindow { server.bodies.leave(self) }
        isInWindow = false
        server.memory.giveBack(charge)
        charge = 0
        server.memory.leave(self)
    }

    // MARK: The end

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
        stopWatching()
        if phase == .writing { writeEvent?.stop() }
        unsent.clear()
        resetEvent = nil
        endWait()
        leaveRequest()
        dropPartial()
        forgetReadAhead()
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
