// A request that comes in several pieces: the rest of its head, and its body, which may have to wait for memory, or for
// others' large bodies to pass. Nothing of it reaches evhttp before it is whole.
import CEvent
import Glibc

extension InboundConnection {
    /// So much is read of a body, about, before it is known for a large one, of which as much is still to come; and no more of
    /// that before others have passed. What malloc keeps with it makes 32 kB of it.
    static let sizeReadWithHead = 32768 - 64
    /// What a head takes, about.
    static let headSize = 4096 - 64
    /// What evhttp takes for a header, about, beside the bytes that it comes in.
    static let headerCost = 160
    /// What takes less need not wait for memory.
    static let smallCost = 49152

    /// Takes more of a request; returns how many bytes belong to it.
    func take(_ bytes: UnsafeRawBufferPointer, for partial: PartialRequest) -> Int {
        if let body = partial.body { return takeBody(bytes, partial, body) }
        let limit = partial.gate.limits.headerBytes + 1
        let more = UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, max(1, limit - partial.head.count))])
        partial.head.append(more)
        server.memory.countHead(more.count)
        switch partial.gate.read(partial.head.readable) {
        case .refused(let refusal):
            refuse(refusal)
            return 0
        case .unfinished:
            if partial.gate.isBeforeRequest { wereEmptyLines(partial) }
            return more.count
        case .whole:
            let surplus = partial.head.count - partial.gate.head.byteCount
            server.memory.countHead(-partial.head.count)
            partial.head.removeLast(surplus)
            headIsWhole(partial)
            return more.count - surplus
        }
    }

    /// What seemed to be the beginning of a request was an empty line.
    func wereEmptyLines(_ partial: PartialRequest) {
        dropPartial()
        emptyLines = partial.gate.emptyLines
        enter(.idle)
    }

    /// The head is there; its body may follow.
    func headIsWhole(_ partial: PartialRequest) {
        let head = partial.gate.head
        partial.headGrant = head.byteCount
        server.memory.take(head.byteCount)
        enter(.body)
        let limits = partial.gate.limits
        if head.isChunked { partial.chunks = ChunkGate(limits: limits) }
        let limit = head.isChunked ? limits.bodyBytes : max(0, head.contentLength)
        let body = BodyBuffer(memory: server.memory, limit: limit, isSized: !head.isChunked)
        partial.body = body
        partial.owesContinue = head.expectsContinue
        if body.isWhole { requestIsWhole(partial) }
    }

    private func takeBody(_ bytes: UnsafeRawBufferPointer, _ partial: PartialRequest, _ body: BodyBuffer) -> Int {
        partial.owesContinue = false
        guard partial.chunks != nil else {
            let count = min(bytes.count, body.bytesToCome)
            body.append(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
            if body.isWhole { requestIsWhole(partial) }
            return count
        }
        let (count, refusal) = partial.chunks?.read(bytes) { body.append($0) } ?? (0, nil)
        if let refusal {
            refuse(refusal)
        } else if partial.chunks?.isAtEnd == true {
            requestIsWhole(partial)
        }
        return count
    }

    // MARK: The body

    /// Reads a body, as far as it is there and there is room for it.
    func readBody() {
        while phase == .body, wait == .nothing, let partial, let body = partial.body, mayRead(partial, body) {
            let limit: Int
            let count: Int
            if partial.chunks == nil {
                limit = min(server.scratch.count, body.room)
                count = body.receive(from: descriptor, limit: limit)
                if count > 0 { receivedBody(partial, body) }
            } else {
                limit = min(server.scratch.count, max(body.room, InboundConnection.leastChunkRead))
                count = recv(descriptor, server.scratch.baseAddress, limit, 0)
                if count > 0 { received(UnsafeRawBufferPointer(rebasing: server.scratch[..<count])) }
            }
            if count <= 0 { return receivedNothing(count) }
            if count < limit { return }
        }
    }

    private func receivedBody(_ partial: PartialRequest, _ body: BodyBuffer) {
        partial.owesContinue = false
        if isInWindow { server.bodies.read(self, count: body.count, isWhole: body.isWhole) }
        if body.isWhole { requestIsWhole(partial) }
    }

    /// Whether more of the body may be read; if not, it waits.
    private func mayRead(_ partial: PartialRequest, _ body: BodyBuffer) -> Bool {
        let least = partial.chunks == nil ? 1 : InboundConnection.leastChunkRead
        if body.room < least, body.nextGrant > 0 {
            let more = body.nextGrant
            guard server.memory.grant(more, to: self, isFirst: body.isAtStart) else { return false }
            body.grant(more)
        }
        // Chunked bodies, which do not tell their size, do not wait for others.
        guard !isInWindow, partial.chunks == nil, body.bytesToCome >= InboundConnection.sizeReadWithHead else {
            return true
        }
        isInWindow = server.bodies.enter(self, bodyBytesAvailable)
        return isInWindow
    }

    /// How many bytes of the body there are to read now, about.
    var bodyBytesAvailable: Int {
        min(max(Int(shardd_unread(descriptor)), InboundConnection.leastShare), partial?.body?.bytesToCome ?? 0)
    }

    /// Whether all that is to come of the body, or as much as a socket holds, can be read at once.
    var isRestThere: Bool {
        guard let body = partial?.body else { return false }
        return shardd_unread(descriptor) >= min(body.bytesToCome, InboundConnection.socketful)
    }

    /// Has the client send the body that it holds back, once there is room for it (RFC 9110, section 10.1.1).
    func sendOwedContinue() {
        guard let partial, partial.owesContinue, let body = partial.body, phase == .body, wait == .nothing else {
            return
        }
        if body.room == 0 {
            let more = body.nextGrant
            guard server.memory.grant(more, to: self, isFirst: true) else { return }
            body.grant(more)
        }
        partial.owesContinue = false
        let text: StaticString = "HTTP/1.1 100 Continue\r\n\r\n"
        let sent = send(descriptor, text.utf8Start, text.utf8CodeUnitCount, Int32(MSG_NOSIGNAL))
        if sent != text.utf8CodeUnitCount { abort() }
    }

    // MARK: The whole

    /// All of the request has come; it becomes one as soon as there is a parser for it, and memory.
    private func requestIsWhole(_ partial: PartialRequest) {
        guard hasMemory(partial) else { return }
        guard let parser = server.parsers.lend(to: self) else { return server.parsers.waitFor(self) }
        handOver(partial, to: parser)
    }

    /// Hands over a request that has come in several pieces, or is not small.
    func handOver(_ partial: PartialRequest, to parser: RequestParser) {
        self.partial = nil
        charge = partial.headGrant
        emptyLines = 0
        self.parser = parser
        let nothing = UnsafeRawBufferPointer(start: nil, count: 0)
        parser.parse(partial.head.readable, partial.gate.head, body: nothing, buffer: partial.body)
        checkParsed(parser)
    }

    /// Whether there is memory for what evhttp makes of the headers.
    private func hasMemory(_ partial: PartialRequest) -> Bool {
        guard !partial.isParsable else { return true }
        let cost = partial.gate.head.headerCount * InboundConnection.headerCost
        if cost < InboundConnection.smallCost {
            server.memory.take(cost)
        } else if !server.memory.grant(cost, to: self, isFirst: true) {
            return false
        }
        partial.headGrant += cost
        partial.isParsable = true
        return true
    }

    /// There is a parser for the request; evhttp is on no stack.
    func goOn(with parser: RequestParser) {
        endWait()
        guard let partial else { return server.parsers.takeBack(parser) }
        handOver(partial, to: parser)
        goOnReading()
    }

    /// There is memory for more of the request.
    func goOn(withMemory bytes: Int) {
        endWait()
        guard let partial, let body = partial.body else { preconditionFailure("memory for nothing") }
        if body.isWhole || partial.chunks?.isAtEnd == true {
            partial.headGrant += bytes
            partial.isParsable = true
            requestIsWhole(partial)
        } else {
            body.grant(bytes)
            sendOwedContinue()
            readBody()
        }
        goOnReading()
    }

    /// There is room for the body among the large ones that are on their way.
    func goOnInWindow() {
        endWait()
        isInWindow = true
        readBody()
        goOnReading()
    }

    /// The request will not become one.
    func dropPartial() {
        guard let partial else { return }
        if partial.body == nil {
            server.memory.countHead(-partial.head.count)
        } else {
            server.memory.giveBack(partial.headGrant)
        }
        self.partial = nil
    }

    private static let leastChunkRead = 4096
    private static let leastShare = 65536
    /// What fits into a socket of which nobody reads, about.
    private static let socketful = 49152
}
