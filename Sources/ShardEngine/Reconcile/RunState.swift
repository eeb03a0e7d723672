// How far the runs of reconciling have come. The reconciler makes it, or reads what another replica's has written into
// Consul; handover goes on by it.

/// The state of the latest run, counted over all replicas.
struct RunState: Codable, Equatable, Sendable {
    /// What the run has done.
    enum Phase: String, Codable, Sendable {
        /// It has begun.
        case copying
        /// Every group's owner has all that other shards hold of it.
        case copied
        /// What other shards held has been deleted.
        case settled
    }

    /// A ring that is remembered for those of its shards that are away.
    struct AwayRing: Codable, Equatable, Sendable {
        /// As `host:port`.
        var shards: [String]
        var vnodes: Int
    }

    /// The number of the run.
    var run = 0
    var phase = Phase.settled
    /// The shards of the ring by which it moves groups, as `host:port`.
    var ring: [String] = []
    /// How many points each of them has on it.
    var vnodes = 0
    /// When it began, in seconds since 1970.
    var startedAt = 0.0
    /// Places on the ring of groups that cannot be moved: their copies are not superfluous.
    var kept: [UInt32] = []
    /// Shards off the ring that may hold groups, but could not be asked, as `host:port`, and since when, in seconds since
    /// 1970.
    var unreached: [String: Double] = [:]
    /// Shards off the ring that hold nothing of use any more, as `host:port`: the run has emptied them, or they have been
    /// away for too long.
    var cleared: [String] = []
    /// The rings by which unreached shards were owners.
    var awayRings: [AwayRing] = []
    /// Shards that are being emptied, as `host:port`.
    var draining: [String] = []
    /// The ring that was settled last.
    var shards: [String] = []
    /// When that was, in seconds since 1970.
    var settledAt = 0.0
}

extension RunState {
    /// Shards off the ring that may come back with what they hold.
    var awayShards: [ShardAddress] { unreached.keys.compactMap { ShardAddress(parsing: $0) }.sorted() }

    /// Shards that need not be thought of any more.
    var clearedShards: [ShardAddress] { cleared.compactMap { ShardAddress(parsing: $0) } }

    /// The rings by which shards that are away were owners.
    var storedAwayRings: [StoredRing] {
        awayRings.compactMap { ring in
            StoredRing(shards: ring.shards, vnodes: ring.vnodes, holders: ring.shards.filter { unreached[$0] != nil })
        }
    }

    /// Whether it is by this ring that the run moves groups.
    func isRun(by ring: Ring) -> Bool { vnodes == ring.vnodes && self.ring == ring.shards.map(\.text) }

    /// The ring that was settled last.
    var settledShards: [ShardAddress] { shards.compactMap { ShardAddress(parsing: $0) } }
}
