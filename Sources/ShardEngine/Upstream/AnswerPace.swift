// How fast a shard answers, and so from when on an answer is late, and whether it is the push's fault or the shard's.
// A pool owns one: it tells it of every answer, and asks it at every sweep. See docs/adr/0013-late-heads.md.

/// What the answers of one shard tell of those that are still to come.
struct AnswerPace {
    /// The longest that a push at the head of a pipeline has lately waited for its answer.
    private(set) var slowest = TimeSpan.zero
    /// When, of the pushes that have been answered, the latest was sent; and what that was at the last sweep.
    private var lastSent = MonotonicTime(nanoseconds: 0)
    private var lastSentAtSweep = MonotonicTime(nanoseconds: 0)
    private var slowestAtSweep = TimeSpan.zero

    /// A push has been answered.
    ///
    /// - Parameter wait: since it was sent, or since those before it had been answered.
    @inline(__always)
    mutating func answered(sentAt: MonotonicTime, after wait: TimeSpan) {
        // One slow answer counts for less with each one after it: for a third after sixteen.
        slowest.nanoseconds = max(wait.nanoseconds, slowest.nanoseconds - slowest.nanoseconds >> 4)
        if sentAt > lastSent { lastSent = sentAt }
    }

    /// Called every so often.
    mutating func sweep() {
        lastSentAtSweep = lastSent
        slowestAtSweep = slowest
    }

    /// The answers since the last sweep have waited for this process, not for the shard.
    mutating func resume() {
        slowest = slowestAtSweep
    }

    /// Whether a push that was sent after `time` has an answer, since the last sweep at the latest: then the shard is not at
    /// rest as a whole, and what has waited since `time` has something of its own to wait for.
    func hasOvertaken(_ time: MonotonicTime) -> Bool {
        time < lastSentAtSweep
    }

    /// How long a push at the head of a pipeline waits until its answer is late.
    ///
    /// - Parameter isOvertaken: a push that was sent later has been answered.
    func lateTime(_ responseTimeout: TimeSpan, isOvertaken: Bool) -> TimeSpan {
        let most = responseTimeout.nanoseconds / 4
        let least = isOvertaken ? 50_000_000 : max(100_000_000, most / 8)
        return TimeSpan(nanoseconds: min(max(8 &* slowest.nanoseconds, least), most))
    }

    /// Whether so many pushes on one connection would all be answered well before their time is up.
    @inline(__always)
    func hasTime(for count: Int, _ responseTimeout: TimeSpan) -> Bool {
        UInt64(count) &* slowest.nanoseconds < responseTimeout.nanoseconds / 4
    }
}
