// How one ring differs from the one before, and the log entries that tell of it. The server makes one for each ring that comes
// into force.
import Logging

/// The step from one ring to the next.
struct RingChange {
    let joined: [ShardAddress]
    let left: [ShardAddress]
    private let shardCount: Int

    init(from old: Ring, to new: Ring) {
        let (before, after) = (Set(old.shards), Set(new.shards))
        joined = new.shards.filter { !before.contains($0) }
        left = old.shards.filter { !after.contains($0) }
        shardCount = new.shards.count
    }

    /// Logs the change, and for each shard that has left why it has.
    func log(generation: Int, reasons: [ShardAddress: String], by logger: Logger) {
        for shard in left {
            let reason = reasons[shard] ?? "it is not among the shards any more"
            logger.info("shard has left the ring", metadata: ["shard": "\(shard)", "reason": "\(reason)"])
        }
        var metadata: Logger.Metadata = ["generation": "\(generation)", "shards": "\(shardCount)"]
        if !joined.isEmpty { metadata["joined"] = "\(joined.listed)" }
        if !left.isEmpty { metadata["left"] = "\(left.listed)" }
        logger.info("ring changed", metadata: metadata)
    }
}

extension Sequence<ShardAddress> {
    /// The addresses with commas between, as a log entry has them.
    var listed: String { map(\.text).joined(separator: ",") }
}
