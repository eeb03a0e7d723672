// Goes through a body in the text format, byte by byte or eight at a time. The reader of text has one for each body.

/// A place in a body that ends with a line feed. No part of a line goes beyond a line feed, so what stops at one needs no other
/// bound.
struct TextCursor {
    let base: UnsafeRawPointer
    /// Behind the last line feed.
    let end: Int
    var offset = 0

    static let lineFeed: UInt8 = 0x0A

    /// The next byte.
    var byte: UInt8 {
        @inline(__always) get { base.load(fromByteOffset: offset, as: UInt8.self) }
    }

    @inline(__always)
    func bytes(from start: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: base + start, count: offset &- start)
    }

    /// Whether these bytes are next, and a byte behind them is in the body.
    @inline(__always)
    func isNext(_ bytes: UnsafeRawPointer, _ count: Int) -> Bool {
        end &- offset > count && areSame(bytes, base + offset, count)
    }

    /// The byte that is so far ahead.
    @inline(__always)
    func byte(ahead distance: Int) -> UInt8 {
        base.load(fromByteOffset: offset &+ distance, as: UInt8.self)
    }

    @inline(__always)
    mutating func skipBlanks() {
        while TextCursor.isBlank(byte) { offset &+= 1 }
    }

    /// Ends a line that has been read up to its line feed.
    @inline(__always)
    mutating func endLine() -> Bool {
        offset &+= 1
        return true
    }

    /// Takes what comes before the next blank or the line's end.
    mutating func takeWord() -> UnsafeRawBufferPointer {
        let start = offset
        while !TextCursor.isBlank(byte), byte != TextCursor.lineFeed { offset &+= 1 }
        return bytes(from: start)
    }

    /// Takes what is left of the line.
    mutating func takeLine() -> UnsafeRawBufferPointer {
        let start = offset
        offset = index(of: TextCursor.lineFeed, in: UnsafeRawBufferPointer(start: base, count: end), from: start) ?? end
        return bytes(from: start)
    }

    /// Takes the name of a metric, which may have colons, or of a label; none where there is none.
    mutating func takeName(withColons: Bool) -> UnsafeRawBufferPointer {
        let start = offset
        guard byte &- UInt8(ascii: "0") >= 10 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        while TextCursor.isPartOfName(byte), withColons || byte != UInt8(ascii: ":") { offset &+= 1 }
        return offset > start ? bytes(from: start) : UnsafeRawBufferPointer(start: nil, count: 0)
    }

    /// Takes the rest of the line, if it is a number in digits, of which most are.
    @inline(__always)
    mutating func takePlainValue() -> Bool {
        var place = offset
        var next = base.load(fromByteOffset: place, as: UInt8.self)
        while next &- UInt8(ascii: "0") < 10 {
            place &+= 1
            next = base.load(fromByteOffset: place, as: UInt8.self)
        }
        var digits = place &- offset
        if next == UInt8(ascii: ".") {
            repeat {
                place &+= 1
                next = base.load(fromByteOffset: place, as: UInt8.self)
            } while next &- UInt8(ascii: "0") < 10
            digits = place &- offset &- 1
        }
        guard next == TextCursor.lineFeed, digits > 0, digits <= TextCursor.mostPlainDigits else { return false }
        offset = place &+ 1
        return true
    }

    /// So many digits are never too large for a double.
    private static let mostPlainDigits = 300

    /// Takes a label's value, which stands between two quotes, of which the first is the next byte; nil where it is not right, or
    /// has escapes.
    @inline(__always)
    mutating func takePlainLabel() -> UnsafeRawBufferPointer? {
        let start = offset &+ 1
        var place = start
        var bits: UInt64 = 0
        while place &+ 8 <= end {
            let word = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: place, as: UInt64.self))
            let found = TextCursor.stops(word)
            if found != 0 {
                // A mark may be wrong only behind another one.
                bits |= word & (found &- 1)
                place &+= found.trailingZeroBitCount >> 3
                break
            }
            bits |= word
            place &+= 8
        }
        var byte = base.load(fromByteOffset: place, as: UInt8.self)
        while byte != UInt8(ascii: "\"") {
            guard byte != UInt8(ascii: "\\"), byte != TextCursor.lineFeed else { return nil }
            bits |= UInt64(byte)
            place &+= 1
            byte = base.load(fromByteOffset: place, as: UInt8.self)
        }
        let text = UnsafeRawBufferPointer(start: base + start, count: place &- start)
        guard bits & 0x8080_8080_8080_8080 == 0 || isUTF8(text) else { return nil }
        offset = place &+ 1
        return text
    }

    /// Marks the high bits of the quotes, backslashes and line feeds in eight bytes, and perhaps of some behind one of them (Warren,
    /// Hacker's Delight, section 6-1).
    @inline(__always)
    private static func stops(_ word: UInt64) -> UInt64 {
        let (low, high): (UInt64, UInt64) = (0x0101_0101_0101_0101, 0x8080_8080_8080_8080)
        let (quotes, slashes, ends) = (word ^ 0x22 &* low, word ^ 0x5C &* low, word ^ 0x0A &* low)
        return ((quotes &- low) & ~quotes | (slashes &- low) & ~slashes | (ends &- low) & ~ends) & high
    }

    @inline(__always)
    static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    /// A letter, a digit, `_` or `:`.
    @inline(__always)
    static func isPartOfName(_ byte: UInt8) -> Bool {
        // One bit for each byte below 128.
        let bits: UInt64 = byte < 64 ? 0x07FF_0000_0000_0000 : 0x07FF_FFFE_87FF_FFFE
        return byte < 128 && bits >> UInt64(byte & 63) & 1 == 1
    }
}
