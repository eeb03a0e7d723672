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
    /// Off the ring, and has to be scraped: something that it holds counts.
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
    /// Whether groups are moved, and so how others stand in for shards that have failed.
    var movesGroups: Bool
    /// Whether the server is about to stop.
    var isDraining: Bool
    var wasLastReloadSuccessful: Bool
    /// When the configuration was last read and applied, in seconds since 1970.
    var lastReloadSuccess: Double
    /// Polls for the healthy shards, by result.
    var polls: [PollResult: UInt64]
    /// The shards that fail their checks, with what is wrong with each.
    var faults: [ShardAddress: String]
    /// How often shards have failed checks of Consul's or of static discovery.
    var checkFailures: [ShardAddress: UInt64]
    /// How long ago a push may have been taken by a shard that fails its checks and counts as up all the same.
    var checkInterval: TimeSpan
    /// Log entries that were dropped.
    var logDropped: UInt64
    var build: BuildInfo
    /// When a poll last succeeded, in seconds since 1970.
    var lastPollSuccess: Double?
    var moving: MovingStatus
    /// Shards that have failed, and that others stand in for, with the reason.
    var down: [ShardAddress: String]
    /// Shards off the ring that are being emptied.
    var draining: [ShardAddress]
    /// Shards off the ring that are about to join it, may hold groups, or are named and not healthy.
    var offRing: [ShardAddress: ShardState]
    /// Addresses that were left off the ring because another one leads to the same store.
    var sameStoreCount: Int
    /// Families that did not go with others of their shards and are not there any more.
    var familiesSetAside: Int
    /// How often the process behind an address was found to be another one.
    var restartCounts: [ShardAddress: UInt64]
    /// Whether pushes can be decided about: with `pushes.check: full`, not before the shards have been listed.
    var mayDecide: Bool
    /// Whether the consistency check of a shard and `pushes.check` do not go together; without shards that do not tell.
    var checkMismatches: [ShardAddress: Bool]
}
