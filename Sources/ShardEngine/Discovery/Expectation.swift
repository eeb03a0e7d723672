// Which shards Consul will soon name again, or for the first time. The Consul poller does not follow an answer that
// lacks one of them, for a while: a catalogue that fills up must not shrink the ring and let it grow again.

/// Shards that may be missing from Consul's answers for a limited time.
struct Expectation {
    private var shards: Set<ShardAddress> = []
    private var end: MonotonicTime?

    /// Waits for these shards as well, until `end` at the latest.
    mutating func add(_ shards: some Sequence<ShardAddress>, until end: MonotonicTime) {
        self.shards.formUnion(shards)
        self.end = end
    }

    /// Whether an answer that names these shards is to be followed; if so, nothing is waited for any more.
    mutating func isMet(by named: [ShardAddress], at now: MonotonicTime) -> Bool {
        if let end, now < end, !shards.isSubset(of: named) { return false }
        self = Expectation()
        return true
    }
}
