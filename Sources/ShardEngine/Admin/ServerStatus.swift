// What the admin endpoints tell of the server as a whole. The server makes one for each answer.

/// What a shard is to the tier, as `/api/v1/sd` and `/api/v1/ring` tell it.
enum ShardState: String, Sendable {
    /// On the ring.
    case up
    /// On the ring, and passed over until it answers again.
    case suspect
    /// Named by the file or by Consul, and off the ring, as it is not healthy.
    case down
    /// About to be on the ring.
    case joining
    /// Off the ring, and may hold groups.
    case draining
}

/// The server's state at one moment.
struct ServerStatus: Sendable {
    var ring: Ring
    /// How many rings there have been, this one included.
    var generation: Int
    var source: Membership.Source
    /// When this ring came into use, in seconds since 1970.
    var ringChangedAt: Double
    var key: HashKey
    /// Whether the server is about to stop.
    var isDraining: Bool
    var wasLastReloadSuccessful: Bool
    /// Polls for the healthy shards, by result.
    var polls: [PollResult: UInt64]
    /// When a poll last succeeded, in seconds since 1970.
    var lastPollSuccess: Double?
    var reconcile: ReconcileMetrics
    /// Shards off the ring that are being emptied.
    var draining: [ShardAddress]
    /// Shards off the ring that are about to join it, may hold groups, or are named and not healthy.
    var offRing: [ShardAddress: ShardState]
    /// Addresses that were left off the ring because another one leads to the same store.
    var sameStoreCount: Int
    /// How often the process behind an address was found to be another one.
    var restartCounts: [ShardAddress: UInt64]

    /// Whether pushes are welcome.
    var isReady: Bool { !ring.isEmpty && !isDraining }
}
