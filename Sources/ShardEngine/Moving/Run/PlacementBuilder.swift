// Makes what a register's rings mean for keys, on another thread, as large rings take tens of milliseconds. The tier asks it
// for each register; one whose rings are those of the last one is answered at once.
import Dispatch
import MovingCore

/// Builds placements off the loop; confined to it otherwise.
final class PlacementBuilder {
    private let mailbox: LoopMailbox
    private let queue = DispatchQueue(label: "shardd.placement-builder")
    /// How many are being made: what is known already waits behind them.
    private var pending = 0
    /// The rings that were made last, each with what it was made of.
    private var cache: [(ring: RingMembers, next: RingMembers?, ringOfShards: Ring, rings: Rings)] = []

    init(mailbox: LoopMailbox) { self.mailbox = mailbox }

    /// Calls `done`, now or later, in the order of asking.
    func build(_ ring: RingMembers, _ next: RingMembers?, _ done: @escaping (Ring, Rings) -> Void) {
        let known = cache.first { $0.ring == ring && $0.next == next }
        if pending == 0, let known { return done(known.ringOfShards, known.rings) }
        pending += 1
        let done = LoopBound(done, on: mailbox)
        let this = WeakLoopBound(self, on: mailbox)
        queue.async {
            let ringOfShards = known?.ringOfShards ?? ring.ring
            let rings = known?.rings ?? Rings(before: ring.map(ringOfShards), after: next.map { $0.map($0.ring) })
            this.post { builder in
                builder.pending -= 1
                builder.remember(ring, next, ringOfShards, rings)
                done.value(ringOfShards, rings)
            }
        }
    }

    private func remember(_ ring: RingMembers, _ next: RingMembers?, _ ringOfShards: Ring, _ rings: Rings) {
        cache.removeAll { $0.ring == ring && $0.next == next }
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
