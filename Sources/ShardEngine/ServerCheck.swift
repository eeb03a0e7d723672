// The server's part in the check of pushes: it tells the lookup which shards there are and what of what they hold counts, and tells
// operators which shards do not go together with `pushes.check`.
import Logging

extension Server {
    /// Tells the lookup of the shards, where pushes are checked over all of them, and watches them where this replica may heal them.
    func tellLookup() {
        noteMismatches()
        watchConflicts()
        guard configuration.pushCheck == .full, configuration.mode == .forward else { return lookup.update(nil) }
        let identities = stores.map.identities
        let processes = Set(membership.shards + registered).map { ($0, identities[$0]?.process ?? "") }
        // Groups are on their owners alone where they are moved and nothing is on its way; by paths an owner cannot be told.
        let isSettled = members.movesGroups && tier.following?.view.isSettled == true
        let isAtRest = isSettled && configuration.hash.key == .group
        lookup.update(
            FamilyLookup.Input(
                processes: Dictionary(uniqueKeysWithValues: processes),
                ring: isAtRest ? shown.ring : nil,
                check: configuration.check,
                consul: configuration.consul
            )
        )
    }

    /// The shards that the register has and that take pushes: one that leaves discovery holds groups until they have moved.
    private var registered: [ShardAddress] {
        guard let view = tier.following?.view else { return [] }
        return view.stores.filter { !view.isDown($0.id) }.compactMap { ShardAddress(parsing: $0.address) }
    }

    /// Has shards healed whose scrape fails.
    func hearConflicts() {
        conflicts.onFailure = { [unowned self] in
            emptyInstances.searchAgain($0)
            return tier.heal($0, fault: $1)
        }
        conflicts.onSuccess = { [unowned self] in tier.isHealthy($0) }
    }

    private func watchConflicts() {
        guard configuration.pushCheck == .full, tier.mover != nil, let view = tier.following?.view else {
            tier.heals.find = nil
            return conflicts.update([:], headers: [])
        }
        let known = lookup.known
        tier.heals.find = { groups, fault in
            Conflicts.rewrites(of: groups, own: known.own, fault: ScrapeFault(fault))
        }
        let addresses = Set(view.stores.map(\.address))
        let identities = stores.map.identities.filter { addresses.contains($0.key.text) }
        conflicts.update(identities.mapValues(\.process), headers: configuration.check.headers)
    }

    /// Whether the consistency check of a shard and `pushes.check` do not go together: either the shard or shardd has to check.
    var checkMismatches: [ShardAddress: Bool] {
        stores.checking.mapValues { isChecking in
            switch configuration.pushCheck {
            case .off: false
            case .guard: !isChecking
            case .full: isChecking
            }
        }
    }

    private func noteMismatches() {
        let found = Set(checkMismatches.filter(\.value).keys)
        let flag = "--push.disable-consistency-check"
        let advice =
            configuration.pushCheck == .full
            ? "with pushes.check: full shards run with \(flag): shardd checks"
            : "shards run without \(flag) unless pushes.check is full"
        for shard in found.subtracting(mismatched).sorted() {
            let metadata: Logger.Metadata = ["shard": "\(shard)", "reason": "\(advice)"]
            logger.warning("a shard's consistency check does not go together with pushes.check", metadata: metadata)
        }
        mismatched = found
    }
}
