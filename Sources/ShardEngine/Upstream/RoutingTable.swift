// The rings and the pools of their shards. The forwarder swaps it as a whole; an exchange keeps the one it started with.

/// What pushes are looked up on; immutable.
final class RoutingTable {
    let ring: Ring
    /// The pools of the ring's shards, in their order, and after them those of shards on other rings only.
    let pools: [ShardPool]
    private let others: [(other: OtherRing, pools: [Int?])]
    private let isReconcileDue: Bool
    /// Whether requests go to their owners and nowhere else.
    let isSettled: Bool

    /// - Parameter pool: the pool of a shard.
    init(_ rings: RingSet, pool: (ShardAddress) -> ShardPool) {
        ring = rings.ring
        isReconcileDue = rings.isReconcileDue
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

    /// What a request has to do before its owner gets it: at which shards, as indices into `pools`, and whether as a
    /// removal or as itself.
    func visits(of method: Method, hash: UInt32, to target: Int) -> [(shard: Int, isRemoval: Bool)] {
        var visits: [(shard: Int, isRemoval: Bool)] = []
        func add(_ shard: Int, isRemoval: Bool) {
            guard shard != target, !visits.contains(where: { $0.shard == shard }) else { return }
            visits.append((shard, isRemoval))
        }
        for (other, places) in others {
            guard let shard = places[other.ring.owner(of: hash)] else { continue }
            switch other.visit {
            case .copy: add(shard, isRemoval: false)
            case .sweep: add(shard, isRemoval: true)
            case .removal: if method != .post { add(shard, isRemoval: true) }
            }
        }
        if isReconcileDue, method == .delete {
            for shard in pools.indices { add(shard, isRemoval: true) }
        }
        return visits
    }
}
