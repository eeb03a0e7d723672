// What a worker counts of the requests it gets. Ingress and forwarding write it, `GET /metrics` reads it.

/// Why a request was turned away without asking a shard; the values of a label, so there are few.
enum RejectionReason: String, CaseIterable {
    case badRequest = "bad_request"
    case methodNotAllowed = "method_not_allowed"
    case expectationFailed = "expectation_failed"
    case timeout
    case bodyTooLarge = "body_too_large"
    case headersTooLarge = "headers_too_large"
    case noShard = "no_shard"
    case queueFull = "queue_full"
    case noDescriptors = "no_descriptors"

    /// The reason that goes with a refusal's status.
    init(refusalStatus status: Int) {
        switch status {
        case 405: self = .methodNotAllowed
        case 408: self = .timeout
        case 413: self = .bodyTooLarge
        case 417: self = .expectationFailed
        case 431: self = .headersTooLarge
        // There is a descriptor for each request that is under way.
        case 503: self = .noDescriptors
        default: self = .badRequest
        }
    }
}

/// Counts of one worker's requests; loop-confined.
final class RequestMetrics {
    /// Answers by method, in the order of `Method`, and status.
    private(set) var answers = [StatusCounts](repeating: StatusCounts(), count: Method.allCases.count)
    /// From the arrival of a whole push to its answer.
    private(set) var durations = Histogram()
    /// How long pushes have waited while what their shard has of their groups was handed over.
    private(set) var handoverWaits = Histogram()
    /// Rejections by reason, in the order of `RejectionReason`.
    private(set) var rejections: [RejectionReason: UInt64] = [:]
    /// Pushes refused by the guard, by reason.
    private(set) var refusals: [RefusalReason: UInt64] = [:]
    /// Requests that have arrived and not been answered.
    var inFlight = 0

    /// A request that had arrived, and that is no push, has been answered.
    func countAnswer(_ method: Method, _ status: Int) {
        answers[Int(method.rawValue)].count(status)
    }

    /// A push that had arrived has been answered.
    func countAnswer(_ method: Method, _ status: Int, _ duration: TimeSpan) {
        answers[Int(method.rawValue)].count(status)
        durations.observe(duration)
    }

    func countHandoverWait(_ wait: TimeSpan) { handoverWaits.observe(wait) }

    func countRefusal(_ reason: RefusalReason) {
        refusals[reason, default: 0] += 1
    }

    func countRejection(_ reason: RejectionReason) {
        rejections[reason, default: 0] += 1
    }
}
