// Bytes of HTTP's grammar, and recognising a few words in bytes that arrive one at a time.
import Glibc

/// The first index, from `start` on, at which the byte stands.
@inline(__always)
func index(of byte: UInt8, in bytes: UnsafeRawBufferPointer, from start: Int = 0) -> Int? {
    guard start < bytes.count, let base = bytes.baseAddress else { return nil }
    guard let found = memchr(base + start, Int32(byte), bytes.count - start) else { return nil }
    return UnsafeRawPointer(found) - base
}

/// Whether the byte may be part of a token: a method or a header's name (RFC 9110, section 5.6.2).
@inline(__always)
func isTokenByte(_ byte: UInt8) -> Bool {
    // One bit for each byte below 128: letters, digits and !#$%&'*+-.^_`|~
    let bits: UInt64 = byte < 64 ? 0x03FF_6CFA_0000_0000 : 0x57FF_FFFF_C7FF_FFFE
    return byte < 128 && bits >> UInt64(byte & 63) & 1 == 1
}

/// The byte, in lower case where it is an ASCII letter.
@inline(__always)
func asciiLowercase(_ byte: UInt8) -> UInt8 {
    byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte
}

/// What a hexadecimal digit stands for; nil for any other byte.
@inline(__always)
func hexDigitValue(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x41...0x46: byte - 0x41 + 10
    case 0x61...0x66: byte - 0x61 + 10
    default: nil
    }
}

/// Eight bytes, each of this value.
@inline(__always)
private func eight(_ byte: UInt64) -> UInt64 { byte &* 0x0101_0101_0101_0101 }

/// Whether one of eight bytes is less than `limit`, which is at most 128 (Warren, Hacker's Delight, section 6-1).
@inline(__always)
private func anyLess(_ bytes: UInt64, _ limit: UInt64) -> Bool {
    (bytes &- eight(limit)) & ~bytes & eight(0x80) != 0
}

/// The length of the run of bytes, from `index` on, that are at least `first` and not DEL.
@inline(__always)
private func run(of bytes: UnsafeRawBufferPointer, from index: Int, first: UInt64) -> Int {
    guard let base = bytes.baseAddress else { return 0 }
    var end = index
    while end + 8 <= bytes.count {
        let next = base.loadUnaligned(fromByteOffset: end, as: UInt64.self)
        if anyLess(next, first) || anyLess(next ^ eight(0x7F), 1) { break }
        end += 8
    }
    while end < bytes.count {
        let byte = base.load(fromByteOffset: end, as: UInt8.self)
        if byte < first || byte == 0x7F { break }
        end += 1
    }
    return end - index
}

/// How many bytes from `index` on are neither control characters nor spaces.
func visibleRun(of bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
    run(of: bytes, from: index, first: 0x21)
}

/// How many bytes from `index` on may stand in a header's value; a tab ends the run, though it may.
func printableRun(of bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
    run(of: bytes, from: index, first: 0x20)
}

/// How many bytes from `index` on are token bytes.
func tokenRun(of bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
    guard let base = bytes.baseAddress else { return 0 }
    var end = index
    while end < bytes.count, isTokenByte(base.load(fromByteOffset: end, as: UInt8.self)) { end += 1 }
    return end - index
}

/// A word that arrives in pieces, kept in place as long as it is short.
struct ShortWord {
    /// How many bytes there were.
    private(set) var length = 0
    private var storage: (UInt64, UInt64, UInt64) = (0, 0, 0)

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        if length + bytes.count <= 24, let source = bytes.baseAddress {
            let start = length
            withUnsafeMutableBytes(of: &storage) { storage in
                guard let target = storage.baseAddress else { return }
                memcpy(target + start, source, bytes.count)
            }
        }
        length += bytes.count
    }

    mutating func append(_ byte: UInt8) {
        withUnsafeBytes(of: byte) { append($0) }
    }

    /// Whether it is the word, which has at most 24 bytes.
    func equals(_ word: StaticString) -> Bool {
        withBytes { ShardEngine.equals($0, word) }
    }

    /// Whether it is the word, in lower case and at most 24 bytes, when case does not count.
    func equalsIgnoringCase(_ word: StaticString) -> Bool {
        withBytes { ShardEngine.equalsIgnoringCase($0, word) }
    }

    /// Calls `body` with the bytes; with none when there were too many to keep.
    func withBytes<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: storage) { body(UnsafeRawBufferPointer(rebasing: $0[..<(length <= 24 ? length : 0)])) }
    }
}

/// Whether the bytes are the word.
@inline(__always)
func equals(_ bytes: UnsafeRawBufferPointer, _ word: StaticString) -> Bool {
    guard bytes.count == word.utf8CodeUnitCount, let base = bytes.baseAddress else { return false }
    return memcmp(base, word.utf8Start, bytes.count) == 0
}

/// Whether the bytes spell the word, whatever their case; the word is in lower case.
func equalsIgnoringCase(_ bytes: UnsafeRawBufferPointer, _ word: StaticString) -> Bool {
    guard bytes.count == word.utf8CodeUnitCount else { return false }
    let expected = word.utf8Start
    for index in 0..<bytes.count where asciiLowercase(bytes[index]) != expected[index] { return false }
    return true
}

/// Calls `body` with each element of a comma-separated list, without the space around it (RFC 9110, section 5.6.1).
func forEachToken(of list: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void) {
    var rest = list[...]
    while !rest.isEmpty {
        let end = rest.firstIndex(of: 0x2C) ?? rest.endIndex
        var token = rest[..<end]
        rest = rest[end...].dropFirst()
        while let first = token.first, first == 0x20 || first == 0x09 { token = token.dropFirst() }
        while let last = token.last, last == 0x20 || last == 0x09 { token = token.dropLast() }
        if !token.isEmpty { body(UnsafeRawBufferPointer(rebasing: token)) }
    }
}

/// Whether a comma-separated list has the word in it, whatever its case.
func containsToken(_ list: UnsafeRawBufferPointer, _ word: StaticString) -> Bool {
    var contains = false
    forEachToken(of: list) { token in
        if equalsIgnoringCase(token, word) { contains = true }
    }
    return contains
}
