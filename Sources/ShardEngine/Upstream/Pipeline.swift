// One connection to a shard, with the exchanges that are on it. Its pool opens it, gives it exchanges, and is told when it
// stands, of each answer, and how it has ended. All pushes of a turn leave in one send; answers come back in order.
//
//     connecting ──▶ open ──▶ closed        `end` is the one way to closed, and `Pipeline.End` says why
import DequeModule
import Glibc

/// A connection that carries several exchanges at a time (HTTP/1.1 pipelining); loop-confined.
final class Pipeline {
    enum State {
        case connecting, open, closed
    }

    /// Why a connection has ended; `ShardPool.ended` tells what then becomes of the exchanges on it.
    enum End {
        /// The shard has closed or reset it.
        case byShard
        /// The shard has said that it closes it after the answer that came last.
        case lastAnswer
        /// The shard has sent what no push had asked for.
        case unasked
        /// What the shard has sent is no answer, for this reason.
        case garbage(StaticString)
        /// The answer to the exchange at its head is late, and others wait behind it.
        case lateHead
        /// An exchange on it has not been answered in time.
        case givenUp
        /// Nothing is on it, and nothing is meant to be.
        case unused
    }

    unowned(unsafe) let pool: ShardPool
    private(set) var state = State.connecting
    /// Exchanges that have been handed over, in the order in which their answers will come.
    private(set) var exchanges = Deque<Exchange>()
    /// Whether it carries an exchange that goes alone, and so nothing else.
    private(set) var isExclusive = false
    /// When it began to connect, was given its present head, or sent some of a large body.
    private(set) var lastUse: MonotonicTime
    private let loop: EventLoop
    private var untried: ArraySlice<SocketAddress> = []
    private var socket: StreamSocket?
    private var readEvent: DescriptorEvent?
    private var writeEvent: DescriptorEvent?
    private var isWaitingToWrite = false
    private var isFlushDue = false
    private var unsent = ByteBuffer(capacity: 16384)
    private var largeBody: BodyBuffer?
    private var largeBodySent = 0
    private var streamEnd: UInt64 = 0
    private var streamSent: UInt64 = 0
    private var parser = ResponseParser()
    private var partial = ByteBuffer(capacity: 512)

    init(pool: ShardPool) {
        self.pool = pool
        loop = pool.forwarder.loop
        lastUse = loop.now
    }

    // MARK: Connecting

    /// Begins to connect, to one address after the other until one takes the connection; the pool hears of the outcome
    /// later, or gets an error's number at once.
    func connect(to addresses: [SocketAddress]) -> Int32? {
        untried = addresses[...]
        return connectToNext()
    }

    private func connectToNext() -> Int32? {
        var error = EADDRNOTAVAIL
        while let address = untried.popFirst() {
            let patience = pool.forwarder.settings.responseTimeout
            guard let socket = StreamSocket.connect(to: address, patience: patience) else {
                error = errno
                continue
            }
            let descriptor = socket.descriptor
            self.socket = consume socket
            readEvent = DescriptorEvent(loop: loop, descriptor: descriptor, interest: .read) { [unowned self] _ in
                readable()
            }
            writeEvent = DescriptorEvent(loop: loop, descriptor: descriptor, interest: .write) { [unowned self] _ in
                writable()
            }
            waitToWrite()
            return nil
        }
        return error
    }

    private func connectEnded(_ error: Int32) {
        if error == 0 {
            state = .open
            readEvent?.start()
            pool.opened(self)
        } else if untried.isEmpty || connectToNext() != nil {
            pool.connectFailed(self, error)
        }
    }

    /// Goes by another time limit from now on.
    func setPatience(_ patience: TimeSpan) {
        socket?.setPatience(patience)
    }

    /// How long the kernel lets what is sent stay unacknowledged, in milliseconds.
    var patience: UInt32 { socket?.patience ?? 0 }

    // MARK: What the pool asks

    /// Whether one more exchange may be given to it, which others may be on.
    var isShareable: Bool { state == .open && !isExclusive && !isWaitingToWrite }

    /// Whether nothing is on it, and an exchange that goes alone may be given to it.
    var isEmpty: Bool { state == .open && exchanges.isEmpty && !isWaitingToWrite }

    /// Whether nothing has ever been on it.
    var isUnused: Bool { streamEnd == 0 }

    /// Whether its oldest exchange has waited so long for its answer that others are better off elsewhere.
    func isStalled(at now: MonotonicTime) -> Bool {
        guard let oldest = exchanges.first else { return false }
        return now.since(oldest.sentAt) > Pipeline.stallTime
    }

    /// Since when the exchange at its head has been the one that the shard is to answer; there must be one.
    var headSince: MonotonicTime { max(lastUse, exchanges[0].sentAt) }

    /// Whether somebody waits for the answer of an exchange behind its head.
    var isSomebodyBehind: Bool { exchanges.dropFirst().contains { !$0.isAbandoned } }

    /// The process was stopped for so long, which counts against nobody.
    func resume(after stop: TimeSpan) {
        lastUse = min(lastUse.advanced(by: stop), loop.now)
        for exchange in exchanges { exchange.resume(after: stop) }
    }

    /// Its head has its time from now on.
    func restartHead() { lastUse = loop.now }

    /// Whether the shard's kernel has all of what was sent.
    var isAllDelivered: Bool { unsent.count == 0 && largeBody == nil && socket?.isAllDelivered == true }

    /// Whether any byte of the exchange has left on this connection.
    @inline(__always)
    func hasSent(_ exchange: Exchange) -> Bool {
        exchange.streamStart < streamSent
    }

    /// Whether a part of the answer to its head has come.
    var isInAnswer: Bool { parser.isInResponse }

    // MARK: Sending

    /// Takes an exchange; it leaves at the end of the turn.
    func add(_ exchange: Exchange) {
        precondition(state == .open && !isExclusive)
        if exchange.isSentAgain {
            // Once, though it may be taken back from here before it has left.
            pool.metrics.retries += 1
            exchange.isSentAgain = false
        }
        exchange.sentAt = loop.now
        exchange.streamStart = streamEnd
        exchanges.append(exchange)
        let before = unsent.count
        exchange.isOnPipeline = true
        exchange.precedingAnswers = append(exchange)
        streamEnd += UInt64(unsent.count - before)
        isExclusive = exchange.placement != .shared
        // A course has its body among what it writes.
        if exchange.course == nil, let body = exchange.largeBody {
            largeBody = body
            largeBodySent = 0
        }
        flushAtTurnEnd()
    }

    private func append(_ exchange: Exchange) -> Int {
        if let course = exchange.course {
            return course.write(to: &unsent, headers: pool.settings.check.headers)
        }
        guard let connection = exchange.connection else { preconditionFailure("an exchange without a client") }
        return unsent.append(requestOf: connection, to: pool.shard, largeBody: exchange.largeBody)
    }

    /// Takes no other exchanges until its head has its answer.
    func takeNoMore() {
        isExclusive = true
    }

    private func flushAtTurnEnd() {
        guard !isFlushDue else { return }
        isFlushDue = true
        pool.forwarder.flushAtTurnEnd(self)
    }

    /// Sends what there is, at the end of a turn.
    func flush() {
        isFlushDue = false
        guard state == .open, !isWaitingToWrite, isStillSilent() else { return }
        sendUnsent()
    }

    /// Before the first bytes after a rest: whether the shard has said nothing meanwhile, and not closed the connection. What
    /// comes later is an answer.
    private func isStillSilent() -> Bool {
        guard let head = exchanges.first, !hasSent(head) else { return true }
        // By the clock: a turn that takes long knows only when it began.
        guard isUnused(before: head) || MonotonicTime.now().since(lastUse) >= Pipeline.restTime else { return true }
        switch socket?.peek() {
        case .notReady: return true
        case .bytes: end(.unasked)
        default: end(.byShard)
        }
        return false
    }

    private func isUnused(before exchange: Exchange) -> Bool { exchange.streamStart == 0 }

    private func sendUnsent() {
        while unsent.count > 0, let outcome = socket?.send(unsent.readable, isMoreToCome: largeBody != nil) {
            guard case .bytes(let count) = outcome else { return sendStopped(outcome) }
            unsent.consume(count)
            streamSent += UInt64(count)
            pool.metrics.bytesOut += UInt64(count)
        }
        while let body = largeBody, let outcome = socket?.send(body, from: largeBodySent) {
            guard case .bytes(let count) = outcome else { return sendStopped(outcome) }
            largeBodySent += count
            lastUse = loop.now
            pool.metrics.bytesOut += UInt64(count)
            if largeBodySent == body.count { largeBody = nil }
        }
    }

    private func sendStopped(_ outcome: StreamSocket.Outcome) {
        if case .notReady = outcome {
            waitToWrite()
            // What the socket does not take waits where it can still be dropped, or given to another connection.
            pool.putBack(takeBackUnsent(), from: self)
        } else {
            // The shard may have said why it has closed.
            readable()
            if state == .open { endedByShard(isReset: true) }
        }
    }

    private func waitToWrite() {
        isWaitingToWrite = true
        writeEvent?.start()
    }

    private func writable() {
        isWaitingToWrite = false
        switch state {
        case .connecting:
            connectEnded(socket?.connectError() ?? EBADF)
        case .open:
            // All that leaves leaves at the end of a turn.
            flushAtTurnEnd()
            pool.hasRoom(self)
        case .closed:
            break
        }
    }

    /// Takes back the exchanges of which nothing has been sent.
    func takeBackUnsent() -> Deque<Exchange> {
        var taken = Deque<Exchange>()
        while let last = exchanges.last, !hasSent(last) {
            last.isOnPipeline = false
            taken.prepend(exchanges.removeLast())
        }
        guard let first = taken.first else { return taken }
        unsent.removeLast(Int(streamEnd - first.streamStart))
        streamEnd = first.streamStart
        if first.placement != .shared {
            isExclusive = false
            largeBody = nil
        }
        return taken
    }

    /// Whether nobody waits for the last exchange, of which a part has been sent.
    var hasAbandonedInPart: Bool {
        guard let last = exchanges.last, last.isAbandoned else { return false }
        return streamEnd > streamSent || largeBody != nil
    }

    /// Ends the connections of clients that are gone, where the shard has not been sent all of their requests yet.
    ///
    /// - Parameter time: only of those whose requests came after it.
    /// - Returns: whether there were any.
    func dropUnsentOfGoneClients(since time: MonotonicTime) -> Bool {
        var isAnyGone = false
        for (index, exchange) in exchanges.enumerated().reversed() where exchange.start >= time {
            let end = index + 1 < exchanges.count ? exchanges[index + 1].streamStart : streamEnd
            guard end > streamSent || largeBody != nil else { break }
            exchange.dropIfClientIsGone()
            if exchange.isAbandoned { isAnyGone = true }
        }
        return isAnyGone
    }

    // MARK: Receiving

    private func readable() {
        // The kernel keeps what has come, and the loop tells of it again.
        if pool.forwarder.mustWait() { return }
        let scratch = pool.forwarder.scratch
        while let outcome = socket?.receive(into: scratch) {
            switch outcome {
            case .bytes(let count):
                pool.metrics.bytesIn += UInt64(count)
                received(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
                if count < scratch.count { return }
            case .notReady:
                return
            case .ended:
                return endedByShard(isReset: false)
            case .failed:
                return endedByShard(isReset: true)
            }
        }
    }

    /// Parses from where the bytes were received, or, when an answer has begun already, from where it is kept.
    private func received(_ bytes: UnsafeRawBufferPointer) {
        if partial.count == 0 {
            let consumed = readAnswers(bytes, isAtEnd: false)
            if state == .open { partial.append(UnsafeRawBufferPointer(rebasing: bytes[consumed...])) }
        } else {
            partial.append(bytes)
            let consumed = readAnswers(partial.readable, isAtEnd: false)
            if state == .open { partial.consume(consumed) }
        }
    }

    /// Hands out the answers that are whole; returns how many bytes they were.
    private func readAnswers(_ bytes: UnsafeRawBufferPointer, isAtEnd: Bool) -> Int {
        var consumed = 0
        while state == .open, consumed < bytes.count || isAtEnd {
            guard let head = exchanges.first, hasSent(head) else {
                // What comes before its push has left is no answer to it.
                end(.unasked)
                break
            }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
            switch parser.parse(rest, isAtEnd: isAtEnd) {
            case .needsMore:
                return consumed
            case .malformed(let reason):
                end(.garbage(reason))
            case .response(let response):
                consumed += response.consumed
                answered(rest, response)
            }
        }
        return consumed
    }

    private func answered(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse) {
        let since = headSince
        lastUse = loop.now
        if let head = exchanges.first, head.precedingAnswers > 0 {
            head.precedingAnswers -= 1
            if !response.keepsConnection { end(.lastAnswer) }
            return
        }
        if let course = exchanges.first?.course, course.keepsUntilMarked(bytes, response, parser.chunkedBody) {
            if !response.keepsConnection { end(.lastAnswer) }
            return
        }
        let exchange = exchanges.removeFirst()
        // An answer before the whole body was sent leaves the connection of no use.
        let isUsable = response.keepsConnection && largeBody == nil
        if isUsable { isExclusive = false }
        // With a course it may be sent again from within.
        let sentAt = exchange.sentAt
        exchange.complete(bytes, response, chunkedBody: parser.chunkedBody)
        pool.pace.answered(sentAt: sentAt, after: lastUse.since(since))
        // The pool may have something for this connection at once.
        if !isUsable { end(.lastAnswer) }
        pool.answered(self, exchange)
    }

    private func endedByShard(isReset: Bool) {
        if parser.isInResponse, !isReset || parser.isInRefusalWithoutEnd {
            _ = readAnswers(partial.readable, isAtEnd: true)
        }
        if state == .open { end(.byShard) }
    }

    // MARK: The end

    /// Closes the connection, and has the pool do with the exchanges on it what their end requires.
    func end(_ end: End) {
        pool.ended(self, end, shut())
    }

    /// Closes the connection, by a reset if the shard has been sent what it has not answered: what it has not received yet,
    /// or not read, must not overwrite what it gets later. Returns the exchanges that have no answer.
    func shut() -> Deque<Exchange> {
        precondition(state != .closed, "a connection ends once")
        state = .closed
        readEvent?.stop()
        writeEvent?.stop()
        if exchanges.isEmpty && largeBody == nil { socket?.closesInOrder() }
        socket = nil
        largeBody = nil
        let unanswered = exchanges
        exchanges = []
        return unanswered
    }

    /// How long an answer may take before new pushes prefer another connection.
    private static let stallTime = TimeSpan.milliseconds(20)
    /// After so long without an exchange it is worth a look whether the shard has said anything.
    private static let restTime = TimeSpan.milliseconds(10)
}
