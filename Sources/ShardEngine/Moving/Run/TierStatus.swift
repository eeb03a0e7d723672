// What is told of the tier: by the metrics, by /api/v1/ring and by the commands.
import MovingCore

extension Tier {
    // MARK: What is told

    /// Shards that others stand in for, with the reason.
    var down: [ShardAddress: String] {
        guard let view = following?.view else { return [:] }
        if !members.movesGroups {
            let pairs = refused.values.compactMap { known in
                ShardAddress(parsing: known.store.address).map { ($0, known.cause) }
            }
            return Dictionary(pairs, uniquingKeysWith: { one, _ in one })
        }
        let inUse = Set(view.stores.filter { !view.isDown($0.id) }.map(\.address))
        let pairs = view.down.compactMap { store in
            view.store(store).flatMap { inUse.contains($0.address) ? nil : ShardAddress(parsing: $0.address) }
                .map { ($0, causes[store] ?? "another replica has found it to fail") }
        }
        return Dictionary(pairs, uniquingKeysWith: { one, _ in one })
    }

    /// Groups that cannot be moved by the replica that moves, with the reasons.
    var stuck: [String] {
        Set(remotePeers.flatMap(\.note.stuck) + (mover == nil ? [] : counts.stuck)).sorted()
    }

    /// How things stand.
    var status: MovingStatus {
        var status = MovingStatus()
        (status.moved, status.deleted, status.runs) = (counts.moved, counts.deleted, counts.runs)
        status.obstacles = obstacles
        guard let following else { return status }
        let view = following.view
        status.step = view.step
        status.lastSuccess = view.isAtRest ? wallClock() : counts.lastRest
        if mover != nil {
            for refusal in counts.refusals.values { status.stuck[refusal.kind, default: 0] += 1 }
        }
        for (store, hashes) in listed where !view.isAtRest {
            for hash in hashes {
                let slot = following.rings.slot(of: hash)
                let entry = view.entry(slot)
                guard let target = view.target(slot, following.rings), target != store else { continue }
                if entry.step.backup == store {
                    status.duplicates += 1
                } else {
                    status.moving += 1
                    if listed[target]?.contains(hash) == true { status.duplicates += 1 }
                }
            }
        }
        return status
    }

    /// Why nothing may move.
    private var obstacles: Set<MovingObstacle> {
        var found: Set<MovingObstacle> = []
        if !hasConsul { found.insert(.consul) }
        if registerFault != nil || hasOldReplicas { found.insert(.version) }
        for peer in remotePeers where peer.isLive && peer.note.settings != settings {
            found.insert(peer.note.settings >> 32 == settings >> 32 ? .config : .version)
        }
        return found
    }

    /// Says in the log when other replicas begin to keep groups where they are, and when they cease to.
    func logObstacles() {
        let found = obstacles.intersection([.version, .config])
        defer { loggedObstacles = found }
        for obstacle in found.subtracting(loggedObstacles).sorted(by: { $0.rawValue < $1.rawValue }) {
            let others = remotePeers.filter { $0.isLive && $0.note.settings != settings }
            let replicas = (hasOldReplicas ? ["of version 0.1"] : []) + others.map { TierKeys.name(of: $0.id) }
            logger.warning(
                "groups are not moved while replicas differ",
                metadata: ["reason": "\(obstacle.rawValue)", "replicas": "\(replicas.joined(separator: ","))"]
            )
        }
        if found.isEmpty, !loggedObstacles.isEmpty { logger.info("replicas are alike: groups are moved again") }
    }
}

extension Peer {
    /// Stands for replicas of version 0.1: nobody waits for them, as they follow nothing, and nothing is moved.
    static let ofVersion01 = Peer(id: 0, isLive: true, note: Note(epoch: .max, settings: .max))
}
