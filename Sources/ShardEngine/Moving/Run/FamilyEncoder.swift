// Writes metric families as Pushgateways take them: length-delimited messages of io.prometheus.client.MetricFamily, of
// https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
//
// Text would do for most, but not for all that a group may hold: values to the last digit, any label name, histograms
// without a +Inf bucket, help that is absent rather than empty.

/// Encodes families; the numbers are the fields' numbers in metrics.proto.
struct FamilyEncoder {
    /// The type of what it writes.
    static let contentType =
        "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
    /// What has been written.
    private(set) var bytes: [UInt8] = []

    /// A gauge with a name and no metrics, which a Pushgateway keeps and never exposes: what all marks are.
    static func withoutMetrics(_ name: String) -> [UInt8] {
        var encoder = FamilyEncoder()
        encoder.append(MetricFamily(name: name, kind: .gauge, help: "", metrics: []))
        return encoder.bytes
    }

    /// Appends a family.
    mutating func append(_ family: MetricFamily) {
        var message = Message()
        message.field(1, family.name)
        if !family.help.isEmpty { message.field(2, family.help) }
        message.field(3, UInt64(family.kind.rawValue))
        for metric in family.metrics { message.field(4, encoded(metric, family.kind)) }
        var length = Message()
        length.varint(UInt64(message.bytes.count))
        bytes += length.bytes + message.bytes
    }

    private func encoded(_ metric: Metric, _ kind: FamilyKind) -> Message {
        var message = Message()
        for pair in metric.labels {
            var label = Message()
            label.field(1, pair.name)
            label.field(2, pair.value)
            message.field(1, label)
        }
        switch kind {
        case .gauge: message.field(2, single(metric.value))
        case .counter: message.field(3, single(metric.value))
        case .untyped: message.field(5, single(metric.value))
        case .summary: message.field(4, summary(metric))
        case .histogram: message.field(7, histogram(metric))
        }
        return message
    }

    private func single(_ value: Double) -> Message {
        var message = Message()
        message.field(1, value)
        return message
    }

    private func summary(_ metric: Metric) -> Message {
        var message = Message()
        message.field(1, metric.count)
        message.field(2, metric.sum)
        for part in metric.parts {
            var quantile = Message()
            quantile.field(1, part.bound)
            quantile.field(2, part.value)
            message.field(3, quantile)
        }
        return message
    }

    private func histogram(_ metric: Metric) -> Message {
        var message = Message()
        message.field(1, metric.count)
        message.field(2, metric.sum)
        for part in metric.parts {
            var bucket = Message()
            bucket.field(1, part.count)
            bucket.field(2, part.bound)
            message.field(3, bucket)
        }
        return message
    }
}

/// A message under construction: https://protobuf.dev/programming-guides/encoding/
private struct Message {
    private(set) var bytes: [UInt8] = []

    mutating func varint(_ value: UInt64) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(rest & 0x7F) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }

    mutating func field(_ number: UInt64, _ value: UInt64) {
        varint(number << 3)
        varint(value)
    }

    mutating func field(_ number: UInt64, _ value: Double) {
        varint(number << 3 | 1)
        withUnsafeBytes(of: value.bitPattern.littleEndian) { bytes += $0 }
    }

    mutating func field(_ number: UInt64, _ text: String) {
        varint(number << 3 | 2)
        varint(UInt64(text.utf8.count))
        bytes += text.utf8
    }

    mutating func field(_ number: UInt64, _ message: Message) {
        varint(number << 3 | 2)
        varint(UInt64(message.bytes.count))
        bytes += message.bytes
    }
}
