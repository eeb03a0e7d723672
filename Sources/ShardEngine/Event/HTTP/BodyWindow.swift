// Which large bodies are read now. What is read before its shard can take it only fills memory, and has left the
// processor's cache when it is sent on; so the others wait where they are, in the sockets that they came by. See
// docs/adr/0012-large-bodies-wait-in-their-sockets.md.

/// The large bodies of a server that are on their way through; loop-confined.
final class BodyWindow {
    /// How many bytes of large bodies may be on their way; a larger one goes alone.
    private let size = 2 << 20
    /// A body counts for so long, or until its answer: a slow shard holds up nobody any longer.
    var holdTime = TimeSpan.milliseconds(20)

    private struct Share {
        unowned(unsafe) let connection: InboundConnection
        /// What of the body was there to be read, or has been read by now.
        var bytes: Int
        let since: MonotonicTime
        /// When more of it last came; nil once it is whole.
        var readAt: MonotonicTime?
    }

    private let loop: EventLoop
    /// In the order in which they were let in.
    private var shares: [Share] = []
    /// Of all shares.
    private(set) var bytes = 0
    private var waiting = WaitingLine()
    private var expiry: Timer?

    init(loop: EventLoop) {
        self.loop = loop
        expiry = Timer(loop: loop) { [unowned self] in letIn() }
    }

    /// Whether a body of which so many bytes are there may be read; if not, its connection goes on once it may.
    func enter(_ connection: InboundConnection, _ available: Int) -> Bool {
        expireShares()
        if waiting.isEmpty, hasRoom(for: available) {
            add(connection, available)
            return true
        }
        if waiting.isEmpty { scheduleExpiry() }
        connection.wait(for: .window)
        waiting.append(connection)
        return false
    }

    /// More of the body has come.
    func read(_ connection: InboundConnection, count: Int, isWhole: Bool) {
        guard let index = shares.firstIndex(where: { $0.connection === connection }) else { return }
        let more = max(0, count - shares[index].bytes)
        shares[index].bytes += more
        bytes += more
        shares[index].readAt = isWhole ? nil : loop.now
    }

    /// The body's push has its answer, or its client is gone.
    func leave(_ connection: InboundConnection) {
        guard let index = shares.firstIndex(where: { $0.connection === connection }) else { return }
        bytes -= shares.remove(at: index).bytes
    }

    /// Lets those go on that there is room for; evhttp is on no stack.
    func letIn() {
        guard waiting.count > 0 else { return }
        expireShares()
        while let next = waiting.first, hasRoom(for: next.connection.bodyBytesAvailable) {
            waiting.removeFirst()
            add(next.connection, next.connection.bodyBytesAvailable)
            next.connection.goOnInWindow()
        }
        if !waiting.isEmpty { scheduleExpiry() }
    }

    private func hasRoom(for more: Int) -> Bool {
        shares.isEmpty || bytes + more <= size
    }

    private func add(_ connection: InboundConnection, _ available: Int) {
        shares.append(Share(connection: connection, bytes: available, since: loop.now, readAt: loop.now))
        bytes += available
    }

    /// A body that does not go on coming makes way at once, as its client may be slow.
    private func expireShares() {
        let now = loop.now
        shares.removeAll { share in
            let isStalled = share.readAt.map { now.since($0) >= BodyWindow.stallTime } ?? false
            guard isStalled || now.since(share.since) >= holdTime else { return false }
            bytes -= share.bytes
            return true
        }
    }

    private func scheduleExpiry() {
        if !shares.isEmpty { expiry?.schedule(after: BodyWindow.stallTime) }
    }

    private static let stallTime = TimeSpan.milliseconds(2)
}
