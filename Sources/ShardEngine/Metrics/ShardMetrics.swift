// What a worker counts of one shard. The shard's pool owns and writes it, `GET /metrics` reads it.

/// Counts of one shard's answers; loop-confined.
final class ShardMetrics {
    /// The shard's answers by status, and shardd's own 502 and 504 where it had none.
    private(set) var answers = StatusCounts()
    /// From the sending of a push to its answer.
    private(set) var responses = Histogram()
    /// Pushes that this shard owned and another one got.
    var failovers: UInt64 = 0
    /// Pushes of which something had been sent on a connection that ended without their answer, and that are sent again.
    var retries: UInt64 = 0
    /// Connections that could not be made.
    var connectErrors: UInt64 = 0
    /// What was received from the shard and sent to it on pushes' connections, in bytes.
    var bytesIn: UInt64 = 0
    var bytesOut: UInt64 = 0
    /// Checks of this worker that failed.
    var checkFailures: UInt64 = 0
    /// When the shard has last taken a push, about.
    private(set) var lastSuccess: MonotonicTime?
    private var successCount: UInt64 = 0

    func countAnswer(_ status: Int, after duration: TimeSpan) {
        answers.count(status)
        responses.observe(duration)
    }

    /// Notes whether the shard has taken a push since this was last called; called every so often, so that a push need not
    /// do it.
    func noteSuccess(at now: MonotonicTime) {
        let count = answers.successCount
        if count != successCount { lastSuccess = now }
        successCount = count
    }

    /// There was no answer; the client got this status.
    func countFailure(_ status: Int) {
        answers.count(status)
    }
}
