// The groups whose pushes a shard has lately been late with. A pool owns one: pushes on these groups go where they can hold
// up nobody from the start, so that a client that repeats a push which is never answered costs others nothing.

/// A few hashes of grouping keys, the latest ones; the oldest makes way.
struct LateGroups {
    private var entries: [(hash: UInt32, end: MonotonicTime)] = []

    /// Whether there are none, which is nearly always so.
    var isEmpty: Bool { entries.isEmpty }

    /// Remembers the group until then.
    mutating func insert(_ hash: UInt32, until end: MonotonicTime) {
        remove(hash)
        if entries.count == LateGroups.limit { entries.removeFirst() }
        entries.append((hash, end))
    }

    /// Forgets the group: a push on it has been answered.
    mutating func remove(_ hash: UInt32) {
        entries.removeAll { $0.hash == hash }
    }

    func contains(_ hash: UInt32) -> Bool {
        entries.contains { $0.hash == hash }
    }

    /// Forgets those whose time is up.
    mutating func sweep(at now: MonotonicTime) {
        entries.removeAll { now >= $0.end }
    }

    private static let limit = 64
}
