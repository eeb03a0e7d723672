// Escapes in the text format, of HELP and of labels' values. The reader of text undoes them.

enum TextEscapes {
    /// Calls `body` with each byte of the text without its escapes.
    ///
    /// - Parameter areQuotesEscaped: whether quotes are escaped, too.
    /// - Returns: whether each escape is one that there is; where one is not, Pushgateway refuses the text.
    @discardableResult
    static func undo(
        _ text: UnsafeRawBufferPointer,
        areQuotesEscaped: Bool,
        _ body: (UInt8) -> Void = { _ in }
    ) -> Bool {
        var isEscaped = false
        for byte in text {
            guard isEscaped else {
                if byte == UInt8(ascii: "\\") { isEscaped = true } else { body(byte) }
                continue
            }
            isEscaped = false
            switch byte {
            case UInt8(ascii: "n"): body(0x0A)
            case UInt8(ascii: "\\"): body(byte)
            case UInt8(ascii: "\"") where areQuotesEscaped: body(byte)
            default: return false
            }
        }
        return !isEscaped
    }
}

/// Where a text is put together whose escapes are undone; one text at a time.
final class TextBuffer {
    private var bytes = Arena<UInt8>(capacity: 1024)

    /// The bytes that `body` appends; nil where it returns false. They are valid until the next call.
    func fill(_ body: ((UInt8) -> Void) -> Bool) -> UnsafeRawBufferPointer? {
        bytes.removeAll()
        return body { bytes.append($0) } ? UnsafeRawBufferPointer(bytes.elements) : nil
    }
}
