// What the admin endpoints tell of the server as a whole. The server makes one for each answer.

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

    /// Whether pushes are welcome.
    var isReady: Bool { !ring.isEmpty && !isDraining }
}
