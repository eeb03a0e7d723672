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
    /// Addresses that were left off the ring because another one leads to the same store.
    var sameStoreCount: Int
    /// How often the process behind an address was found to be another one.
    var restartCounts: [ShardAddress: UInt64]

    /// Whether pushes are welcome.
    var isReady: Bool { !ring.isEmpty && !isDraining }
}
