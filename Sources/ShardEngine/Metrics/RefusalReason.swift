// Why a push is refused that would harm a shard, or that breaks a rule of Pushgateway's check. The guard or the check names one, the
// worker counts it, `GET /metrics` tells it.

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
    /// A sample with a timestamp.
    case timestamp
    /// Two series of a push that are equal once the labels of its key are set.
    case seriesTwice = "series_twice"
    /// A family whose name is that of a summary or histogram of the same push, with a suffix that belongs to the other.
    case familySuffix = "family_suffix"
    /// A native histogram whose buckets are not all there.
    case histogram
    /// It does not go with what groups hold (`pushes.check: full`).
    case inconsistent
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
