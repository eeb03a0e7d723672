// Why a push is refused that would harm a shard. The guard names one, the worker counts it, `GET /metrics` tells it.

/// Reasons for refusing a push, as values of the label `reason`, so there are few. docs/PUSHGATEWAY.md explains each.
enum RefusalReason: String, CaseIterable, Sendable {
    /// A Pushgateway answers the path with a redirect.
    case path
    case keyNotUTF8 = "key_not_utf8"
    case jobNotBase64 = "job_not_base64"
    /// A job or a family that shardd, or a Pushgateway, keeps for itself.
    case reserved
    case bodyNotUTF8 = "body_not_utf8"
    case familyName = "family_name"
    case familyType = "family_type"
    case familyEmpty = "family_empty"
    case metricKind = "metric_kind"
    case metricLabel = "metric_label"
    /// A native histogram whose buckets are not all there.
    case histogram
    /// A compressed body that is damaged.
    case damaged
    /// A compressed body that is too large when it is inflated.
    case tooLarge = "too_large"
}

/// Why one push is refused.
struct PushRefusal: Equatable, Sendable {
    var reason: RefusalReason
    /// The status of the answer.
    var status = 400
    /// The line of text that the client is given.
    var line: String
}
