// Which large bodies are read now. What is read before its shard can take it only fills memory, and has left the
// processor's cache when it is sent on; so the others wait where they are, in the sockets that they came by. See
// docs/adr/0012-large-bodies-wait-in-their-sockets.md.
import DequeModule

/// The large bodies of a server that are on their way through; loop-confined.
final class BodyWindow {
    /// How many bytes of large bodies may be on their way; a larger one goes alone.
    private let size = 2 << 20
    /// A body counts for so long, or until its answer: a slow client, or a slow shard, holds up nobody any longer.
    var holdTime = TimeSpan.milliseconds(20)

    private struct Share {
        unowned(unsafe) let connection: InboundConnection
        let bytes: Int
        let since: MonotonicTime
    }

    private let loop: EventLoop
    /// In the order in which they were let in.
    private var shares: [Share] = []
    /// Of all shares.
    private(set) var bytes = 0
    private var waiting = Deque<InboundConnection>()
    private var expiry: Timer?

    init(loop: EventLoop) {
        self.loop = loop
        expiry = Timer(loop: loop) { [unowned self] in letIn() }
    }

    /// Whether a body with so many bytes to come may be read; if not, its connection goes on once it may.
    func enter(_ connection: InboundConnection, _ bytesToCome: Int) -> Bool {
        expireShares()
        if waiting.isEmpty, hasRoom(for: bytesToCome) {
            add(connection, bytesToCome)
            return true
        }
        if waiting.isEmpty { scheduleExpiry() }
        waiting.append(connection)
        return false
    }

    /// The body's push has its answer, or its client is gone.
    func leave(_ connection: InboundConnection) {
        guard let index = shares.firstIndex(where: { $0.connection === connection }) else { return }
        bytes -= shares.remove(at: index).bytes
    }

    /// The client waits no more.
    func cancel(_ connection: InboundConnection) {
        waiting.removeAll { $0 === connection }
    }

    /// Lets those go on that there is room for; evhttp is on no stack.
    func letIn() {
        guard !waiting.isEmpty else { return }
        expireShares()
        while let connection = waiting.first, hasRoom(for: connection.bodyBytesToCome) {
            waiting.removeFirst()
            add(connection, connection.bodyBytesToCome)
            connection.readBody()
        }
        if !waiting.isEmpty { scheduleExpiry() }
    }

    private func hasRoom(for more: Int) -> Bool {
        shares.isEmpty || bytes + more <= size
    }

    private func add(_ connection: InboundConnection, _ bytesToCome: Int) {
        shares.append(Share(connection: connection, bytes: bytesToCome, since: loop.now))
        bytes += bytesToCome
    }

    private func expireShares() {
        while let oldest = shares.first, loop.now.since(oldest.since) >= holdTime {
            bytes -= oldest.bytes
            shares.removeFirst()
        }
    }

    private func scheduleExpiry() {
        guard let oldest = shares.first else { return }
        let passed = loop.now.since(oldest.since)
        expiry?.schedule(after: TimeSpan(nanoseconds: max(0, holdTime.nanoseconds - passed.nanoseconds)))
    }
}
