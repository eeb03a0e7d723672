// Bytes of HTTP's grammar, and recognising a few words in bytes that arrive one at a time.

/// Whether the byte may be part of a token: a method or a header's name (RFC 9110, section 5.6.2).
@inline(__always)
func isTokenByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
    case 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2E, 0x5E...0x60, 0x7C, 0x7E: true
    default: false
    }
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

/// Tells which of a list of words the bytes so far spell, without keeping them.
struct WordMatcher {
    /// How many bytes there were.
    private(set) var length = 0
    /// One bit for each word that still fits.
    private var candidates: UInt32 = .max

    /// Whether some word may still come of it.
    var isAlive: Bool { candidates != 0 }

    mutating func append(_ byte: UInt8, in words: [StaticString]) {
        defer { length += 1 }
        guard candidates != 0 else { return }
        var fitting: UInt32 = 0
        for (index, word) in words.enumerated() where candidates & (1 << UInt32(index)) != 0 {
            if length < word.utf8CodeUnitCount, word.utf8Start[length] == byte { fitting |= 1 << UInt32(index) }
        }
        candidates = fitting
    }

    /// The index of the word that the bytes spell in full.
    func match(_ words: [StaticString]) -> Int? {
        guard length > 0, candidates != 0 else { return nil }
        return words.indices.first { index in
            candidates & (1 << UInt32(index)) != 0 && words[index].utf8CodeUnitCount == length
        }
    }
}
