// What is told of moving groups: by the metrics, and by the commands. The server takes it from the tier for each answer.
import MovingCore

/// Why nothing may move.
enum MovingObstacle: String, CaseIterable, Sendable {
    /// The register is one of another version, or a replica is.
    case version
    /// A replica has other settings, and would place groups otherwise.
    case config
    /// The store of a shard cannot be told.
    case marks
    /// Another mover that does not know of this one is at it.
    case movers
    /// Consul cannot be reached.
    case consul
}

/// What keeps this replica from moving groups, and the reason for people.
struct MovingHindrance: Equatable {
    var obstacle: MovingObstacle
    var reason: String
}

/// The tier's state at one moment.
struct MovingStatus: Sendable {
    /// 0 at rest, 1 handing over, 2 overlapping, 3 a shard is absent.
    var step = 0
    /// Groups that are not where they belong, by the latest listings.
    var moving = 0
    /// Groups that two shards have, by the latest listings.
    var duplicates = 0
    var moved: UInt64 = 0
    var deleted: UInt64 = 0
    /// Groups that cannot be moved, by reason.
    var stuck: [StuckReason: Int] = [:]
    var obstacles: Set<MovingObstacle> = []
    /// How often the tier came to rest, or a job of the mover could not be ended.
    var runs: [RunResult: UInt64] = [:]
    /// When the tier was last seen at rest, in seconds since 1970.
    var lastSuccess: Double?
}

/// How a run of moving groups ended.
enum RunResult: String, CaseIterable, Sendable {
    /// Each group is on its owner alone.
    case success
    /// Some groups could not be moved; they are tried again.
    case partial
    /// Nothing may move.
    case failed
    /// Another replica has moved them.
    case skipped
}

extension Register {
    /// The step that is furthest from rest.
    var step: Int {
        if !down.isEmpty || entries.values.contains(where: { !$0.predecessors.isEmpty }) { return 3 }
        let steps = entries.values.map(\.step)
        let isOverlapping = steps.contains { $0.backup != nil }
        let isMoving = next != nil || !adopting.isEmpty || steps.contains { $0 != .settled && $0.backup == nil }
        return isMoving ? 1 : isOverlapping ? 2 : 0
    }
}
