// Whether pushes are welcome, and whether a shard takes them: by the shards' checks, and by the answers that pushes get. The
// admin handler and the exposition make one of what the server and its workers tell.

/// The server's and its shards' health at one moment.
struct Readiness {
    private let status: ServerStatus
    private let snapshot: WorkerSnapshot
    private let now = MonotonicTime.now()

    init(_ status: ServerStatus, _ snapshot: WorkerSnapshot) {
        self.status = status
        self.snapshot = snapshot
    }

    /// What is wrong with a shard: it cannot be reached, or fails its checks and has taken no push of late; nil when it is up.
    func fault(of shard: ShardAddress) -> String? {
        let seen = snapshot.shards[shard]
        if let cause = status.down[shard] { return cause }
        if let fault = seen?.fault { return fault }
        guard let fault = status.faults[shard] else { return nil }
        // A check may be refused where pushes are taken, as by a shard that asks for credentials.
        if let time = seen?.lastSuccess, now.since(time) < status.checkInterval { return nil }
        return fault
    }

    /// Why no push should be sent here; nil when pushes are welcome.
    var problem: String? {
        if status.isDraining { return "shardd is shutting down" }
        guard !status.ring.isEmpty else { return "no shard is healthy" }
        guard status.mayDecide else { return "the shards have not been listed yet, which pushes.check: full asks for" }
        var shards: [String: [ShardAddress]] = [:]
        for shard in status.ring.shards {
            guard let fault = fault(of: shard) else { return nil }
            shards[fault, default: []].append(shard)
        }
        let causes = shards.sorted { $0.value[0] < $1.value[0] }.map { cause, shards in
            let more = shards.count - Readiness.mostToName
            return shards.prefix(Readiness.mostToName).listed + (more > 0 ? " and \(more) more" : "") + ": \(cause)"
        }
        return "every shard on the ring fails its checks: \(causes.joined(separator: "; "))"
    }

    /// Of the shards with one cause.
    private static let mostToName = 5
}
