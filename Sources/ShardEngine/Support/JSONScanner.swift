// Reads JSON front to back without building a tree of it: what is not wanted is stepped over. Listings of shards are read
// with it, which may be tens of megabytes of which little is of use.

/// A place in a JSON text (RFC 8259), and what stands there. Reading moves on; a copy of it is a place to come back to.
///
/// After a malformed byte `isMalformed` is true, and every further read gives nothing and moves nowhere.
struct JSONScanner {
    private let bytes: UnsafeRawBufferPointer
    private var offset = 0
    private(set) var isMalformed = false
    private var depth = 0
    /// Objects and arrays within each other; what a peer sends must not use up the stack.
    private static let mostDepth = 64

    /// - Parameter bytes: must outlive the scanner.
    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    /// The first byte of the next value: `{`, `[`, `"`, a digit, … ; 0 at the end.
    mutating func peek() -> UInt8 {
        skipSpace()
        return isMalformed || offset >= bytes.count ? 0 : bytes[offset]
    }

    /// Reads an object: calls `body` with each name, which must read or skip the value.
    mutating func object(_ body: (inout JSONScanner, String) -> Void) {
        elements(from: 0x7B, to: 0x7D) { scanner in
            let name = scanner.string()
            scanner.expect(0x3A)
            if !scanner.isMalformed { body(&scanner, name) }
        }
    }

    /// Reads an array: calls `body` for each element, which it must read or skip.
    mutating func array(_ body: (inout JSONScanner) -> Void) {
        elements(from: 0x5B, to: 0x5D, body)
    }

    private mutating func elements(from open: UInt8, to close: UInt8, _ body: (inout JSONScanner) -> Void) {
        depth += 1
        defer { depth -= 1 }
        guard depth <= JSONScanner.mostDepth else { return isMalformed = true }
        expect(open)
        if peek() == close { return expect(close) }
        while !isMalformed {
            body(&self)
            if peek() == 0x2C { expect(0x2C) } else { return expect(close) }
        }
    }

    /// Reads a string; empty when there is none.
    mutating func string() -> String {
        guard let raw = rawString() else { return "" }
        guard raw.contains(0x5C) else { return String(decoding: raw, as: UTF8.self) }
        return unescaped(raw)
    }

    /// Reads `true` or `false`.
    mutating func boolean() -> Bool {
        let isTrue = peek() == 0x74
        skip()
        return isTrue
    }

    /// Steps over the next value, whatever it is.
    mutating func skip() {
        switch peek() {
        case 0x7B: object { scanner, _ in scanner.skip() }
        case 0x5B: array { $0.skip() }
        case 0x22: _ = rawString()
        case 0x2D, 0x30...0x39, 0x61...0x7A:
            while offset < bytes.count, JSONScanner.isLiteral(bytes[offset]) { offset += 1 }
        default: isMalformed = true
        }
    }

    /// Whether nothing but space is left.
    mutating func isAtEnd() -> Bool {
        skipSpace()
        return !isMalformed && offset == bytes.count
    }

    private static func isLiteral(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x61...0x7A, 0x45, 0x2B, 0x2D, 0x2E: true
        default: false
        }
    }

    private mutating func skipSpace() {
        while offset < bytes.count, bytes[offset] == 0x20 || (0x09...0x0D).contains(bytes[offset]) { offset += 1 }
    }

    private mutating func expect(_ byte: UInt8) {
        guard peek() == byte else { return isMalformed = true }
        offset += 1
    }

    /// What stands between the next two quotes.
    private mutating func rawString() -> UnsafeRawBufferPointer? {
        expect(0x22)
        guard !isMalformed else { return nil }
        let start = offset
        while let quote = index(of: 0x22, in: bytes, from: offset) {
            var slashes = quote
            while slashes > start, bytes[slashes - 1] == 0x5C { slashes -= 1 }
            offset = quote + 1
            if (quote - slashes).isMultiple(of: 2) { return UnsafeRawBufferPointer(rebasing: bytes[start..<quote]) }
        }
        isMalformed = true
        return nil
    }

    private mutating func unescaped(_ raw: UnsafeRawBufferPointer) -> String {
        var text = ""
        var plain = 0
        var index = 0
        while index < raw.count {
            guard raw[index] == 0x5C else {
                index += 1
                continue
            }
            text += String(decoding: raw[plain..<index], as: UTF8.self)
            index += 1
            appendEscape(raw, &index, to: &text)
            index = min(index, raw.count)
            plain = index
        }
        return text + String(decoding: raw[plain...], as: UTF8.self)
    }

    private mutating func appendEscape(_ raw: UnsafeRawBufferPointer, _ index: inout Int, to text: inout String) {
        defer { index += 1 }
        switch raw[index] {
        case 0x22, 0x2F, 0x5C: text.unicodeScalars.append(Unicode.Scalar(raw[index]))
        case 0x62: text += "\u{8}"
        case 0x66: text += "\u{C}"
        case 0x6E: text += "\n"
        case 0x72: text += "\r"
        case 0x74: text += "\t"
        case 0x75: text.unicodeScalars.append(codePoint(raw, &index))
        default: isMalformed = true
        }
    }

    /// The character of `\u` and four digits, or of two such; `index` is at the `u`, and afterwards at the last digit.
    private mutating func codePoint(_ raw: UnsafeRawBufferPointer, _ index: inout Int) -> Unicode.Scalar {
        let first = codeUnit(raw, index + 1)
        index += 4
        guard 0xD800..<0xDC00 ~= first, index + 2 < raw.count, raw[index + 1] == 0x5C, raw[index + 2] == 0x75 else {
            return Unicode.Scalar(first) ?? "\u{FFFD}"
        }
        let second = codeUnit(raw, index + 3)
        guard 0xDC00..<0xE000 ~= second else { return "\u{FFFD}" }
        index += 6
        return Unicode.Scalar(0x10000 + (first - 0xD800) << 10 + (second - 0xDC00)) ?? "\u{FFFD}"
    }

    private mutating func codeUnit(_ raw: UnsafeRawBufferPointer, _ start: Int) -> UInt32 {
        guard start + 4 <= raw.count else {
            isMalformed = true
            return 0
        }
        return (start..<start + 4).reduce(0) { value, index in
            guard let digit = hexDigitValue(raw[index]) else { return value << 4 }
            return value << 4 | UInt32(digit)
        }
    }
}
