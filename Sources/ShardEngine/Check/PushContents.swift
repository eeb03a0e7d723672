// What a push would store in a Pushgateway: its families, and of each series what tells it from others. ContentsReader
// finds it out; whoever compares a push with what shards hold goes by it.

/// A family's kind; the raw values are the numbers of MetricType in metrics.proto.
enum FamilyKind: UInt8 {
    case counter = 0
    case gauge = 1
    case summary = 2
    case untyped = 3
    case histogram = 4

    /// As a TYPE line has it.
    var word: String {
        switch self {
        case .counter: "counter"
        case .gauge: "gauge"
        case .summary: "summary"
        case .untyped: "untyped"
        case .histogram: "histogram"
        }
    }
}

/// Which labels a series has, and which of them are empty, but no values.
///
/// Each number is the sum of a hash of each label's name and of whether its value is empty, so the order of labels does not
/// count. The hash is the same in every process. A label `instance` with an empty value counts where there is none.
struct SeriesShape: Hashable, Sendable {
    /// Of the labels of its group's key.
    var keyNames: UInt64
    /// Of all its labels: its own, and those of the key.
    var allNames: UInt64
}

/// A series of a push as a Pushgateway stores it: with the labels of its group, and with an empty `instance` where it has
/// none.
struct PushedSeries: Hashable {
    var shape: SeriesShape
    /// Tells the series of one family apart. Each process hashes in its own way, so that no client can make two series equal.
    var hash: Int
}

/// A family of a push.
struct PushedFamily {
    var name: [UInt8]
    var kind: FamilyKind
    /// Without escapes; nil where the push has none.
    var help: [UInt8]?
    /// Only a body of messages has a family without any.
    var series: [PushedSeries]
}

/// What a push has in it.
enum PushContents {
    /// What the push would store, without the times of pushes that Pushgateway sets itself.
    case families([PushedFamily])
    /// The body breaks a rule of Pushgateway's consistency check, by itself or together with its key.
    case refused(PushRefusal)
    /// Every Pushgateway refuses it, whether it checks pushes or not, or this reader cannot read it.
    case unreadable
}

/// Hashes of labels, for everyone who compares series.
enum SeriesHash {
    /// A label's part in a series' hash.
    @inline(__always)
    static func label(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Int {
        let hash = KeyedHash.ofProcess
        return Int(truncatingIfNeeded: hash.hash(value, after: hash.hash(name)))
    }

    /// A label's part in a shape.
    static func shapeName(_ name: UnsafeRawBufferPointer, isEmpty: Bool) -> UInt64 {
        let hash = wideMurmur3(name)
        return isEmpty ? emptied(hash) : hash
    }

    /// The part of a label whose value is empty, by the part that it has otherwise.
    @inline(__always)
    static func emptied(_ hash: UInt64) -> UInt64 {
        // A step of SplitMix64, so that sums with this bit in one place are not those with it in another.
        (hash ^ hash >> 30) &* 0xBF58_476D_1CE4_E5B9 ^ hash >> 27
    }
}
