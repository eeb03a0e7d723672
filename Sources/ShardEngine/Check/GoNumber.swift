// Which words Go's parsers take for numbers. The reader of a text body's contents asks, for values and timestamps.
import Glibc

/// Numbers as Pushgateway's parser of the text format takes them.
enum GoNumber {
    /// Whether `strconv.ParseFloat` takes it. The parser of the text format allows no `_` and no `p`, and so no hexadecimal
    /// number either.
    static func isFloat(_ text: UnsafeRawBufferPointer) -> Bool {
        let signLength = hasSign(text) ? 1 : 0
        let start = digitsEnd(text, from: signLength) { $0 == UInt8(ascii: "0") }
        let wholeEnd = digitsEnd(text, from: start)
        var end = wholeEnd
        var digitCount = wholeEnd - signLength
        if end < text.count, text[end] == UInt8(ascii: ".") {
            let fraction = end + 1
            end = digitsEnd(text, from: fraction)
            digitCount += end - fraction
        }
        guard digitCount > 0 else { return isWord(text, signLength: signLength) }
        var exponent = 0
        if end < text.count, text[end] | 0x20 == UInt8(ascii: "e") {
            guard let (number, after) = self.exponent(text, from: end + 1) else { return false }
            (exponent, end) = (number, after)
        }
        guard end == text.count else { return false }
        // Go refuses what is too large for a double, and takes what is too small for nought.
        return wholeEnd - start + exponent <= 308 || isFinite(text)
    }

    /// Whether `strconv.ParseInt` takes it in base 10 for 64 bits.
    static func isInteger(_ text: UnsafeRawBufferPointer) -> Bool {
        guard let first = text.first else { return false }
        let isNegative = first == UInt8(ascii: "-")
        let digits = text.dropFirst(hasSign(text) ? 1 : 0)
        guard !digits.isEmpty else { return false }
        let limit: UInt64 = isNegative ? 1 << 63 : 1 << 63 - 1
        var number: UInt64 = 0
        for byte in digits {
            guard byte &- UInt8(ascii: "0") < 10 else { return false }
            let (product, isTooLarge) = number.multipliedReportingOverflow(by: 10)
            let (sum, isLarger) = product.addingReportingOverflow(UInt64(byte &- UInt8(ascii: "0")))
            guard !isTooLarge, !isLarger, sum <= limit else { return false }
            number = sum
        }
        return true
    }

    private static func hasSign(_ text: UnsafeRawBufferPointer) -> Bool {
        text.first == UInt8(ascii: "+") || text.first == UInt8(ascii: "-")
    }

    @inline(__always)
    private static func digitsEnd(
        _ text: UnsafeRawBufferPointer,
        from start: Int,
        where isDigit: (UInt8) -> Bool = { $0 &- UInt8(ascii: "0") < 10 }
    ) -> Int {
        var end = start
        while end < text.count, isDigit(text[end]) { end += 1 }
        return end
    }

    /// The number behind an `e`, and where it ends; nil where there is none, and for one that no client writes.
    private static func exponent(_ text: UnsafeRawBufferPointer, from start: Int) -> (Int, end: Int)? {
        let isNegative = start < text.count && text[start] == UInt8(ascii: "-")
        let hasSign = isNegative || start < text.count && text[start] == UInt8(ascii: "+")
        let digits = start + (hasSign ? 1 : 0)
        let end = digitsEnd(text, from: digits)
        guard end > digits else { return nil }
        var number = 0
        for index in digits..<end {
            number = number * 10 + Int(text[index] &- UInt8(ascii: "0"))
            // From here on Go does not count on.
            number = min(number, 10_000)
        }
        return (isNegative ? -number : number, end)
    }

    private static func isWord(_ text: UnsafeRawBufferPointer, signLength: Int) -> Bool {
        let word = UnsafeRawBufferPointer(rebasing: text[signLength...])
        if equalsIgnoringCase(word, "inf") || equalsIgnoringCase(word, "infinity") { return true }
        return signLength == 0 && equalsIgnoringCase(word, "nan")
    }

    /// Whether a number in decimal digits is not too large for a double.
    private static func isFinite(_ text: UnsafeRawBufferPointer) -> Bool {
        var word = text.map { CChar(truncatingIfNeeded: $0) }
        word.append(0)
        return word.withUnsafeBufferPointer { word in
            word.baseAddress.map { strtod($0, nil).isFinite } ?? false
        }
    }
}
