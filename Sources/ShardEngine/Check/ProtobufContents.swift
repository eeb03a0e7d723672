// What a body of length-delimited MetricFamily messages would store. The numbers are the fields' numbers in metrics.proto:
// https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
// ProtobufReader, which the guard uses, is for all versions and does not look into the values of metrics.

final class ProtobufContents {
    private let families: BodyFamilies
    private let columns: LabelColumns
    /// Of the present family, whose type and name may come behind them.
    private var metrics = Arena<UnsafeRawBufferPointer>(capacity: 64)
    private let hash = KeyedHash.ofProcess

    init(_ families: BodyFamilies, _ columns: LabelColumns) {
        self.families = families
        self.columns = columns
    }

    /// - Returns: false where Pushgateway cannot go on; so do all that follow.
    func read(_ body: UnsafeRawBufferPointer) -> Bool {
        var wire = WireReader(body)
        while wire.count > 0 {
            let before = wire.count
            guard let length = wire.varint(), before - wire.count <= ProtobufContents.longestLength else {
                // Pushgateway 1.5 takes a length that is cut short for the end of the body.
                if before < ProtobufContents.longestLength { break }
                return false
            }
            // And a body that ends behind a length.
            if length > 0, wire.count == 0 { break }
            let offset = body.count - wire.count
            guard let message = wire.take(length), readFamily(message, at: offset) else { return false }
        }
        return true
    }

    /// Bytes of a message's length, at most.
    private static let longestLength = 5

    // MARK: Families

    /// - Returns: false also for what the guard does not let through: a family without a name, or of a type that there is not.
    private func readFamily(_ message: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        var wire = WireReader(message)
        var name = UnsafeRawBufferPointer(start: nil, count: 0)
        var help: UnsafeRawBufferPointer?
        var type: Int32 = 0
        metrics.removeAll()
        while wire.count > 0 {
            guard let (field, wireType) = wire.tag() else { return false }
            switch (field, wireType) {
            case (1, .bytes), (2, .bytes), (4, .bytes):
                guard let bytes = wire.lengthDelimited() else { return false }
                switch field {
                case 1: name = bytes
                case 2: help = bytes
                default: metrics.append(bytes)
                }
            case (3, .varint):
                guard let number = wire.varint() else { return false }
                type = Int32(truncatingIfNeeded: number)
            default:
                guard wire.skip(wireType) else { return false }
            }
        }
        guard !name.isEmpty, let kind = UInt8(exactly: type).flatMap(FamilyKind.init(rawValue:)) else { return false }
        // A Pushgateway keeps the last one of a name.
        let family = families.replaceFamily(name)
        families.set(kind, of: family)
        families.set(help: help, of: family)
        for metric in metrics.elements {
            guard readMetric(metric, of: family, kind, at: offset) else { return false }
        }
        return true
    }

    private func readMetric(
        _ message: UnsafeRawBufferPointer,
        of family: Int,
        _ kind: FamilyKind,
        at offset: Int
    ) -> Bool {
        var wire = WireReader(message)
        var kinds: MetricKinds = []
        var sum = families.key.series
        columns.beginSeries()
        while wire.count > 0 {
            guard let (field, type) = wire.tag() else { return false }
            guard type == .bytes else {
                if field == 6, type == .varint { families.refuseTimestamp(family, at: offset) }
                guard wire.skip(type) else { return false }
                continue
            }
            guard let bytes = wire.lengthDelimited() else { return false }
            if field == 1 {
                guard readLabel(bytes, of: family, kind, &sum, at: offset) else { return false }
            } else {
                kinds.formUnion(MetricKinds(field: field))
                guard WholeMessage.metric.isWhole(bytes, field: field) else { return false }
            }
        }
        if families.drafts[family].isReplaced { return true }
        if !kinds.contains(kind.value) {
            let what = "is a \(kind.word) and has a metric without the value of one"
            families.refuse(family, .metricKind, at: offset, what, "a metric has the kind of its family's type")
        }
        if !families.add(sum.series(of: families.key), to: family) { families.refuseEqual(family, at: offset) }
        return true
    }

    private func readLabel(
        _ message: UnsafeRawBufferPointer,
        of family: Int,
        _ kind: FamilyKind,
        _ sum: inout SeriesSum,
        at offset: Int
    ) -> Bool {
        var wire = WireReader(message)
        var (name, value) = (UnsafeRawBufferPointer(start: nil, count: 0), UnsafeRawBufferPointer(start: nil, count: 0))
        while wire.count > 0 {
            guard let (field, type) = wire.tag() else { return false }
            guard type == .bytes, field == 1 || field == 2 else {
                guard wire.skip(type) else { return false }
                continue
            }
            guard let bytes = wire.lengthDelimited() else { return false }
            if field == 1 { name = bytes } else { value = bytes }
        }
        if families.drafts[family].isReplaced { return true }
        guard let column = columns.next(name) else {
            let what = "has a metric with two labels \"\(printable(name))\""
            families.refuse(family, .metricLabel, at: offset, what, "no metric may have a label twice")
            return true
        }
        if !column.pointee.isValid { families.refuseLabel(family, name, at: offset) }
        if kind == .summary, equals(name, "quantile") {
            let what = "is a summary with a label \"quantile\""
            families.refuse(family, .metricLabel, at: offset, what, "that is its own")
        }
        // The key's value takes the place of one that is not UTF-8.
        if !column.pointee.isOfKey, !isUTF8(value) {
            let what = "has a label \"\(printable(name))\" whose value is not UTF-8"
            families.refuse(family, .metricLabel, at: offset, what, "Prometheus could not read it")
        }
        column.pointee.add(column.pointee.hash(value, hash), isEmpty: value.isEmpty, to: &sum)
        return true
    }
}

extension FamilyKind {
    /// The kind of value that its metrics have.
    var value: MetricKinds {
        switch self {
        case .counter: .counter
        case .gauge: .gauge
        case .summary: .summary
        case .untyped: .untyped
        case .histogram: .histogram
        }
    }
}

/// The messages within a metric, of which Pushgateway refuses a body where one cannot be read to its end.
enum WholeMessage {
    case metric
    /// A gauge, an untyped value, a quantile, a label, a span or a time: without messages in it.
    case plain
    case counter
    case summary
    case histogram
    case bucket
    case exemplar

    /// What a field of it has in it where it is encoded as bytes.
    private enum Content {
        case message(WholeMessage)
        case varints
        case doubles
        /// Text, or a field that it does not know.
        case any
    }

    /// Whether the bytes of that field can be read to their end.
    func isWhole(_ bytes: UnsafeRawBufferPointer, field: UInt64) -> Bool {
        var wire = WireReader(bytes)
        switch content(of: field) {
        case .any: return true
        case .doubles: return bytes.count % 8 == 0
        case .varints:
            while wire.count > 0 { guard wire.varint() != nil else { return false } }
            return true
        case .message(let message):
            while wire.count > 0 {
                guard let (field, type) = wire.tag() else { return false }
                guard type == .bytes else {
                    guard wire.skip(type) else { return false }
                    continue
                }
                guard let bytes = wire.lengthDelimited(), message.isWhole(bytes, field: field) else { return false }
            }
            return true
        }
    }

    private func content(of field: UInt64) -> Content {
        switch (self, field) {
        case (.metric, 2), (.metric, 5): .message(.plain)
        case (.metric, 3): .message(.counter)
        case (.metric, 4): .message(.summary)
        case (.metric, 7): .message(.histogram)
        case (.counter, 2), (.bucket, 3): .message(.exemplar)
        case (.summary, 3), (.exemplar, 1), (.exemplar, 3): .message(.plain)
        case (.histogram, 3): .message(.bucket)
        case (.histogram, 9), (.histogram, 12): .message(.plain)
        case (.histogram, 10), (.histogram, 13): .varints
        case (.histogram, 11), (.histogram, 14): .doubles
        default: .any
        }
    }
}
