// Why a push got no answer from its shard, and what the client is told. Everything in Upstream reports failures as these.

/// What went wrong between a push and a shard.
enum UpstreamFailure: Equatable {
    /// There is no shard to send it to.
    case noShard
    /// The shard's queue is full.
    case queueFull
    /// No connection could be made: the system's reason.
    case unreachable(String)
    /// shardd itself has no descriptors or ports left.
    case noDescriptors
    /// The shard closed the connection before it had answered, twice.
    case brokeConnection
    /// The shard answered something that is not HTTP: what is wrong with it.
    case garbage(StaticString)
    /// The shard did not answer in time.
    case timeout
    /// The push has waited too long for its group to be moved, or for other replicas to follow a change.
    case moving

    /// The status that the client gets: the one place where failures become statuses.
    var status: Int {
        switch self {
        case .noShard, .queueFull, .noDescriptors, .moving: 503
        case .unreachable, .brokeConnection, .garbage: 502
        case .timeout: 504
        }
    }

    /// Under which reason it counts as a rejection; nil when the shard was asked.
    var rejection: RejectionReason? {
        switch self {
        case .noShard: .noShard
        case .queueFull: .queueFull
        case .noDescriptors: .noDescriptors
        default: nil
        }
    }

    /// The line of text that the client gets.
    func line(shard: ShardAddress?) -> String {
        let subject = shard.map { "shard \($0)" } ?? "shardd"
        return switch self {
        case .noShard: "no shard is healthy"
        case .queueFull: "\(subject): its queue is full"
        case .noDescriptors: "\(subject): no connection can be opened: out of descriptors or ports"
        case .unreachable(let reason): "\(subject): cannot connect: \(reason)"
        case .brokeConnection: "\(subject): it closed the connection without an answer"
        case .garbage(let reason): "\(subject): it answered garbage: \(reason)"
        case .timeout: "\(subject): it did not answer in time"
        case .moving: "the push's group is being moved: try again"
        }
    }

    /// Why the shard has failed, without its address.
    var cause: String {
        switch self {
        case .unreachable(let reason): reason
        case .noShard, .queueFull, .noDescriptors, .brokeConnection, .garbage, .timeout, .moving:
            "it did not answer pushes in time"
        }
    }

    static func == (left: UpstreamFailure, right: UpstreamFailure) -> Bool {
        switch (left, right) {
        case (.unreachable(let one), .unreachable(let other)): one == other
        case (.garbage(let one), .garbage(let other)): one.description == other.description
        default: left.status == right.status && left.line(shard: nil) == right.line(shard: nil)
        }
    }
}
