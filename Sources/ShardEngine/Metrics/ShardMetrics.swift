// What a worker counts of one shard. The shard's pool owns and writes it, `GET /metrics` reads it.

/// Counts of one shard's answers; loop-confined.
final class ShardMetrics {
    /// The shard's answers by status, and shardd's own 502 and 504 where it had none.
    private(set) var answers = StatusCounts()
    /// From the sending of a push to its answer.
    private(set) var responses = Histogram()
    /// Pushes that this shard owned and another one got.
    var failovers: UInt64 = 0

    func countAnswer(_ status: Int, after duration: TimeSpan) {
        answers.count(status)
        responses.observe(duration)
    }

    /// There was no answer; the client got this status.
    func countFailure(_ status: Int) {
        answers.count(status)
    }
}
