// The ring in force, who is authoritative off it, and the pools of all shards that have a part. The forwarder swaps it as a
// whole; an exchange keeps the one by which it was last sent.
import MovingCore

/// What a replica follows, as its workers get it; immutable.
package struct Placement: Sendable {
    /// The shards of the register's ring by their addresses, for requests while the register is settled.
    var ring: Ring
    /// The same with those that take no connection now, where these are not on it.
    var wholeRing: Ring?
    /// The register, and the rings that it names.
    var register: Register
    var rings: Rings
}

/// What pushes are looked up on; immutable.
final class RoutingTable {
    let ring: Ring
    let epoch: Epoch
    /// The ring with shards that take no connection now, where these are not on `ring`: whose keys others have.
    let wholeRing: Ring?
    /// Whether requests go to their owners on the ring and nowhere else.
    let isSettled: Bool
    /// The pools of the ring's shards, in their order, and after them those of other stores in the register. A store may be
    /// reached at another address than that by which the ring has it.
    let pools: [ShardPool]
    /// For each pool its store.
    private let stores: [StoreID]
    private let places: [StoreID: Int]

    /// - Parameters:
    ///   - ring: of the register's ring in force.
    ///   - pool: the pool of a shard.
    init(_ register: Register, _ ring: Ring, wholeRing: Ring?, pool: (ShardAddress) -> ShardPool) {
        (self.ring, self.wholeRing) = (ring, wholeRing)
        epoch = register.epoch
        isSettled = register.isSettled
        let known = Dictionary(
            register.ring.members.map { ($0.address, $0.store) },
            uniquingKeysWith: { one, _ in one }
        )
        var stores = ring.shards.map { known[$0.text] ?? StoreID(0) }
        var shards = zip(ring.shards, stores).map { shard, store in
            register.store(store).flatMap { ShardAddress(parsing: $0.address) } ?? shard
        }
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
        (ring, wholeRing) = (Ring(shards: [], vnodes: 1), nil)
        (epoch, isSettled) = (0, true)
        (pools, stores, places) = ([], [], [:])
    }

    /// The store behind a pool, given as an index into `pools`.
    func store(_ place: Int) -> StoreID { stores[place] }

    /// The pool of a store, as an index into `pools`; nil where the register does not name the store.
    func place(of store: StoreID) -> Int? { places[store] }
}
