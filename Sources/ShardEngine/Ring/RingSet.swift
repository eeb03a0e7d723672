// The rings that pushes are routed by while groups change owners: the one in force, and others by which shards may hold
// copies. Handover makes one at each step; the forwarder of each worker swaps it in as a whole.

/// What a request does at a shard that owns its group by another ring than the one in force.
///
/// Each step of a handover can stand beside the one before and the one after it, so that replicas need not take a step
/// at the same moment: the idea is that of online schema changes, "Online, Asynchronous Schema Change in F1" (VLDB 2013).
enum Visit: Sendable {
    /// PUT and DELETE remove what the shard holds: it is about to become an owner, or was one and is away.
    case removal
    /// Every request is made there too, before its owner has it, so that the shard's copy stays whole and new.
    case copy
    /// Every request removes what the shard holds: the owner has all of it.
    case sweep
}

/// Another ring, and what to do at its owners.
struct OtherRing: Sendable {
    var ring: Ring
    var visit: Visit
    /// Of its shards, those that matter; nil for all.
    var shards: Set<ShardAddress>?
    /// The places of groups that are not swept, but removed as by `removal`: their owner could not be given all of them.
    var kept: Set<UInt32> = []
}

extension OtherRing {
    /// The shards that may hold something by it.
    var holding: Set<ShardAddress> { shards ?? Set(ring.shards) }

    /// Those that are off the ring in force and have not been emptied.
    func away(from ring: Ring, _ cleared: Set<ShardAddress>) -> Set<ShardAddress> {
        holding.subtracting(cleared).subtracting(ring.shards)
    }

    /// The same for these of its shards alone, which are seen to in this way; nothing where there are none.
    func part(_ shards: Set<ShardAddress>, _ visit: Visit, kept: Set<UInt32> = []) -> [OtherRing] {
        shards.isEmpty ? [] : [OtherRing(ring: ring, visit: visit, shards: shards, kept: kept)]
    }

    /// What owners on the ring in force have got all of may go; not what shards hold that the run could not ask.
    func swept(on ring: Ring, _ cleared: Set<ShardAddress>, _ kept: Set<UInt32>) -> [OtherRing] {
        let unreached = away(from: ring, cleared)
        return part(holding.subtracting(unreached), .sweep, kept: kept) + part(unreached, .removal)
    }

    /// What to do at the owner of the group with this place.
    func visit(of hash: UInt32) -> Visit { visit == .sweep && kept.contains(hash) ? .removal : visit }
}

/// The ring in force, and those that are not settled; immutable.
struct RingSet: Sendable {
    var ring: Ring
    var others: [OtherRing] = []
    /// Whether any shard may hold a copy of any group, so that a DELETE goes to all of them.
    var isReconcileDue = false
    /// Which stores the shards are, as far as is known.
    var stores = StoreMap()
    /// How often a ring has come into force, or has been added to those by which shards may hold copies.
    var changeCount = 0
}

extension [OtherRing] {
    /// How many are remembered: a push on a group that moves looks its owners up on each, and large ones take memory.
    var mostToRemember: Int {
        let points = reduce(0) { $0 + $1.ring.shards.count * $1.ring.vnodes }
        return points > 2_000_000 ? 8 : 64
    }
}
