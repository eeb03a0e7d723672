// Reads a body in Prometheus's text format, in one pass over the bytes as they lie, eight at a time. The guard is its
// visitor; what else judges bodies can be one, too.
//
// It goes by the parser of Pushgateway (prometheus/common, expfmt/text_parse.go) and is never stricter: what that takes in
// any version from 1.5 to 1.11, this reads in the same way. From the first line on that no version takes it stops, as the
// shard will refuse the whole body.

/// What a reader of text calls, line by line. Each method tells whether to read on.
///
/// Where a name ends is for those to find out who need to know: it takes longer than to find where a line ends.
protocol TextVisitor: ~Copyable {
    /// `# TYPE FAMILY WORD`; the bytes begin with the family's name.
    mutating func typeLine(_ line: TextLine, family: UnsafeRawBufferPointer) -> Bool
    /// `# HELP FAMILY TEXT`; the bytes begin with the family's name.
    mutating func helpLine(_ line: TextLine, family: UnsafeRawBufferPointer) -> Bool
    /// A sample; the bytes begin with its metric's name.
    mutating func sampleLine(_ line: TextLine, name: UnsafeRawBufferPointer) -> Bool
    /// The same of a line that begins with a name in quotes, or has it in braces.
    mutating func quotedSampleLine(_ line: TextLine, name: UnsafeRawBufferPointer) -> Bool
}

/// A line that is neither empty nor a mere comment.
struct TextLine {
    /// From its first byte that is no blank up to, and without, the line feed.
    let bytes: UnsafeRawBufferPointer
    /// Where it begins in the body.
    let offset: Int
    let isASCII: Bool
}

/// Reads bodies in the text format.
enum TextReader {
    /// Has the visitor see each line until it has seen enough.
    @inline(__always)
    static func read<Visitor: TextVisitor & ~Copyable>(_ body: UnsafeRawBufferPointer, _ visitor: inout Visitor) {
        guard let base = body.baseAddress else { return }
        var offset = 0
        while true {
            while offset < body.count, isGap(base.load(fromByteOffset: offset, as: UInt8.self)) { offset &+= 1 }
            guard offset < body.count else { return }
            let first = base.load(fromByteOffset: offset, as: UInt8.self)
            let (end, isASCII) = lineEnd(base, from: offset, count: body.count)
            let line = TextLine(
                bytes: UnsafeRawBufferPointer(start: base + offset, count: end &- offset),
                offset: offset,
                isASCII: isASCII
            )
            offset = end &+ 1
            let goesOn: Bool
            if isNameStart(first) {
                goesOn = visitor.sampleLine(line, name: line.bytes)
            } else {
                switch first {
                case UInt8(ascii: "#"): goesOn = readComment(line, &visitor)
                case UInt8(ascii: "{"): goesOn = readBraces(line, &visitor)
                case UInt8(ascii: "\""): goesOn = visitor.quotedSampleLine(line, name: line.bytes)
                default: goesOn = false
                }
            }
            guard goesOn else { return }
        }
    }

    /// Where the line ends that a byte is in, and whether it is ASCII from there on.
    @inline(__always)
    private static func lineEnd(_ base: UnsafeRawPointer, from start: Int, count: Int) -> (Int, isASCII: Bool) {
        var offset = start
        var bits: UInt64 = 0
        while offset &+ 8 <= count {
            let word = UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
            let lineFeeds = word ^ 0x0A0A_0A0A_0A0A_0A0A
            // The lowest bit that is set is that of the first line feed (Warren, Hacker's Delight, section 6-1).
            let found = (lineFeeds &- 0x0101_0101_0101_0101) & ~lineFeeds & 0x8080_8080_8080_8080
            if found != 0 {
                bits |= word & (found &- 1)
                return (offset &+ found.trailingZeroBitCount >> 3, bits & 0x8080_8080_8080_8080 == 0)
            }
            bits |= word
            offset &+= 8
        }
        while offset < count {
            let byte = base.load(fromByteOffset: offset, as: UInt8.self)
            if byte == 0x0A { break }
            bits |= UInt64(byte)
            offset &+= 1
        }
        return (offset, bits & 0x8080_8080_8080_8080 == 0)
    }

    // MARK: Samples

    /// A sample whose name stands among its labels, as Pushgateway 1.11 reads it: `{"name",label="value"} 1`. Where there are
    /// several names the visitor sees each.
    private static func readBraces<Visitor: TextVisitor & ~Copyable>(_ line: TextLine, _ visitor: inout Visitor) -> Bool
    {
        let bytes = line.bytes
        var offset = 1
        var hasName = false
        while true {
            offset = skipBlanks(bytes, from: offset)
            guard offset < bytes.count, bytes[offset] != UInt8(ascii: "}") else { return hasName }
            let end = max(offset + 1, nameEnd(bytes, from: offset))
            let token = UnsafeRawBufferPointer(rebasing: bytes[offset..<end])
            offset = skipBlanks(bytes, from: end)
            if offset < bytes.count, bytes[offset] == UInt8(ascii: "=") {
                offset = skipBlanks(bytes, from: offset + 1)
                guard offset < bytes.count, bytes[offset] == UInt8(ascii: "\"") else { return false }
                offset = skipBlanks(bytes, from: quoteEnd(bytes, from: offset))
            } else {
                hasName = true
                guard visitor.quotedSampleLine(line, name: token) else { return false }
            }
            if offset < bytes.count, bytes[offset] == UInt8(ascii: ",") { offset += 1 }
        }
    }

    /// Where what follows begins behind something in quotes.
    private static func quoteEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var end = start + 1
        while end < bytes.count, bytes[end] != UInt8(ascii: "\"") { end += bytes[end] == UInt8(ascii: "\\") ? 2 : 1 }
        return min(end + 1, bytes.count)
    }

    // MARK: Comments

    @inline(__always)
    private static func readComment<Visitor: TextVisitor & ~Copyable>(_ line: TextLine, _ visitor: inout Visitor)
        -> Bool
    {
        let bytes = line.bytes
        var offset = skipBlanks(bytes, from: 1)
        // The keyword and the blank behind it; without that blank there is no family.
        guard offset &+ 5 < bytes.count, isBlank(bytes[offset &+ 4]) else { return true }
        let isType = begins(bytes, at: offset, with: "TYPE")
        guard isType || begins(bytes, at: offset, with: "HELP") else { return true }
        offset = skipBlanks(bytes, from: offset &+ 5)
        guard offset < bytes.count else { return true }
        let family = UnsafeRawBufferPointer(rebasing: bytes[offset...])
        return isType ? visitor.typeLine(line, family: family) : visitor.helpLine(line, family: family)
    }

    /// Takes apart what comes behind the keyword of a TYPE line: the family, and the word for its type.
    static func typeParts(
        _ bytes: UnsafeRawBufferPointer
    ) -> (family: UnsafeRawBufferPointer, word: UnsafeRawBufferPointer) {
        var end = nameEnd(bytes, from: 0)
        while end < bytes.count, !isBlank(bytes[end]) { end += 1 }
        let word = UnsafeRawBufferPointer(rebasing: bytes[skipBlanks(bytes, from: end)...])
        return (UnsafeRawBufferPointer(rebasing: bytes[..<end]), word)
    }

    // MARK: Names

    /// Where the name of a family or label ends, as Pushgateway 1.11 reads it: it may be in quotes, and quotes may begin within
    /// it as well; where they are closed it has ended.
    static func nameEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var end = start
        while end < bytes.count, isNamePart(bytes[end]) { end += 1 }
        return end < bytes.count && bytes[end] == UInt8(ascii: "\"") ? quoteEnd(bytes, from: end) : end
    }

    /// Calls `body` with the name that the bytes begin with, without its quotes and escapes.
    static func withName<Result>(
        _ bytes: UnsafeRawBufferPointer,
        _ body: (UnsafeRawBufferPointer) -> Result
    ) -> Result {
        let end = nameEnd(bytes, from: 0)
        let name = UnsafeRawBufferPointer(rebasing: bytes[..<end])
        guard let quote = name.firstIndex(of: UInt8(ascii: "\"")) else { return body(name) }
        var text = Array(name[..<quote])
        var isEscaped = false
        for byte in name[(quote + 1)...] {
            if isEscaped {
                text.append(byte == UInt8(ascii: "n") ? 0x0A : byte)
                isEscaped = false
            } else if byte == UInt8(ascii: "\\") {
                isEscaped = true
            } else if byte != UInt8(ascii: "\"") {
                text.append(byte)
            }
        }
        return text.withUnsafeBytes { body($0) }
    }

    // MARK: Bytes

    @inline(__always)
    private static func skipBlanks(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
        var offset = start
        while offset < bytes.count, isBlank(bytes[offset]) { offset += 1 }
        return offset
    }

    @inline(__always)
    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }

    /// A blank, or the end of a line that has nothing else.
    @inline(__always)
    private static func isGap(_ byte: UInt8) -> Bool { isBlank(byte) || byte == 0x0A }

    @inline(__always)
    private static func isNameStart(_ byte: UInt8) -> Bool {
        (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte == UInt8(ascii: "_") || byte == UInt8(ascii: ":")
    }

    @inline(__always)
    private static func isNamePart(_ byte: UInt8) -> Bool {
        isNameStart(byte) || byte &- UInt8(ascii: "0") < 10
    }
}
