// How much memory requests may take in one server: heads and bodies that come in, and those that wait for their shards.
// See docs/adr/0015-requests-share-a-bounded-memory.md.
//
// A request that comes in one piece, as nearly all do, is only counted. What comes in more pieces is granted memory before it
// is read on; where there is none it waits in its client's socket. A quarter is kept for the first pieces, so that large
// bodies hold up no smaller ones, and one body at a time may go beyond the limit, so that what half the bodies lack is not what
// the other half has. Who takes memory that others wait for and makes no progress is ended (HTTPServer.endSlowest).

/// The memory of a server's requests; loop-confined.
final class RequestMemory {
    private let check: LoopCheck
    /// How many bytes requests may take.
    var limit: Int
    /// How many they take.
    private(set) var used = 0
    /// Those of unfinished heads among them.
    private(set) var headBytes = 0
    /// Who waits for its first piece, and who for more.
    private var early = WaitingLine()
    private var late = WaitingLine()
    /// The one that has gone beyond the limit.
    private var exception: InboundConnection?

    init(loop: EventLoop, limit: Int) {
        check = LoopCheck(loop)
        self.limit = limit
    }

    /// Whether new requests should be read in small pieces.
    var isScarce: Bool { used > lateLimit }

    /// Whether unfinished heads take more than their part.
    var hasTooManyHeads: Bool { headBytes > limit / 8 }

    private var lateLimit: Int { limit / 4 * 3 }

    /// Counts what has come already.
    @inline(__always)
    func take(_ bytes: Int) {
        check.assertOnLoop()
        used += bytes
    }

    @inline(__always)
    func giveBack(_ bytes: Int) {
        check.assertOnLoop()
        used -= bytes
    }

    /// Counts what an unfinished head has more, or has no longer.
    func countHead(_ bytes: Int) {
        used += bytes
        headBytes += bytes
    }

    /// Whether the connection may have so many bytes more now; if not, it waits, and goes on once it may.
    func grant(_ bytes: Int, to connection: InboundConnection, isFirst: Bool) -> Bool {
        check.assertOnLoop()
        let isNext = isFirst ? early.isEmpty : late.isEmpty
        let fits = isNext && used + bytes <= (isFirst ? limit : lateLimit)
        if fits || exception === connection || isNext && mayExceed(connection) {
            used += bytes
            return true
        }
        connection.wait(for: .memory)
        if isFirst { early.append(connection, bytes: bytes) } else { late.append(connection, bytes: bytes) }
        return false
    }

    private func mayExceed(_ connection: InboundConnection) -> Bool {
        if exception == nil { exception = connection }
        return exception === connection
    }

    /// The connection's request has been answered, or has ended otherwise.
    @inline(__always)
    func leave(_ connection: InboundConnection) {
        if exception === connection { exception = nil }
    }

    /// Lets those go on that there is memory for; evhttp is on no stack.
    func letIn() {
        while let next = late.first, used + next.bytes <= lateLimit || mayExceed(next.connection) {
            late.removeFirst()
            used += next.bytes
            next.connection.goOn(withMemory: next.bytes)
        }
        while let next = early.first, used + next.bytes <= limit || mayExceed(next.connection) {
            early.removeFirst()
            used += next.bytes
            next.connection.goOn(withMemory: next.bytes)
        }
    }

    /// How much should be given back, so that those who wait can go on: not all of them at once. Zero where nobody waits.
    var shortage: Int {
        guard !early.isEmpty || !late.isEmpty else { return 0 }
        let wanted = max(min(early.bytes + late.bytes, limit / 4), early.first?.bytes ?? 0, late.first?.bytes ?? 0)
        return max(0, used + wanted - (early.isEmpty ? lateLimit : limit))
    }

    /// Lets those go first whose whole body waits in the socket: it takes its memory for a moment only.
    func preferWhole() {
        if !early.isEmpty { early.prefer { $0.isRestThere } }
    }
}
