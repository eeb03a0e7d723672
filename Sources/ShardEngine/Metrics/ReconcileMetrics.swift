// What reconciling has done so far. The reconciler counts; the server keeps the latest figures for the exposition.

/// How a run ended.
enum RunResult: String, CaseIterable, Sendable {
    /// Each group that could be listed is on its owner alone.
    case success
    /// Something could not be done; the next run tries again.
    case partial
    /// The run could not begin.
    case failed
    /// Another replica was at it, or just had been.
    case skipped
}

/// The figures of all runs of this replica.
struct ReconcileMetrics: Sendable {
    var runs: [RunResult: UInt64] = [:]
    var moved: UInt64 = 0
    var deleted: UInt64 = 0
    /// Groups with several copies that the latest run has left.
    var duplicates = 0
    /// In seconds since 1970.
    var lastSuccess: Double?
    /// How many groups each shard held when the latest run listed it.
    var groups: [ShardAddress: Int] = [:]
    /// Shards in which that run found no mark of their stores.
    var unmarked: Set<ShardAddress> = []
}
