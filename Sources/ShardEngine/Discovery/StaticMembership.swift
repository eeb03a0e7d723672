// Which of the file's servers are healthy, by the outcomes of probes. Static discovery feeds it; it decides.

/// The health of a fixed set of shards.
struct StaticMembership {
    private struct Health {
        var isUp = true
        /// Outcomes in a row that speak against `isUp`.
        var contrary = 0
        /// What the latest probe found wrong.
        var fault: String?
        /// Whether a probe has ever found the shard healthy.
        var hasPassed = false

        /// Whether it is up, and nothing speaks against that.
        var isSound: Bool { isUp && contrary == 0 }
    }

    /// Failures in a row that take a shard out.
    var fall: Int
    /// Successes in a row that bring it back.
    var rise: Int
    private var healths: [ShardAddress: Health] = [:]
    /// How many are sound.
    private var soundCount = 0
    /// Whether shards have become healthy or unhealthy since `last` was made.
    private var isLastOld = false
    /// What the ring was made of when shards last were healthy.
    private var last: [ShardAddress]

    /// All shards count as healthy until probes say otherwise.
    init(shards: [ShardAddress], fall: Int, rise: Int) {
        self.fall = fall
        self.rise = rise
        last = shards
        for shard in shards { healths[shard] = Health() }
        soundCount = healths.count
    }

    /// The healthy shards; when there is none, those that last were.
    var shards: [ShardAddress] { last }

    /// The shards that fail their probes, with what is wrong with each: those that have left the ring, or would have left it
    /// if another one were healthy, and those that were never seen to be healthy.
    var faults: [ShardAddress: String] {
        healths.filter { !$0.value.isUp || !$0.value.hasPassed }.compactMapValues(\.fault)
    }

    /// Takes in the outcome of a probe.
    ///
    /// - Parameter fault: what is wrong with the shard; nil when it is healthy.
    /// - Returns: whether the shard has become healthy or unhealthy by it.
    mutating func record(_ shard: ShardAddress, fault: String?) -> Bool {
        guard var health = healths[shard] else { return false }
        let isHealthy = fault == nil
        var hasChanged = false
        let wasSound = health.isSound
        if isHealthy == health.isUp {
            health.contrary = 0
        } else {
            health.contrary += 1
            hasChanged = health.contrary >= (isHealthy ? rise : fall)
            if hasChanged { (health.isUp, health.contrary) = (isHealthy, 0) }
        }
        health.fault = fault
        health.hasPassed = health.hasPassed || isHealthy
        healths[shard] = health
        soundCount += (health.isSound ? 1 : 0) - (wasSound ? 1 : 0)
        isLastOld = isLastOld || hasChanged
        keepLast()
        return hasChanged
    }

    /// Remembers the healthy shards, as long as one of them is known to be.
    ///
    /// When all fail together, each reaches `fall` before the next one does: leaving them out one by one would end with a
    /// ring of the one that was probed last.
    private mutating func keepLast() {
        guard isLastOld, soundCount > 0 else { return }
        last = healths.filter(\.value.isUp).keys.sorted()
        isLastOld = false
    }

    /// Goes over to another set of shards; those that stay keep their health.
    mutating func replace(_ shards: [ShardAddress], fall: Int, rise: Int) {
        self.fall = fall
        self.rise = rise
        healths = Dictionary(uniqueKeysWithValues: shards.map { ($0, healths[$0] ?? Health()) })
        let up = shards.filter { healths[$0]?.isUp == true }
        let kept = last.filter(shards.contains)
        last = up.isEmpty ? (kept.isEmpty ? shards : kept) : up
        soundCount = healths.values.count(where: \.isSound)
        isLastOld = true
    }
}
