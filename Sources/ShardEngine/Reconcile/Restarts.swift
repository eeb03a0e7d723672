// Which shards have come back a moment ago. What such a shard holds may be void: replicas are still telling it what it has
// missed (Hints), and until they have, nothing is moved from it or to it. The run protocol keeps one from run to run.

/// What is known of the shards' processes; confined to one thread.
struct Restarts {
    private struct Process {
        var startTime: String?
        var cameBackAt: MonotonicTime?
    }

    private var known: [ShardAddress: Process] = [:]

    /// Takes in a look at a shard.
    ///
    /// - Parameters:
    ///   - startTime: when its process was started, as it tells; nil when it does not answer.
    ///   - wasAway: whether it was a short time ago, as when the last run ended, perhaps another replica's.
    /// - Returns: whether it may be taken at its word: it has not come back within the last `grace`.
    mutating func isTrusted(_ shard: ShardAddress, startTime: String?, wasAway: Bool, grace: TimeSpan) -> Bool {
        guard var process = known[shard] else {
            let hasComeBack = wasAway && startTime != nil
            known[shard] = Process(startTime: startTime, cameBackAt: hasComeBack ? .now() : nil)
            return startTime != nil && !wasAway
        }
        if startTime != process.startTime { process.cameBackAt = startTime == nil ? nil : .now() }
        process.startTime = startTime
        known[shard] = process
        guard startTime != nil else { return false }
        return process.cameBackAt.map { MonotonicTime.now().since($0) >= grace } ?? true
    }
}
