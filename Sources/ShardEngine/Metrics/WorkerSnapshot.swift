// What the workers have counted, copied so that it can be added up and read apart from them.

/// The figures of one worker, or the sum of several.
struct WorkerSnapshot {
    /// The figures of one shard.
    struct Shard {
        var answers = StatusCounts()
        var responses = Histogram()
        var failovers: UInt64 = 0
        var inFlight = 0
        var connections = 0
        /// Why the shard cannot be reached, as far as this worker has seen; nil when it can.
        var fault: String?
        /// Pushes that wait for a connection.
        var queue = 0
        var retries: UInt64 = 0
        var connectErrors: UInt64 = 0
        var bytesIn: UInt64 = 0
        var bytesOut: UInt64 = 0
        var checkFailures: UInt64 = 0
        /// When the shard has last taken a push, about.
        var lastSuccess: MonotonicTime?

        mutating func add(_ other: Shard) {
            answers.add(other.answers)
            responses.add(other.responses)
            failovers += other.failovers
            inFlight += other.inFlight
            connections += other.connections
            fault = fault ?? other.fault
            queue += other.queue
            retries += other.retries
            connectErrors += other.connectErrors
            bytesIn += other.bytesIn
            bytesOut += other.bytesOut
            checkFailures += other.checkFailures
            if let time = other.lastSuccess { lastSuccess = max(lastSuccess ?? time, time) }
        }
    }

    /// By method, in the order of `Method`.
    var answers = [StatusCounts](repeating: StatusCounts(), count: Method.allCases.count)
    var durations = Histogram()
    var handoverWaits = Histogram()
    var rejections: [RejectionReason: UInt64] = [:]
    var refusals: [RefusalReason: UInt64] = [:]
    var inFlight = 0
    var connections = 0
    var shards: [ShardAddress: Shard] = [:]

    mutating func add(_ other: WorkerSnapshot) {
        for index in answers.indices { answers[index].add(other.answers[index]) }
        durations.add(other.durations)
        handoverWaits.add(other.handoverWaits)
        rejections.merge(other.rejections, uniquingKeysWith: +)
        refusals.merge(other.refusals, uniquingKeysWith: +)
        inFlight += other.inFlight
        connections += other.connections
        for (address, shard) in other.shards { shards[address, default: Shard()].add(shard) }
    }
}
