// A ring and the pools of its shards. The forwarder swaps it as a whole; an exchange keeps the one it started with.

/// What pushes are looked up on; immutable.
final class RoutingTable {
    let ring: Ring
    /// The pools of the ring's shards, in their order.
    let pools: [ShardPool]

    init(ring: Ring, pools: [ShardPool]) {
        precondition(ring.shards.count == pools.count)
        self.ring = ring
        self.pools = pools
    }
}
