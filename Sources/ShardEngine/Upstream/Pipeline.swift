// One connection to a shard, with the exchanges that are on it. Its pool opens it, gives it exchanges and is told when
// it can take more, or has broken. All pushes of a turn leave in one send; answers come back in order.
import DequeModule
import Glibc

/// A connection that carries several exchanges at a time (HTTP/1.1 pipelining); loop-confined.
final class Pipeline {
    enum State {
        case connecting, open, closed
    }

    unowned(unsafe) let pool: ShardPool
    private(set) var state = State.connecting
    /// Exchanges that have been handed over, in the order in which their answers will come.
    private(set) var exchanges = Deque<Exchange>()
    /// Whether it carries a large body, and so nothing else.
    private(set) var isExclusive = false
    /// When it began to connect, or was last of use.
    private(set) var lastUse: MonotonicTime
    /// How many answers have come.
    private(set) var answerCount = 0
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

    /// Begins to connect, to one address after the other until one takes the connection; the pool hears of the outcome
    /// later, or gets an error's number at once.
    func connect(to addresses: [SocketAddress]) -> Int32? {
        untried = addresses[...]
        return connectToNext()
    }

    private func connectToNext() -> Int32? {
        var error = EADDRNOTAVAIL
        while let address = untried.popFirst() {
            guard let socket = StreamSocket.connect(to: address) else {
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

    /// Whether its oldest exchange has waited so long for its answer that others are better off elsewhere.
    func isStalled(at now: MonotonicTime) -> Bool {
        guard let oldest = exchanges.first else { return false }
        return now.since(oldest.sentAt) > Pipeline.stallTime
    }

    /// Takes an exchange; it leaves at the end of the turn.
    func add(_ exchange: Exchange) {
        precondition(state == .open && !isExclusive)
        guard let connection = exchange.connection else { preconditionFailure("an exchange without a client") }
        exchange.sentAt = loop.now
        exchange.streamStart = streamEnd
        exchanges.append(exchange)
        let before = unsent.count
        unsent.append(
            requestOf: connection,
            to: pool.shard,
            largeBody: exchange.largeBody,
            isRemoval: exchange.isRemoval
        )
        streamEnd += UInt64(unsent.count - before)
        if let body = exchange.largeBody {
            isExclusive = true
            largeBody = body
            largeBodySent = 0
        }
        guard !isFlushDue else { return }
        isFlushDue = true
        pool.forwarder.flushAtTurnEnd(self)
    }

    /// Sends what there is, at the end of a turn.
    func flush() {
        isFlushDue = false
        if state == .open, !isWaitingToWrite { sendUnsent() }
    }

    private func writable() {
        isWaitingToWrite = false
        switch state {
        case .connecting:
            connectEnded(socket?.connectError() ?? EBADF)
        case .open:
            sendUnsent()
        case .closed:
            break
        }
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

    private func sendUnsent() {
        while unsent.count > 0, let outcome = socket?.send(unsent.readable, isMoreToCome: largeBody != nil) {
            guard case .bytes(let count) = outcome else { return sendStopped(outcome) }
            unsent.consume(count)
            streamSent += UInt64(count)
        }
        while let body = largeBody, let outcome = socket?.send(body, from: largeBodySent) {
            guard case .bytes(let count) = outcome else { return sendStopped(outcome) }
            largeBodySent += count
            if largeBodySent == body.count { largeBody = nil }
        }
    }

    private func sendStopped(_ outcome: StreamSocket.Outcome) {
        if case .notReady = outcome { waitToWrite() } else { broke(isReset: true) }
    }

    private func waitToWrite() {
        isWaitingToWrite = true
        writeEvent?.start()
    }

    private func readable() {
        let scratch = pool.forwarder.scratch
        while let outcome = socket?.receive(into: scratch) {
            switch outcome {
            case .bytes(let count):
                received(UnsafeRawBufferPointer(rebasing: scratch[..<count]))
                if count < scratch.count { return }
            case .notReady:
                return
            case .ended:
                return ended(isReset: false)
            case .failed:
                return ended(isReset: true)
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
            guard !exchanges.isEmpty else {
                // A shard that says something unasked is about to close, or confused.
                broke(isReset: false)
                break
            }
            let rest = UnsafeRawBufferPointer(rebasing: bytes[consumed...])
            switch parser.parse(rest, isAtEnd: isAtEnd) {
            case .needsMore:
                return consumed
            case .malformed(let reason):
                answeredGarbage(reason)
            case .response(let response):
                consumed += response.consumed
                answered(rest, response)
            }
        }
        return consumed
    }

    private func answered(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse) {
        let exchange = exchanges.removeFirst()
        answerCount += 1
        lastUse = loop.now
        // An answer before the whole body was sent leaves the connection of no use.
        let isUsable = response.keepsConnection && largeBody == nil
        if isUsable { isExclusive = false }
        exchange.complete(bytes, response, chunkedBody: parser.chunkedBody)
        // The pool may have something for this connection at once.
        if !isUsable { broke(isReset: false) }
        pool.answered(self, exchange)
    }

    private func answeredGarbage(_ reason: StaticString) {
        exchanges.removeFirst().fail(.garbage(reason))
        broke(isReset: false)
    }

    private func ended(isReset: Bool) {
        if !isReset, parser.isInResponse { _ = readAnswers(partial.readable, isAtEnd: true) }
        if state == .open { broke(isReset: isReset) }
    }

    private func broke(isReset: Bool) {
        let unanswered = shut()
        pool.broke(self, unanswered, isReset: isReset)
    }

    /// Whether any byte of the exchange has left on this connection.
    func hasSent(_ exchange: Exchange) -> Bool {
        exchange.streamStart < streamSent
    }

    /// Closes the connection; returns the exchanges that have no answer.
    func shut() -> Deque<Exchange> {
        state = .closed
        readEvent?.stop()
        writeEvent?.stop()
        socket = nil
        largeBody = nil
        let unanswered = exchanges
        exchanges = []
        return unanswered
    }

    /// How long an answer may take before new pushes prefer another connection.
    private static let stallTime = TimeSpan.milliseconds(20)
}
