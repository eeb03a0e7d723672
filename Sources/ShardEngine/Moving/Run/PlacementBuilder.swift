// Makes what a register's rings mean for keys, on another thread, as large rings take tens of milliseconds. The tier asks it
// for each register; one whose rings are those of the last one is answered at once.
import Dispatch
import MovingCore

/// Builds placements off the loop; confined to it otherwise.
final class PlacementBuilder {
    private let mailbox: LoopMailbox
    private let queue = DispatchQueue(label: "shardd.placement-builder")
    /// The rings that were made last, each with what it was made of.
    private var cache: [(ring: RingMembers, next: RingMembers?, ringOfShards: Ring, rings: Rings)] = []

    init(mailbox: LoopMailbox) { self.mailbox = mailbox }

    /// Calls `done`, now or later, in the order of asking.
    func build(_ ring: RingMembers, _ next: RingMembers?, _ done: @escaping (Ring, Rings) -> Void) {
        if let known = cache.first(where: { $0.ring == ring && $0.next == next }) {
            return done(known.ringOfShards, known.rings)
        }
        let done = LoopBound(done, on: mailbox)
        let this = WeakLoopBound(self, on: mailbox)
        queue.async {
            let ringOfShards = ring.ring
            let after = next.map { $0.map($0.ring) }
            let rings = Rings(before: ring.map(ringOfShards), after: after)
            this.post { builder in
                builder.remember(ring, next, ringOfShards, rings)
                done.value(ringOfShards, rings)
            }
        }
    }

    private func remember(_ ring: RingMembers, _ next: RingMembers?, _ ringOfShards: Ring, _ rings: Rings) {
        cache.insert((ring, next, ringOfShards, rings), at: 0)
        if cache.count > PlacementBuilder.cacheSize { cache.removeLast() }
    }

    private static let cacheSize = 3
}

extension RingMembers {
    /// The ring of the members' addresses.
    var ring: Ring {
        Ring(shards: members.compactMap { ShardAddress(parsing: $0.address) }, vnodes: vnodes)
    }

    /// Where keys lie on it, by stores.
    func map(_ ring: Ring) -> RingMap {
        let stores = Dictionary(members.map { ($0.address, $0.store) }, uniquingKeysWith: { first, _ in first })
        let owners = ring.shards.map { stores[$0.text] ?? StoreID(0) }
        return RingMap(ring.spans.map { (lastKey: $0.lastKey, owner: owners[$0.shard]) })
    }
}
