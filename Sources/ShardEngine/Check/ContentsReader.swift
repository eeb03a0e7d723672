// Finds out what a push would store, and whether it breaks a rule of Pushgateway's consistency check by itself or together
// with its key. It reads as Pushgateway 1.5 does, in one pass over the body. The parts that both formats need are here; the
// formats are in TextContents and ProtobufContents.
//
// Where versions differ it goes by 1.5.1:
// - 1.11 takes names in quotes in text, and in messages names of labels beyond letters, digits and `_`.
// - 1.11 refuses a body of messages that ends behind a length, and negative counts of a histogram's buckets.
// In messages it takes numbers of ten bytes that are too large for 64 bits, which every Pushgateway refuses: WireReader does.
import Glibc

/// Reads bodies of pushes.
enum ContentsReader {
    /// - Parameters:
    ///   - body: as it is when it has been inflated.
    ///   - key: the labels of the grouping key, decoded, `job` first.
    static func read(
        _ body: UnsafeRawBufferPointer,
        isProtobuf: Bool,
        key: [(name: [UInt8], value: [UInt8])]
    ) -> PushContents {
        var bytes: [UInt8] = []
        for label in key {
            bytes += label.name
            bytes += label.value
        }
        return bytes.withUnsafeBytes { bytes in
            let labels = KeyLabels(bytes, lengths: key.map { ($0.name.count, $0.value.count) })
            guard isProtobuf else {
                var reader = TextContents(body, labels)
                return reader.read()
            }
            var reader = ProtobufContents(labels)
            return reader.read(body)
        }
    }
}

/// Bytes that a dictionary or a set finds by what they are; they belong to the body or to the key.
struct NameBytes: Hashable {
    let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    @inline(__always)
    static func == (left: NameBytes, right: NameBytes) -> Bool {
        guard left.bytes.count == right.bytes.count else { return false }
        guard let first = left.bytes.baseAddress, let second = right.bytes.baseAddress else { return true }
        return memcmp(first, second, left.bytes.count) == 0
    }

    @inline(__always)
    func hash(into hasher: inout Hasher) {
        hasher.combine(bytes: bytes)
    }
}

/// The labels of a grouping key, and their parts in the hashes of all its series.
struct KeyLabels {
    /// The sums over its labels alone.
    private(set) var hash = 0
    private(set) var names: UInt64 = 0
    /// The parts of an `instance` with an empty value, which every series has that has no `instance`; nought where the key
    /// has one.
    private(set) var noInstanceHash = 0
    private(set) var noInstanceName: UInt64 = 0
    private(set) var hasQuantile = false
    /// Whether each value is UTF-8.
    private(set) var isUTF8 = true
    private var known: Set<NameBytes> = []

    /// The sum over the names of its labels, with `instance` among them.
    var shape: UInt64 { names &+ noInstanceName }

    /// - Parameters:
    ///   - bytes: names and values, one behind the other.
    ///   - lengths: of each label's name and value.
    init(_ bytes: UnsafeRawBufferPointer, lengths: [(name: Int, value: Int)]) {
        var labels: [NameBytes: UnsafeRawBufferPointer] = [:]
        var offset = 0
        for length in lengths {
            let nameEnd = offset + length.name
            let name = UnsafeRawBufferPointer(rebasing: bytes[offset..<nameEnd])
            offset = nameEnd + length.value
            // Of a name that is there twice Pushgateway takes the last value, but of `job` what stands first.
            if equals(name, "job"), labels[NameBytes(name)] != nil { continue }
            labels[NameBytes(name)] = UnsafeRawBufferPointer(rebasing: bytes[nameEnd..<offset])
        }
        for (label, value) in labels {
            let name = label.bytes
            known.insert(label)
            hash &+= SeriesHash.label(name, value)
            names &+= SeriesHash.shapeName(name, isEmpty: value.isEmpty)
            if equals(name, "quantile") { hasQuantile = true }
            if !ShardEngine.isUTF8(value) { isUTF8 = false }
        }
        var instance: StaticString { "instance" }
        let name = UnsafeRawBufferPointer(start: instance.utf8Start, count: instance.utf8CodeUnitCount)
        guard !contains(name) else { return }
        noInstanceHash = SeriesHash.label(name, UnsafeRawBufferPointer(start: nil, count: 0))
        noInstanceName = SeriesHash.shapeName(name, isEmpty: true)
    }

    func contains(_ name: UnsafeRawBufferPointer) -> Bool {
        known.contains(NameBytes(name))
    }

    /// A series of this key without labels of its own, but for `instance`.
    var series: SeriesSum { SeriesSum(hash: hash, names: names) }
}

/// What is known of a series while its labels are read.
struct SeriesSum {
    var hash: Int
    var names: UInt64
    /// Whether it has a label `instance` that is not the key's.
    var hasInstance = false

    func series(of key: KeyLabels) -> PushedSeries {
        PushedSeries(
            shape: SeriesShape(
                keyNames: key.shape,
                allNames: names &+ (hasInstance ? 0 : key.noInstanceName)
            ),
            hash: hash &+ (hasInstance ? 0 : key.noInstanceHash)
        )
    }
}

/// A family while its body is read.
struct FamilyDraft {
    let name: UnsafeRawBufferPointer
    var kind: FamilyKind?
    var help: [UInt8]?
    private(set) var series: [PushedSeries] = []
    /// The rule that it breaks.
    private(set) var refusal: PushRefusal?
    /// Pushgateway puts its own in its place, so that nothing but its timestamps counts.
    let isReplaced: Bool
    /// Of the series, once there are many.
    private var hashes: Set<Int> = []
    /// A histogram's or summary's metrics in text, by the labels that they have in the body.
    private var metrics: Set<Int> = []
    private var lastMetric: Int?

    init(name: UnsafeRawBufferPointer) {
        self.name = name
        isReplaced = equals(name, "push_time_seconds") || equals(name, "push_failure_time_seconds")
    }

    /// - Returns: whether the metric is one that has not been there.
    mutating func addMetric(_ hash: Int) -> Bool {
        if lastMetric == hash { return false }
        lastMetric = hash
        return metrics.insert(hash).inserted
    }

    /// - Returns: whether none of the series has the same labels.
    mutating func add(_ added: PushedSeries) -> Bool {
        defer { series.append(added) }
        if series.count < FamilyDraft.fewSeries { return !series.contains { $0.hash == added.hash } }
        if hashes.isEmpty { hashes = Set(series.lazy.map(\.hash)) }
        return hashes.insert(added.hash).inserted
    }

    /// Notes a rule that it breaks; the first one counts.
    ///
    /// - Parameters:
    ///   - what: what it has or is, as it follows the family's name in a sentence.
    ///   - rule: what a Pushgateway wants.
    mutating func refuse(
        _ reason: RefusalReason,
        at offset: Int,
        _ what: @autoclosure () -> String,
        _ rule: @autoclosure () -> String
    ) {
        guard refusal == nil else { return }
        let line = "family \"\(printable(name))\" \(what()) at byte \(offset) of the body: \(rule())"
        refusal = PushRefusal(reason: reason, line: line)
    }

    mutating func refuseTimestamp(at offset: Int) {
        refuse(.timestamp, at: offset, "has a timestamp", "a Pushgateway takes none")
    }

    mutating func refuseLabel(_ label: UnsafeRawBufferPointer, at offset: Int) {
        let rule = "a name has letters, digits and _, no digit in front, and does not begin with __"
        refuse(.metricLabel, at: offset, "has a label \"\(printable(label))\"", rule)
    }

    mutating func refuseEqual(at offset: Int) {
        let rule = "their labels are the same once those of the grouping key are set"
        refuse(.seriesTwice, at: offset, "has two equal series, one", rule)
    }

    private static let fewSeries = 8
}
