// Writing bytes that somebody else chose into lines that others parse and terminals show.
// The locator writes paths and grouping keys with it.

/// How bytes are written so that they cannot end a field or a line.
enum EscapedText {
    /// Plain text is as it is. A backslash is `\\`, tab, line feed and return are `\t`, `\n` and `\r`; of other control
    /// characters, of line and paragraph separators, and of what is no UTF-8, each byte is `\x` and two digits.
    case field
    /// The inside of a JSON string; a byte that is no UTF-8 becomes U+FFFD.
    case json

    func append(_ bytes: UnsafeRawBufferPointer, to output: inout ByteBuffer) {
        var offset = 0
        while offset < bytes.count {
            let length = utf8SequenceLength(bytes, at: offset)
            let sequence = UnsafeRawBufferPointer(rebasing: bytes[offset..<offset + (length ?? 1)])
            if length == 1 {
                appendASCII(bytes[offset], to: &output)
            } else if length == nil || EscapedText.isUnsafe(sequence) {
                appendEscape(of: sequence, isUTF8: length != nil, to: &output)
            } else {
                output.append(sequence)
            }
            offset += sequence.count
        }
    }

    private func appendASCII(_ byte: UInt8, to output: inout ByteBuffer) {
        switch byte {
        case UInt8(ascii: "\\"): output.append(#"\\"#)
        case UInt8(ascii: "\t"): output.append(#"\t"#)
        case UInt8(ascii: "\n"): output.append(#"\n"#)
        case UInt8(ascii: "\r"): output.append(#"\r"#)
        case UInt8(ascii: "\"") where self == .json: output.append(#"\""#)
        case 0x00...0x1F, 0x7F:
            output.append(self == .json ? #"\u00"# : #"\x"#)
            output.append(hexadecimal: UInt32(byte), digits: 2)
        default: output.append(byte: byte)
        }
    }

    private func appendEscape(of sequence: UnsafeRawBufferPointer, isUTF8: Bool, to output: inout ByteBuffer) {
        switch self {
        case .json:
            let scalar = isUTF8 ? String(decoding: sequence, as: UTF8.self).unicodeScalars.first : nil
            output.append(#"\u"#)
            output.append(hexadecimal: scalar?.value ?? 0xFFFD, digits: 4)
        case .field:
            for byte in sequence {
                output.append(#"\x"#)
                output.append(hexadecimal: UInt32(byte), digits: 2)
            }
        }
    }

    /// Whether a character beyond ASCII is a control character or ends a line: U+0080…U+009F, U+2028, U+2029.
    private static func isUnsafe(_ sequence: UnsafeRawBufferPointer) -> Bool {
        if sequence.count == 2 { return sequence[0] == 0xC2 && sequence[1] < 0xA0 }
        return sequence.count == 3 && sequence[0] == 0xE2 && sequence[1] == 0x80 && (0xA8...0xA9).contains(sequence[2])
    }
}

extension ByteBuffer {
    /// Appends the last digits of a number in hexadecimal, in small letters.
    mutating func append(hexadecimal number: UInt32, digits: Int) {
        for position in stride(from: 4 * (digits - 1), through: 0, by: -4) {
            let digit = UInt8(truncatingIfNeeded: number >> UInt32(position)) & 15
            append(byte: digit < 10 ? 0x30 + digit : 0x61 + digit - 10)
        }
    }
}
