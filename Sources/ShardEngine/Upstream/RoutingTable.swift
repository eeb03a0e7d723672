// The ring in force, who is authoritative off it, and the pools of all shards that have a part. The forwarder swaps it as a
// whole; an exchange keeps the one by which it was last sent.
import MovingCore

/// What a replica follows, as its workers get it; immutable.
package struct Placement: Sendable {
    /// The shards of the register's ring by their addresses, for requests while the register is settled.
    var ring: Ring
    /// The register, and the rings that it names.
    var register: Register
    var rings: Rings
}

/// What pushes are looked up on; immutable.
final class RoutingTable {
    let ring: Ring
    let epoch: Epoch
    /// Whether requests go to their owners on the ring and nowhere else.
    let isSettled: Bool
    /// The pools of the ring's shards, in their order, and after them those of other stores in the register.
    let pools: [ShardPool]
    /// For each pool its store.
    private let stores: [StoreID]
    private let places: [StoreID: Int]

    /// - Parameters:
    ///   - ring: of the register's ring in force.
    ///   - pool: the pool of a shard.
    init(_ register: Register, _ ring: Ring, pool: (ShardAddress) -> ShardPool) {
        self.ring = ring
        epoch = register.epoch
        isSettled = register.isSettled
        var shards = ring.shards
        let known = Dictionary(
            register.ring.members.map { ($0.address, $0.store) },
            uniquingKeysWith: { one, _ in one }
        )
        var stores = shards.map { known[$0.text] ?? StoreID(0) }
        let members = Set(stores)
        for store in register.stores where !members.contains(store.id) {
            guard let address = ShardAddress(parsing: store.address) else { continue }
            shards.append(address)
            stores.append(store.id)
        }
        pools = shards.map(pool)
        self.stores = stores
        places = Dictionary(zip(stores, stores.indices), uniquingKeysWith: { first, _ in first })
    }

    /// No shard.
    init() {
        ring = Ring(shards: [], vnodes: 1)
        (epoch, isSettled) = (0, true)
        (pools, stores, places) = ([], [], [:])
    }

    /// The store behind a pool, given as an index into `pools`.
    func store(_ place: Int) -> StoreID { stores[place] }

    /// The pool of a store, as an index into `pools`; nil where the register does not name the store.
    func place(of store: StoreID) -> Int? { places[store] }
}
