// What discovery counts. Discovery writes it, `GET /metrics` reads it.

/// How polls for the healthy shards ended: queries to Consul, or probes of single shards.
enum PollResult: String, CaseIterable, Sendable {
    /// Consul named shards; a probe found its shard healthy.
    case success
    /// Consul named no shard; the last ring stays.
    case empty
    /// Consul, or the shard, did not answer in time, could not be reached, or is not healthy.
    case unreachable
    /// Consul answered with an error: no leader, too many requests, no permission to see all.
    case refused
    /// Consul's answer is not what it should be.
    case garbage
}

/// Counts of polls; loop-confined.
final class DiscoveryMetrics {
    private(set) var polls: [PollResult: UInt64] = [:]
    /// Checks that have failed, of shards that there still are.
    private(set) var checkFailures: [ShardAddress: UInt64] = [:]
    /// In seconds since 1970; nil before the first success.
    private(set) var lastSuccess: Double?

    func countCheckFailure(of shard: ShardAddress) {
        checkFailures[shard, default: 0] += 1
    }

    /// Forgets shards that there are no more.
    func keep(_ isThere: (ShardAddress) -> Bool) {
        checkFailures = checkFailures.filter { isThere($0.key) }
    }

    func count(_ result: PollResult) {
        polls[result, default: 0] += 1
        if result == .success { lastSuccess = wallClock() }
    }
}
