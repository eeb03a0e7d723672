// What is told of the tier: by the metrics, by /api/v1/ring and by the commands.
import MovingCore

extension Tier {
    // MARK: What is told

    /// Shards that others stand in for, with the reason.
    var down: [ShardAddress: String] {
        guard let view = following?.view else { return [:] }
        let pairs = view.down.compactMap { store in
            view.store(store).flatMap { ShardAddress(parsing: $0.address) }
                .map { ($0, causes[store] ?? "another replica has found it to fail") }
        }
        return Dictionary(pairs, uniquingKeysWith: { one, _ in one })
    }

    /// How things stand.
    var status: MovingStatus {
        var status = MovingStatus()
        (status.moved, status.deleted, status.runs) = (counts.moved, counts.deleted, counts.runs)
        if registerFault != nil { status.obstacles.insert(.version) }
        if !hasConsul { status.obstacles.insert(.consul) }
        guard let following else { return status }
        let view = following.view
        if remotePeers.contains(where: { $0.isLive && $0.note.settings != settings }) {
            status.obstacles.insert(.config)
        }
        status.step = view.step
        status.lastSuccess = view.isAtRest ? wallClock() : counts.lastRest
        if let mover {
            counts.keep(mover.stuck)
            for refusal in counts.refusals.values { status.stuck[refusal.reason, default: 0] += 1 }
        }
        for (store, hashes) in listed where !view.isAtRest {
            for hash in hashes {
                let slot = following.rings.slot(of: hash)
                let entry = view.entry(slot)
                if entry.step.backup == store { status.duplicates += 1 }
                if entry.own == store, entry.step.backup == nil, view.target(slot, following.rings) != store {
                    status.moving += 1
                }
            }
        }
        return status
    }
}
