// Which names of labels a scrape would make one of. Pushgateway 1.11 takes any name in protobuf, and writes `_` for what the text
// format has no letter for. The guard's judge of bodies tells it the labels of each metric.

/// The names of labels that scrapes cannot tell, and with which others they would be one.
struct LabelNames {
    /// Names that are not letters, digits and `_` alone, or that have a digit in front, and how Pushgateway 1.11 writes them; some,
    /// not all of many.
    private(set) var odd: [(name: [UInt8], escaped: [UInt8])] = []
    /// Those of the present metric.
    private var metric: [UnsafeRawBufferPointer] = []
    private var isOdd = false

    mutating func add(_ name: UnsafeRawBufferPointer) {
        metric.append(name)
        if !LabelNames.isPlain(name) { isOdd = true }
    }

    /// Ends the present metric; one of two names that would be one, nil where there is none.
    mutating func endMetric() -> [UInt8]? {
        defer {
            metric.removeAll(keepingCapacity: true)
            isOdd = false
        }
        guard isOdd else { return nil }
        var seen: Set<[UInt8]> = []
        var clashing: [UInt8]?
        for name in metric {
            let escaped = LabelNames.escaped(name)
            if !LabelNames.isPlain(name), odd.count < LabelNames.mostKept { odd.append((Array(name), escaped)) }
            if !seen.insert(escaped).inserted { clashing = Array(name) }
        }
        return clashing
    }

    static func isPlain(_ name: UnsafeRawBufferPointer) -> Bool {
        guard let first = name.first, first &- UInt8(ascii: "0") >= 10 else { return false }
        return name.allSatisfy { byte in
            (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte &- UInt8(ascii: "0") < 10 || byte == UInt8(ascii: "_")
        }
    }

    /// As prometheus/common escapes names with underscores: one for each character.
    static func escaped(_ name: UnsafeRawBufferPointer) -> [UInt8] {
        var escaped: [UInt8] = []
        for (offset, byte) in name.enumerated() where byte & 0xC0 != 0x80 {
            let isLetter = (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte == UInt8(ascii: ":")
            let isKept = isLetter || offset > 0 && byte &- UInt8(ascii: "0") < 10
            escaped.append(isKept ? byte : UInt8(ascii: "_"))
        }
        return escaped
    }

    private static let mostKept = 64
}
