// Who the shards are: what discovery names, and which store is behind each address. The server fills it in whenever either
// changes; the tier makes rings of it, and calls stores by it.
import MovingCore

/// The shards as they are known at this moment; confined to the tier's loop.
final class TierMembers {
    /// Points of each shard.
    var vnodes: Int
    /// How long other shards have to have been named before groups are moved to them.
    var settle: TimeSpan
    /// Whether groups are moved. If not, a ring takes the place of another at once, and stores go by their addresses.
    let movesGroups: Bool
    /// Healthy shards, each store once, in ascending order.
    var healthy: [ShardAddress] = []
    /// Shards that are named and fail their checks, with the reason.
    var failing: [ShardAddress: String] = [:]
    /// Shards that an operator has emptied: their groups are moved at once.
    var draining: Set<ShardAddress> = []
    /// Those of them that have yet to leave discovery: their copies stay until they have.
    var stillNamed: Set<ShardAddress> = []
    /// Which store is behind each address.
    var identities = StoreMap()

    init(vnodes: Int, settle: TimeSpan, movesGroups: Bool) {
        (self.vnodes, self.settle, self.movesGroups) = (vnodes, settle, movesGroups)
    }

    /// The store behind an address, and its process; nil while that is not known.
    func store(at address: ShardAddress) -> Store? {
        guard movesGroups else { return Store(id: StoreID(byAddress: address), address: address.text, start: 0) }
        guard let identity = identities.identity(of: address), let id = identity.id, let start = identity.start else {
            return nil
        }
        return Store(id: id, address: address.text, start: start)
    }

    /// Where a store is: at the address that the register has, unless another store has taken that over.
    func address(of store: StoreID, _ view: Register?) -> ShardAddress? {
        let registered = view?.store(store).flatMap { ShardAddress(parsing: $0.address) }
        guard movesGroups else { return registered }
        let known = identities.identities.keys.filter { identities.identity(of: $0)?.id == store }.sorted()
        if let registered, known.isEmpty || known.contains(registered) {
            return identities.identity(of: registered)?.id ?? store == store ? registered : nil
        }
        return known.first
    }

    /// The stores that the ring is to have: the healthy, and those of the present ring that are named still and fail for now, or
    /// what has taken their place.
    /// An address of which it is not known who is behind it is not among them yet.
    func sightings(_ view: Register?) -> [Store] {
        var ids: Set<StoreID> = []
        // Of two Pushgateways with one mark, as a copied file has it, the first is used.
        var found = healthy.compactMap { store(at: $0) }.filter { ids.insert($0.id).inserted }
        guard movesGroups else { return found.sorted { $0.address < $1.address } }
        for member in (view?.next ?? view?.ring)?.members ?? [] {
            guard let address = ShardAddress(parsing: member.address), failing[address] != nil,
                let store = store(at: address) ?? view?.store(member.store), ids.insert(store.id).inserted
            else { continue }
            found.append(store)
        }
        return found.sorted { $0.address < $1.address }
    }

    /// Those of the stores whose content counts, as no register has known them.
    func unmarked(_ sightings: [Store], _ view: Register) -> Set<StoreID> {
        let unknown = sightings.filter { view.store($0.id) == nil }
        return Set(unknown.map(\.id)).filter { id in
            !identities.identities.values.contains { $0.id == id && $0.tiers.contains(view.birthName) }
        }
    }

    /// How long a ring has to have been wanted before groups are moved by it.
    func settle(_ wanted: RingMembers, _ view: Register) -> TimeSpan {
        let leaving = Set(view.ring.members).subtracting(wanted.members)
        // At the same addresses there are other stores, which have answered for long enough.
        let addresses = view.ring.members.map(\.address)
        if wanted.vnodes == view.ring.vnodes, wanted.members.map(\.address) == addresses {
            return TierMembers.leastSettle
        }
        let isDrain = wanted.vnodes == view.ring.vnodes && Set(wanted.members).isSubset(of: view.ring.members)
        let isWanted = isDrain && leaving.allSatisfy { member in draining.contains { $0.text == member.address } }
        return isWanted ? .zero : max(settle, TierMembers.leastSettle)
    }

    /// What a store's sockets hold, from before it was on the ring, is done by then.
    private static let leastSettle = TimeSpan.seconds(1)

    func firstRegister(_ sightings: [Store]) -> Register {
        movesGroups ? newRegister(sightings) : Register(resting: sightings, vnodes: vnodes, epoch: 1)
    }

    /// Its numbers are greater than those of any mark that an older register has left: they begin with the time of day.
    private func newRegister(_ sightings: [Store]) -> Register {
        Register(stores: sightings, vnodes: vnodes, oldMarks: Epoch(wallClock() * 1000))
    }

    /// Stores that have been taken in, and have yet to be marked as members.
    func unmarkedMembers(_ view: Register) -> [(address: ShardAddress, identity: StoreIdentity)] {
        guard movesGroups else { return [] }
        return view.stores.compactMap { store in
            guard !view.isDown(store.id), !view.isAdopting(store.id), let address = address(of: store.id, view),
                let identity = identities.identity(of: address), !identity.tiers.contains(view.birthName),
                identity.id == store.id, identity.isMarkRead
            else { return nil }
            return (address, identity)
        }
    }

    /// Stores that have lost all that they held: where one was, a store answers that has no mark of any tier.
    func lost(_ view: Register) -> [StoreID] {
        guard movesGroups else { return [] }
        return view.down.filter { store in
            guard let known = view.store(store), let address = ShardAddress(parsing: known.address),
                let identity = identities.identity(of: address), let id = identity.id
            else { return false }
            return id != store && identity.tiers.isEmpty && view.store(id) == nil
                && self.address(of: store, view) == nil
        }
    }

    /// Stores that are found at other addresses than the register has, with these.
    func moved(_ view: Register) -> [StoreID: String] {
        let pairs = view.stores.compactMap { store in
            address(of: store.id, view).map { (store.id, $0.text) }.flatMap { $0.1 == store.address ? nil : $0 }
        }
        return Dictionary(pairs, uniquingKeysWith: { one, _ in one })
    }

    /// Stores with a part that cannot be used: they fail their checks, or their address leads to another store.
    func failed(_ view: Register) -> [(StoreID, String)] {
        view.stores.filter { !view.isDown($0.id) }.compactMap { store in
            guard let address = address(of: store.id, view) else {
                return (store.id, "its address leads to another store")
            }
            return failing[address].map { (store.id, $0) }
        }
    }

    /// Whether discovery has nothing against a store that has failed.
    func isFit(_ store: StoreID, _ view: Register) -> Bool {
        address(of: store, view).map { failing[$0] == nil } ?? false
    }

    /// Whether this process is behind the address and has this store, as it was told by its mark.
    func has(_ address: ShardAddress, _ store: StoreID, _ start: StartTime) -> Bool {
        guard let identity = identities.identity(of: address) else { return false }
        return identity.isMarkRead && identity.id == store && identity.start == start
    }

    /// Which processes stores in use were last seen to have.
    func processes(_ view: Register) -> [(StoreID, StartTime)] {
        guard movesGroups else { return [] }
        return view.stores.filter { !view.isDown($0.id) }.compactMap { store in
            guard let address = address(of: store.id, view), let identity = identities.identity(of: address),
                identity.id == store.id, identity.isMarkRead, let start = identity.start
            else { return nil }
            return (store.id, start)
        }
    }
}

extension Register {
    /// How marks of members name it.
    var birthName: String { String(birth) }
}

extension StoreIdentity {
    /// The store's mark as a number.
    var id: StoreID? { mark.flatMap { UInt64($0, radix: 16) }.map { StoreID($0) } }

    /// The process's start, in nanoseconds since 1970.
    var start: StartTime? { nanoseconds(rfc3339: process).map { StartTime(bitPattern: $0) } }
}

extension StoreID {
    /// What a store goes by where nothing is moved.
    init(byAddress address: ShardAddress) {
        var digest: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in address.text.utf8 { digest = (digest ^ UInt64(byte)) &* 0x100_0000_01B3 }
        self.init(digest)
    }
}
