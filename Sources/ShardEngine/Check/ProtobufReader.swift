// Reads a body of length-delimited MetricFamily messages in one pass over the bytes as they lie. The guard is its
// visitor; what else judges bodies can be one, too. The numbers are the fields' numbers in metrics.proto:
// https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
//
// It is never stricter than the decoders of Pushgateway 1.5 to 1.11: what one of them takes, this reads in the same way.
// Where none of them can go on it stops and says so: a shard then refuses the whole body. Of a body that ends within a
// message older ones keep the messages before that.

/// What a reader of messages calls.
protocol FamilyVisitor: ~Copyable {
    /// A label of a metric; the family's name may be yet to come.
    mutating func label(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)
    /// A histogram of a metric, as its message has it.
    mutating func histogram(_ message: UnsafeRawBufferPointer)
    /// A metric's labels have been told; these are the kinds of value that it has.
    mutating func metric(_ kinds: MetricKinds)
    /// A message has been read.
    ///
    /// - Returns: how far to read on in the body, at most; nil for all of it.
    mutating func family(_ family: FamilyMessage) -> Int?
    /// The body ends within a message of that length, which begins at an offset.
    mutating func cutShort(_ length: UInt64, at offset: Int)
}

/// The kinds of value in a metric.
struct MetricKinds: OptionSet {
    let rawValue: UInt8

    /// The kind whose field in Metric has this number; none for other fields.
    init(field: UInt64) {
        switch field {
        case 2...5, 7: rawValue = 1 << UInt8(field)
        default: rawValue = 0
        }
    }

    init(rawValue: UInt8) {
        self.rawValue = rawValue
    }

    static let gauge = MetricKinds(field: 2)
    static let counter = MetricKinds(field: 3)
    static let summary = MetricKinds(field: 4)
    static let untyped = MetricKinds(field: 5)
    static let histogram = MetricKinds(field: 7)
}

/// A family as its message tells it; the bytes belong to the body.
struct FamilyMessage {
    var name = UnsafeRawBufferPointer(start: nil, count: 0)
    var help = UnsafeRawBufferPointer(start: nil, count: 0)
    /// COUNTER, 0, where the message does not tell it.
    var type: Int32 = 0
    var metricCount = 0
    /// Where the message begins in the body.
    var offset: Int
}

/// Reads bodies of messages.
enum ProtobufReader {
    /// Has the visitor see each message.
    ///
    /// - Returns: false where every Pushgateway refuses the body, whatever the visitor has seen.
    static func read<Visitor: FamilyVisitor & ~Copyable>(
        _ body: UnsafeRawBufferPointer,
        _ visitor: inout Visitor
    ) -> Bool {
        var wire = WireReader(body)
        var end = body.count
        while body.count - wire.count < end {
            guard let length = wire.varint() else { return true }
            let offset = body.count - wire.count
            guard let message = wire.take(length) else {
                visitor.cutShort(length, at: offset)
                return true
            }
            var family = FamilyMessage(offset: offset)
            guard readFamily(message, &family, &visitor) else { return false }
            if let limit = visitor.family(family) { end = min(end, limit) }
        }
        return true
    }

    /// - Returns: false where no decoder can go on; so do the next two.
    private static func readFamily<Visitor: FamilyVisitor & ~Copyable>(
        _ message: UnsafeRawBufferPointer,
        _ family: inout FamilyMessage,
        _ visitor: inout Visitor
    ) -> Bool {
        var wire = WireReader(message)
        while wire.count > 0 {
            guard let (field, type) = wire.tag() else { return false }
            switch (field, type) {
            case (1, .bytes), (2, .bytes), (4, .bytes):
                guard let bytes = wire.lengthDelimited() else { return false }
                switch field {
                case 1: family.name = bytes
                case 2: family.help = bytes
                default:
                    family.metricCount += 1
                    guard readMetric(bytes, &visitor) else { return false }
                }
            case (3, .varint):
                guard let number = wire.varint() else { return false }
                family.type = Int32(truncatingIfNeeded: number)
            default:
                guard wire.skip(type) else { return false }
            }
        }
        return true
    }

    private static func readMetric<Visitor: FamilyVisitor & ~Copyable>(
        _ message: UnsafeRawBufferPointer,
        _ visitor: inout Visitor
    ) -> Bool {
        var wire = WireReader(message)
        var kinds: MetricKinds = []
        while wire.count > 0 {
            guard let (field, type) = wire.tag() else { return false }
            guard type == .bytes else {
                guard wire.skip(type) else { return false }
                continue
            }
            guard let bytes = wire.lengthDelimited() else { return false }
            if field == 1 {
                guard readLabel(bytes, &visitor) else { return false }
            } else {
                if field == 7 { visitor.histogram(bytes) }
                kinds.formUnion(MetricKinds(field: field))
            }
        }
        visitor.metric(kinds)
        return true
    }

    private static func readLabel<Visitor: FamilyVisitor & ~Copyable>(
        _ message: UnsafeRawBufferPointer,
        _ visitor: inout Visitor
    ) -> Bool {
        var wire = WireReader(message)
        var (name, value) = (UnsafeRawBufferPointer(start: nil, count: 0), UnsafeRawBufferPointer(start: nil, count: 0))
        while wire.count > 0 {
            guard let (field, type) = wire.tag() else { return false }
            switch (field, type) {
            case (1, .bytes):
                guard let bytes = wire.lengthDelimited() else { return false }
                name = bytes
            case (2, .bytes):
                guard let bytes = wire.lengthDelimited() else { return false }
                value = bytes
            default:
                guard wire.skip(type) else { return false }
            }
        }
        visitor.label(name: name, value: value)
        return true
    }
}
