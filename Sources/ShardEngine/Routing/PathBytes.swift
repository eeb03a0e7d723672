// Reading the bytes of a URL path as Go's HTTP server reads them.
// PushPath walks paths with these; the grouping-key parser undoes percent-encoding with them.
import Glibc

/// What a byte of a path is to whoever walks it. Those that may end a walk come first.
enum PathByte {
    static let control: UInt8 = 0x21
    static let percent: UInt8 = 0x25
    static let slash: UInt8 = 0x2F
    static let digit: UInt8 = 0x61
    static let letter: UInt8 = 0x62
    static let other: UInt8 = 0x6F
    /// What a URL should not have without percent-encoding, by `validEncoded` of Go's net/url.
    static let unencoded: UInt8 = 0x75

    /// A letter or `_`, with which a label name may begin, or a digit, with which it may go on.
    @inline(__always)
    static func isNameByte(_ kind: UInt8) -> Bool { kind &- digit <= 1 }

    /// A slash, or what needs decoding or may not be.
    @inline(__always)
    static func mayEndSegment(_ kind: UInt8) -> Bool { kind < 0x30 }
}

/// The class of each byte; a string, because that is constant data which needs no set-up.
private let classes: StaticString = """
    !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!\
    uouuo%ooooooooo/aaaaaaaaaaoououu\
    obbbbbbbbbbbbbbbbbbbbbbbbbbououb\
    ubbbbbbbbbbbbbbbbbbbbbbbbbbuuuo!\
    uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu\
    uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu
    """

/// The class of a byte, one of `PathByte`'s.
@inline(__always)
func pathByteClass(_ byte: UInt8) -> UInt8 {
    classes.utf8Start[Int(byte)]
}

/// Whether Go's HTTP server takes a path that has escapes: without control bytes, which it answers 400, and without
/// segments for which its ServeMux answers 301.
///
/// Since Go 1.22 the mux looks at the path as it came, so that %2F%2F and %2E pass, unless something in it should have
/// been encoded; then, and always before 1.22, it looks at the decoded one. Taking more than the older ones take does
/// no harm.
func isTaken(raw: UnsafeRawBufferPointer, decoded: UnsafeRawBufferPointer) -> Bool {
    var isWellEncoded = true
    for byte in raw {
        switch pathByteClass(byte) {
        case PathByte.control: return false
        case PathByte.unencoded: isWellEncoded = false
        default: break
        }
    }
    return hasCleanSegments(isWellEncoded ? raw : decoded)
}

/// Whether the path begins with a slash and has no empty segment but the last, and none that is `.` or `..`.
func hasCleanSegments(_ path: UnsafeRawBufferPointer) -> Bool {
    guard path.first == PathByte.slash else { return false }
    var segmentStart = 1
    for offset in 1..<path.count where path[offset] == PathByte.slash {
        if offset == segmentStart || isDots(path[segmentStart..<offset]) { return false }
        segmentStart = offset + 1
    }
    return !isDots(path[segmentStart..<path.count])
}

/// Whether a segment is `.` or `..`.
@inline(__always)
func isDots(_ segment: Slice<UnsafeRawBufferPointer>) -> Bool {
    guard segment.count <= 2, segment.first == UInt8(ascii: ".") else { return false }
    return segment.last == UInt8(ascii: ".")
}

/// Whether there is a `%` in the path.
func hasEscapes(_ path: UnsafeRawBufferPointer) -> Bool {
    guard let start = path.baseAddress else { return false }
    return memchr(start, Int32(PathByte.percent), path.count) != nil
}

/// Undoes percent-encoding once, appending to `decoded`; `+` stays. False when a `%` begins no escape.
func percentDecode(_ path: UnsafeRawBufferPointer, into decoded: inout ByteBuffer) -> Bool {
    let target = decoded.reserve(path.count).assumingMemoryBound(to: UInt8.self)
    var length = 0
    var offset = 0
    while offset < path.count {
        guard let byte = decodedByte(path, &offset) else { return false }
        target[length] = byte
        length &+= 1
    }
    decoded.commit(length)
    return true
}

/// The byte at an offset with its percent-encoding undone, which moves the offset behind it; nil at the end of the path
/// and for a `%` that begins no escape.
@inline(__always)
func decodedByte(_ path: UnsafeRawBufferPointer, _ offset: inout Int) -> UInt8? {
    guard offset < path.count else { return nil }
    let byte = path[offset]
    offset &+= 1
    guard byte == PathByte.percent else { return byte }
    guard offset &+ 1 < path.count, let high = hexDigitValue(path[offset]), let low = hexDigitValue(path[offset &+ 1])
    else { return nil }
    offset &+= 2
    return high << 4 | low
}

/// Whether any of the bytes is beyond ASCII.
@inline(__always)
func hasBytesBeyondASCII(_ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let base = bytes.baseAddress else { return false }
    var bits: UInt64 = 0
    var offset = 0
    while offset &+ 8 <= bytes.count {
        bits |= base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
        offset &+= 8
    }
    while offset < bytes.count {
        bits |= UInt64(base.load(fromByteOffset: offset, as: UInt8.self))
        offset &+= 1
    }
    return bits & 0x8080_8080_8080_8080 != 0
}

/// Whether the bytes are UTF-8.
func isUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
    var offset = 0
    while offset < bytes.count {
        if offset + 8 <= bytes.count,
            bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self) & 0x8080_8080_8080_8080 == 0
        {
            offset += 8
            continue
        }
        guard let length = utf8SequenceLength(bytes, at: offset) else { return false }
        offset += length
    }
    return true
}

/// How many bytes the UTF-8 sequence at an offset takes; nil where there is none (Unicode 15, table 3-7).
func utf8SequenceLength(_ bytes: UnsafeRawBufferPointer, at offset: Int) -> Int? {
    let lead = bytes[offset]
    let length: Int
    var second: ClosedRange<UInt8> = 0x80...0xBF
    switch lead {
    case 0x00...0x7F: return 1
    case 0xC2...0xDF: length = 2
    case 0xE0: (length, second) = (3, 0xA0...0xBF)
    case 0xED: (length, second) = (3, 0x80...0x9F)
    case 0xE1...0xEF: length = 3
    case 0xF0: (length, second) = (4, 0x90...0xBF)
    case 0xF4: (length, second) = (4, 0x80...0x8F)
    case 0xF1...0xF3: length = 4
    default: return nil
    }
    guard offset + length <= bytes.count, second.contains(bytes[offset + 1]) else { return nil }
    for next in offset + 2..<offset + length where bytes[next] & 0xC0 != 0x80 { return nil }
    return length
}
