// Undoing what a Pushgateway undoes behind percent-encoding: base64 of values, and U__ escapes of names.
// Works in place, since nothing gets longer; PushPath calls it, on a copy of the path that it owns.

/// Bytes in which parts of a path are decoded in place, given and returned as ranges.
struct LabelDecoder {
    let bytes: UnsafeMutableRawBufferPointer

    /// What a name ends with whose value is base64.
    private static let base64Suffix: StaticString = "@base64"

    /// Decodes one label as Pushgateway 1.11 does, which from 1.5 on only takes more than it did.
    ///
    /// A name is any UTF-8 that does not begin with `__`, as with `--push.enable-utf8-names`; without that flag it is
    /// a Pushgateway that refuses more, and for what it takes the key is as good. Names that begin with `U__` are
    /// unescaped where they can be.
    ///
    /// - Returns: nil where a Pushgateway would answer 400.
    func decode(_ label: LabelSpan) -> LabelSpan? {
        var name = label.name
        var value = label.value
        let isBase64 = ends(name, with: LabelDecoder.base64Suffix)
        if isBase64 { name = name.lowerBound..<name.upperBound - LabelDecoder.base64Suffix.utf8CodeUnitCount }
        guard !name.isEmpty, isUTF8(UnsafeRawBufferPointer(rebasing: bytes[name])), !begins(name, with: "__") else {
            return nil
        }
        if let unescaped = unescapeName(name), !unescaped.isEmpty { name = unescaped }
        if isBase64 {
            guard let decoded = decodeBase64(value) else { return nil }
            value = decoded
        }
        return LabelSpan(name: name, value: value)
    }

    /// Decodes base64 of the URL alphabet, as Go's RawURLEncoding does after the padding is cut off: line breaks are
    /// skipped, left-over bits ignored.
    ///
    /// - Returns: nil for any other byte, or when a last character is too few bits for a byte.
    func decodeBase64(_ range: Range<Int>) -> Range<Int>? {
        var end = range.upperBound
        while end > range.lowerBound, bytes[end - 1] == UInt8(ascii: "=") { end -= 1 }
        var target = range.lowerBound
        var bits: UInt32 = 0
        var digits = 0
        for offset in range.lowerBound..<end {
            guard let value = base64Value(bytes[offset]) else {
                if bytes[offset] == UInt8(ascii: "\n") || bytes[offset] == UInt8(ascii: "\r") { continue }
                return nil
            }
            bits = bits << 6 | value
            digits += 1
            guard digits & 3 != 1 else { continue }
            // The second, third and fourth digit of a group of four each complete a byte.
            bytes[target] = UInt8(truncatingIfNeeded: bits >> UInt32(6 - 2 * ((digits - 1) & 3)))
            target += 1
        }
        return digits & 3 == 1 ? nil : range.lowerBound..<target
    }

    /// Undoes the escapes of a name that begins with `U__`, as `model.UnescapeName` of prometheus/common does: `__` is
    /// an underscore, and `_` HEX `_`, of at most five digits, a character.
    ///
    /// - Returns: nil, with the bytes as they were, for other names and where an escape is wrong.
    func unescapeName(_ range: Range<Int>) -> Range<Int>? {
        guard begins(range, with: "U__") else { return nil }
        let escaped = range.dropFirst(3)
        guard unescape(escaped, write: false) != nil else { return nil }
        return unescape(escaped, write: true)
    }

    private func unescape(_ range: Range<Int>, write: Bool) -> Range<Int>? {
        var target = range.lowerBound
        var offset = range.lowerBound
        func append(_ byte: UInt8) {
            if write { bytes[target] = byte }
            target += 1
        }
        while offset < range.upperBound {
            let byte = bytes[offset]
            offset += 1
            guard byte == UInt8(ascii: "_") else {
                append(byte)
                continue
            }
            guard offset < range.upperBound else { return nil }
            if bytes[offset] == UInt8(ascii: "_") {
                append(byte)
                offset += 1
                continue
            }
            guard let (scalar, next) = escapedScalar(offset..<range.upperBound) else { return nil }
            for unit in UTF8.encode(scalar).unsafelyUnwrapped { append(unit) }
            offset = next
        }
        return range.lowerBound..<target
    }

    /// The character that the digits at the start of a range stand for, and where the underscore behind them ends.
    private func escapedScalar(_ range: Range<Int>) -> (Unicode.Scalar, next: Int)? {
        var value: UInt32 = 0
        for offset in range.prefix(6) {
            if bytes[offset] == UInt8(ascii: "_") { return Unicode.Scalar(value).map { ($0, offset + 1) } }
            // As in the original, which sets the bit that makes capitals small and so takes some control bytes too.
            guard let digit = hexDigitValue(bytes[offset] | 0x20) else { return nil }
            value = value << 4 | UInt32(digit)
        }
        return nil
    }

    private func begins(_ range: Range<Int>, with text: StaticString) -> Bool {
        range.count >= text.utf8CodeUnitCount && matches(text, at: range.lowerBound)
    }

    private func ends(_ range: Range<Int>, with text: StaticString) -> Bool {
        range.count >= text.utf8CodeUnitCount && matches(text, at: range.upperBound - text.utf8CodeUnitCount)
    }

    private func matches(_ text: StaticString, at start: Int) -> Bool {
        for index in 0..<text.utf8CodeUnitCount where bytes[start + index] != text.utf8Start[index] { return false }
        return true
    }
}

/// What a digit of base64's URL alphabet stands for (RFC 4648, section 5).
@inline(__always)
private func base64Value(_ byte: UInt8) -> UInt32? {
    switch byte {
    case UInt8(ascii: "A")...UInt8(ascii: "Z"): UInt32(byte - UInt8(ascii: "A"))
    case UInt8(ascii: "a")...UInt8(ascii: "z"): UInt32(byte - UInt8(ascii: "a")) + 26
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt32(byte - UInt8(ascii: "0")) + 52
    case UInt8(ascii: "-"): 62
    case UInt8(ascii: "_"): 63
    default: nil
    }
}
