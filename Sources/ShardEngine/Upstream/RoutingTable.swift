// The rings and the pools of their shards. The forwarder swaps it as a whole; an exchange keeps the one it started with.

/// What pushes are looked up on; immutable.
final class RoutingTable {
    let ring: Ring
    /// The pools of the ring's shards, in their order, and after them those of shards on other rings only.
    let pools: [ShardPool]
    private let others: [(other: OtherRing, pools: [Int?])]
    private let isReconcileDue: Bool
    private let stores: StoreMap
    /// Whether requests go to their owners and nowhere else.
    let isSettled: Bool

    /// - Parameter pool: the pool of a shard.
    init(_ rings: RingSet, pool: (ShardAddress) -> ShardPool) {
        ring = rings.ring
        isReconcileDue = rings.isReconcileDue
        stores = rings.stores
        var shards = ring.shards
        var indices = Dictionary(uniqueKeysWithValues: shards.enumerated().map { ($1, $0) })
        others = rings.others.filter { !$0.ring.isEmpty }.map { other in
            let places: [Int?] = other.ring.shards.map { shard in
                guard other.shards?.contains(shard) != false else { return nil }
                if let index = indices[shard] { return index }
                shards.append(shard)
                indices[shard] = shards.count - 1
                return shards.count - 1
            }
            return (other, places)
        }
        isSettled = others.isEmpty && !isReconcileDue
        pools = shards.map(pool)
    }

    /// What a request does at shards other than the one that gets it, given as indices into `pools`: the visits that come
    /// first, and the shards whose copies are void afterwards.
    func visits(of method: Method, hash: UInt32, to target: Int) -> Visits {
        var visits = Visits()
        // A store may be an owner by several rings, and under several addresses: it is visited once, and what must stay whole
        // comes before what may go.
        func isVisited(_ shard: Int) -> Bool {
            visits.first.contains { isSameStore($0.shard, shard) } || visits.voided.contains { isSameStore($0, shard) }
        }
        forEachOwner(of: hash, visits: .copy, but: target) { shard in
            if !isVisited(shard) { visits.first.append((shard, isRemoval: false)) }
        }
        forEachOwner(of: hash, visits: .sweep, but: target) { shard in
            guard !isVisited(shard), mayRemove(at: shard, by: method, besides: target) else { return }
            visits.first.append((shard, isRemoval: true))
        }
        forEachOwner(of: hash, visits: .removal, but: target) { shard in
            if !isVisited(shard) { visits.voided.append(shard) }
        }
        if isReconcileDue, method == .delete {
            for shard in pools.indices where !isSameStore(shard, target) && !isVisited(shard) {
                visits.voided.append(shard)
            }
        }
        return visits
    }

    private func forEachOwner(of hash: UInt32, visits: Visit, but target: Int, _ body: (Int) -> Void) {
        for (other, places) in others where other.visit(of: hash) == visits {
            if let shard = places[other.ring.owner(of: hash)], !isSameStore(shard, target) { body(shard) }
        }
    }

    private func isSameStore(_ one: Int, _ other: Int) -> Bool {
        one == other || stores.areSame(pools[one].shard, pools[other].shard)
    }

    /// Whether a request that another shard gets may remove the group from this one: a client's DELETE may go anywhere; a
    /// DELETE that shardd makes of a PUT or POST may only go to another store than the one that has the push.
    func mayRemove(at shard: Int, by method: Method, besides target: Int) -> Bool {
        if method == .delete { return !isSameStore(shard, target) }
        return stores.areDistinct(pools[shard].shard, pools[target].shard)
    }

    /// Of these shards, those that are not known to be the store of another one.
    func otherStores(_ shards: [Int], than target: Int) -> [Int] {
        shards.filter { !isSameStore($0, target) }
    }
}

/// What a request does beside what it does at its owner.
struct Visits {
    var first: [(shard: Int, isRemoval: Bool)] = []
    var voided: [Int] = []
}
