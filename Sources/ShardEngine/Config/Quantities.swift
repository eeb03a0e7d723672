// Durations and sizes as people write them: `1m30s`, `16MiB`.
// The kinds of configuration values read with these, and print the limits in their messages with them.

/// What is wrong with a value, in words that follow the value itself.
struct Mistake: Error, Equatable {
    let reason: String

    init(_ reason: String) {
        self.reason = reason
    }
}

enum DurationText {
    /// The largest unit first: a duration names each at most once, in this order.
    private static let units: [(name: Substring, nanoseconds: UInt64)] = [
        ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000),
    ]

    /// Reads `250ms`, `1s`, `1m30s`, `2h`, or `0`.
    static func parse(_ text: String) throws(Mistake) -> TimeSpan {
        guard text != "0" else { return .zero }
        var rest = Substring(text)
        var unitsLeft = units[...]
        var total: UInt64 = 0
        repeat {
            let (number, unit) = try takeQuantity(from: &rest)
            guard !unit.isEmpty else { throw Mistake("has no unit") }
            guard let index = unitsLeft.firstIndex(where: { $0.name == unit }) else {
                let isKnown = units.contains { $0.name == unit }
                throw Mistake(isKnown ? "has its units out of order" : "has a unit that is not known")
            }
            let (part, tooLarge) = number.multipliedReportingOverflow(by: unitsLeft[index].nanoseconds)
            let (sum, tooLong) = total.addingReportingOverflow(part)
            guard !tooLarge, !tooLong else { throw Mistake("is out of range") }
            total = sum
            unitsLeft = unitsLeft[(index + 1)...]
        } while !rest.isEmpty
        return TimeSpan(nanoseconds: total)
    }

    /// The span in the largest unit that measures it without a rest, as `parse` reads it.
    static func text(_ span: TimeSpan) -> String {
        guard span != .zero else { return "0s" }
        let unit = units.first { span.nanoseconds % $0.nanoseconds == 0 }
        return unit.map { "\(span.nanoseconds / $0.nanoseconds)\($0.name)" } ?? "\(span.nanoseconds)ns"
    }
}

enum SizeText {
    private static let units: [(name: Substring, bytes: Int)] = [
        ("GiB", 1 << 30), ("GB", 1_000_000_000), ("MiB", 1 << 20), ("MB", 1_000_000), ("KiB", 1 << 10), ("kB", 1000),
        ("KB", 1000), ("B", 1), ("", 1),
    ]

    /// Reads `16MiB`, `1MB`, or a plain count of bytes.
    static func parse(_ text: String) throws(Mistake) -> Int {
        var rest = Substring(text)
        let (number, name) = try takeQuantity(from: &rest)
        guard rest.isEmpty else { throw Mistake("is not one number with a unit") }
        guard let unit = units.first(where: { $0.name == name }) else { throw Mistake("has a unit that is not known") }
        let (bytes, isTooLarge) = Int(clamping: number).multipliedReportingOverflow(by: unit.bytes)
        guard !isTooLarge else { throw Mistake("is out of range") }
        return bytes
    }

    /// The size in the largest power of 1024 that measures it without a rest, as `parse` reads it.
    static func text(_ bytes: Int) -> String {
        let unit = units.first { bytes > 0 && $0.bytes.nonzeroBitCount == 1 && bytes % $0.bytes == 0 }
        return unit.map { "\(bytes / $0.bytes)\($0.name)" } ?? "\(bytes)B"
    }
}

/// Takes a run of digits and the run of letters after it off the front.
private func takeQuantity(from rest: inout Substring) throws(Mistake) -> (number: UInt64, unit: Substring) {
    let digits = rest.prefix { $0.isASCII && $0.isNumber }
    guard !digits.isEmpty else { throw Mistake("is not a whole number with a unit") }
    guard let number = UInt64(digits) else { throw Mistake("is out of range") }
    rest = rest[digits.endIndex...]
    let unit = rest.prefix { $0.isASCII && $0.isLetter }
    rest = rest[unit.endIndex...]
    guard rest.isEmpty || (rest.first?.isNumber ?? false) else { throw Mistake("is not a whole number with a unit") }
    return (number, unit)
}
