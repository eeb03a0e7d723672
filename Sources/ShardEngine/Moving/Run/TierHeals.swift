// How the tier heals a shard whose scrape fails for what its groups hold: it lists the shard, and has the mover rewrite the groups
// concerned inside a fence, where the mover lists them again. The server tells it which shards fail, and how rewritings are found.
import Logging
import MovingCore

/// What has been healed, of this process.
struct TierHeals {
    /// Finds how the groups of a store have to be rewritten; nil where that is not for shardd to do.
    var find: (@Sendable ([ListedGroup], _ fault: String) -> [GroupRewrite])?
    /// What stores have answered to scrapes.
    var faults: [StoreID: String] = [:]
    /// Stores that are being listed to see what there is to heal.
    var looking: Set<StoreID> = []
    /// What was left of families that had to be set aside: nil where nothing was.
    var setAside: [SetAside: [UInt8]?] = [:]
    /// Shards of which the log has been told that they cannot be healed.
    var hopeless: Set<ShardAddress> = []

    /// A family of a group.
    struct SetAside: Hashable {
        var store: StoreID
        var key: GroupKey
        var name: String
    }

    /// Forgets what a store's groups have again, or have lost since.
    mutating func keep(_ listing: Listing, of store: StoreID) {
        setAside = setAside.filter { place, left in
            guard place.store == store else { return true }
            guard let group = listing.groups[place.key] else { return false }
            return group.families.first { $0.name == place.name }?.content == left
        }
    }
}

extension Tier {
    /// Families whose series, or some of them, are not there any more, as they did not go with others of their shards.
    var familiesSetAside: Int { heals.setAside.count }

    /// The scrape of a shard fails: looks whether that is for what its groups hold, and has it healed.
    ///
    /// - Parameter fault: what it answers to a scrape.
    /// - Returns: whether that has begun now.
    func heal(_ address: ShardAddress, fault: String) -> Bool {
        guard let view = following?.view, let store = members.store(at: address)?.id, view.store(store) != nil,
            mover?.isHealing(store) == false, !heals.looking.contains(store)
        else { return false }
        heals.faults[store] = fault
        guard let look = look(at: store) else { return false }
        heals.looking.insert(store)
        let term = moverTerm
        stores.list(address, toHeal: look) { [unowned self] listing, reason in
            heals.looking.remove(store)
            guard mover != nil, term == moverTerm else { return }
            guard let listing else { return noteHopeless(address, reason ?? "") }
            let obstacles = stores.rewrites[address]?.obstacles ?? [:]
            if let (group, reason) = obstacles.min(by: { $0.key < $1.key }) {
                noteHopeless(address, "group \(group.shown) cannot be rewritten: \(reason)")
            } else if listing.remedies.isEmpty {
                noteHopeless(address, "what it lists tells no reason")
            }
            mover?.ailing[store] = Set(listing.remedies.map(\.key.hash))
            tell(.tick)
        }
        return true
    }

    /// The scrape of a shard succeeds.
    func isHealthy(_ address: ShardAddress) { heals.hopeless.remove(address) }

    private func noteHopeless(_ address: ShardAddress, _ reason: String) {
        guard heals.hopeless.insert(address).inserted else { return }
        let metadata: Logger.Metadata = ["shard": "\(address)", "reason": "\(reason)"]
        logger.warning("the scrape of a shard fails, and it cannot be healed", metadata: metadata)
    }

    /// How a store is listed to be healed; nil where that is not for shardd to do.
    func look(at store: StoreID) -> HealingLook? {
        guard let find = heals.find, let following else { return nil }
        let (view, rings) = (following.view, following.rings)
        return HealingLook(
            counts: { hash in
                let entry = view.entry(rings.slot(of: hash))
                return entry.own == store || entry.predecessors.contains { $0.store == store }
            },
            fault: heals.faults[store] ?? "",
            find: find,
            kept: Set(heals.setAside.keys.filter { $0.store == store }.map(\.key))
        )
    }

    /// Rewrites a group for the mover, and tells of it.
    func rewrite(_ send: Send, _ done: @escaping (PushResult) -> Void) {
        guard let address = members.address(of: send.store, following?.view) else {
            return loop.park { done(.refused) }
        }
        stores.push(send, at: address) { [unowned self] result, reason in
            if let key = send.what.key {
                if result == .done {
                    for change in stores.rewrites[address]?.changes[key] ?? [] { note(change, key, send, address) }
                } else {
                    let metadata: Logger.Metadata = [
                        "group": "\(key.shown)", "shard": "\(address)", "reason": "\(reason ?? "")",
                    ]
                    logger.warning("a group that fails the scrape of its shard cannot be rewritten", metadata: metadata)
                }
            }
            done(result)
        }
    }

    private func note(_ change: FamilyChange, _ key: GroupKey, _ send: Send, _ address: ShardAddress) {
        let metadata: Logger.Metadata = [
            "shard": "\(address)", "group": "\(key.shown)", "family": "\(change.name)", "reason": "\(change.reason)",
        ]
        switch change.what {
        case .retyped(let kind):
            logger.warning(
                "a family failed the scrape of its shard: it has got another type",
                metadata: metadata.merging(["type": "\(kind.word)"]) { $1 }
            )
        case .flattened:
            logger.warning(
                "a family failed the scrape of its shard: it has become single series without a type",
                metadata: metadata
            )
        case .writtenAgain:
            logger.warning("a family failed the scrape of its shard: it is written again", metadata: metadata)
        case .setAside:
            logger.warning("a family failed the scrape of its shard: it is set aside", metadata: metadata)
            let left = send.what.families.first { $0.name == change.name }?.content
            heals.setAside[TierHeals.SetAside(store: send.store, key: key, name: change.name)] = .some(left)
        }
    }
}

extension Send.What {
    fileprivate var key: GroupKey? {
        switch self {
        case .put(let key, _), .post(let key, _), .delete(let key): key
        case .mark: nil
        }
    }

    fileprivate var families: [Family] {
        switch self {
        case .put(_, let families), .post(_, let families): families
        case .delete, .mark: []
        }
    }
}
