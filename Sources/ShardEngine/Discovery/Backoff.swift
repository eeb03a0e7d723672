// How long to wait before another try at something that fails. Polls and registrations wait by it.

/// Waits that double from try to try, up to a limit, each shortened at random so that replicas do not march in step.
struct Backoff {
    let first: TimeSpan
    let limit: TimeSpan
    /// How many failures there have been since the last success.
    private(set) var failureCount = 0

    init(first: TimeSpan, limit: TimeSpan) {
        self.first = first
        self.limit = limit
    }

    /// Starts again with the first wait.
    mutating func reset() {
        failureCount = 0
    }

    /// The wait after one more failure: between half of the full wait and all of it.
    mutating func next() -> TimeSpan {
        let full = min(limit.nanoseconds, first.nanoseconds << UInt64(min(failureCount, 20)))
        failureCount += 1
        return TimeSpan(nanoseconds: UInt64.random(in: (full / 2)...max(full / 2, full)))
    }
}
