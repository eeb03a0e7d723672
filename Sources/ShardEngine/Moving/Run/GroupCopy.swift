// One shard's copy of one group, as its listing tells it. The planner compares copies; the family encoder writes what is
// pushed to another shard.

/// What identifies a group: its grouping labels, `job` among them.
struct GroupLabels: Hashable, Sendable {
    /// Ascending by name, none twice.
    let pairs: [LabelPair]

    init(_ pairs: [LabelPair]) {
        self.pairs = pairs.sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
    }

    /// Whether its instance is empty: beside the group without one it fails every push and scrape of its shard.
    var isOldForm: Bool { pairs.contains { $0.name == "instance" && $0.value.isEmpty } }
}

/// A label and its value; equal to another one byte by byte, as to a Pushgateway, and not as text is.
struct LabelPair: Hashable, Sendable {
    var name: String
    var value: String

    static func == (one: LabelPair, other: LabelPair) -> Bool {
        one.name.utf8.elementsEqual(other.name.utf8) && one.value.utf8.elementsEqual(other.value.utf8)
    }

    func hash(into hasher: inout Hasher) {
        for text in [name, value] {
            for byte in text.utf8 { hasher.combine(byte) }
            hasher.combine(UInt8.max)
        }
    }
}

/// A copy of a group.
struct GroupCopy: Sendable {
    var labels: GroupLabels
    var wasLastPushSuccessful: Bool
    /// By name, without the two that Pushgateway itself adds.
    var families: [String: FamilyCopy]
    /// Why it cannot be pushed to another shard as it is; nil when it can.
    var obstacle: String?

    /// The same, also of what an owner must not be given.
    var obstacleToMove: String? { obstacle ?? (labels.isOldForm ? "its instance is empty" : nil) }
}

/// A copy of a metric family.
struct FamilyCopy: Sendable {
    /// When it was pushed, by the shard's clock, in nanoseconds since 1970.
    var pushedAt: Int64
    /// What it holds; nil where the listing was read for times only.
    var content: MetricFamily?
}

/// A metric family as a Pushgateway holds it.
struct MetricFamily: Equatable, Sendable {
    var name: String
    var kind: FamilyKind
    var help: String
    var metrics: [Metric]
}

/// One series, or the series of one summary or histogram.
struct Metric: Equatable, Sendable {
    /// A quantile and its value, or a bucket's upper bound and its cumulative count.
    struct Part: Equatable, Sendable {
        var bound: Double
        var value: Double
        var count: UInt64
    }

    var labels: [LabelPair] = []
    var value = 0.0
    var sum = 0.0
    var count: UInt64 = 0
    /// Ascending by bound.
    var parts: [Part] = []
}
