// The shards off the ring that Prometheus has to know: it must not lose what has yet to move, and is to see that a shard is
// down. The server fills one for each answer, what it knows best of a shard first.

/// Shards off the ring, each store once.
struct OffRingShards {
    private(set) var states: [ShardAddress: ShardState] = [:]
    private var taken: Set<ShardAddress>
    private let stores: StoreMap
    private let isLeftOff: (ShardAddress) -> Bool

    init(ring: Ring, stores: StoreWatch) {
        self.stores = stores.map
        isLeftOff = stores.isLeftOff
        taken = ring.shards.reduce(into: Set(ring.shards)) { $0.formUnion(stores.map.otherAddresses(of: $1)) }
    }

    /// Takes a shard in, unless its store is on the ring or has been taken in under another address.
    mutating func add(_ shard: ShardAddress, _ state: ShardState) {
        guard !isLeftOff(shard), taken.insert(shard).inserted else { return }
        taken.formUnion(stores.otherAddresses(of: shard))
        states[shard] = state
    }
}
