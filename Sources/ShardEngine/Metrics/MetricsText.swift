// Writes metrics in Prometheus' text format, version 0.0.4. The exposition fills it family by family.
import Glibc

/// A text exposition under construction.
struct MetricsText: ~Copyable {
    /// The kinds of family that shardd has.
    enum Kind: String {
        case counter, gauge, histogram
    }

    private var text = ByteBuffer(capacity: 65536)
    private var name: StaticString = ""

    /// The text so far; valid until the next change.
    var bytes: UnsafeRawBufferPointer { text.readable }

    /// Begins a family; samples that follow belong to it.
    mutating func family(_ name: StaticString, _ kind: Kind, _ help: StaticString) {
        self.name = name
        text.append("# HELP ")
        text.append(name)
        text.append(byte: 0x20)
        text.append(help)
        text.append("\n# TYPE ")
        text.append(name)
        text.append(byte: 0x20)
        text.append(kind.rawValue)
        text.append("\n")
    }

    /// Adds a sample of the present family; labels come in pairs of name and value.
    mutating func sample(_ value: Double, suffix: StaticString = "", labels: [(StaticString, String)] = []) {
        text.append(name)
        text.append(suffix)
        var separator: StaticString = "{"
        for (label, value) in labels {
            text.append(separator)
            text.append(label)
            text.append("=\"")
            appendEscaped(value)
            text.append("\"")
            separator = ","
        }
        text.append(labels.isEmpty ? " " : "} ")
        append(value)
        text.append("\n")
    }

    /// Adds the samples of a histogram; the labels are those besides `le`.
    mutating func histogram(_ histogram: Histogram, labels: [(StaticString, String)] = []) {
        var total: UInt64 = 0
        for (index, count) in histogram.counts.enumerated() {
            total += count
            let isLast = index == Histogram.bounds.count
            let bound = isLast ? "+Inf" : shortest(Double(Histogram.bounds[index]) / 1e9)
            sample(Double(total), suffix: "_bucket", labels: labels + [("le", bound)])
        }
        sample(histogram.sum.seconds, suffix: "_sum", labels: labels)
        sample(Double(total), suffix: "_count", labels: labels)
    }

    private mutating func append(_ value: Double) {
        if value >= 0, value < 1e15, value == value.rounded() {
            text.append(decimal: Int(value))
        } else {
            text.append(shortest(value))
        }
    }

    private func shortest(_ value: Double) -> String {
        value == value.rounded() && abs(value) < 1e15 ? String(Int(value)) : String(value)
    }

    private mutating func appendEscaped(_ value: String) {
        for byte in value.utf8 {
            switch byte {
            case 0x22: text.append("\\\"")
            case 0x5C: text.append("\\\\")
            case 0x0A: text.append("\\n")
            default: text.append(byte: byte)
            }
        }
    }
}
