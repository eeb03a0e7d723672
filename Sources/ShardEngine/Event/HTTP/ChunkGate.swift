// The framing of a chunked body, read strictly (RFC 9112, section 7.1): the data goes into the body, and chunk extensions and
// trailers, once they are known to be well formed, nowhere. A partial request has one while its chunked body comes in.

/// Takes a chunked body apart, wherever the reads happen to split it.
struct ChunkGate {
    /// Where the next byte falls.
    private enum Place: UInt8 {
        case size, afterSize, beforeExtension, extensionName, afterName, beforeValue
        case extensionValue, quoted, escaped, afterQuoted, sizeLineFeed
        case data, dataReturn, dataLineFeed
        case trailerLine, trailerName, trailerValue, trailerLineFeed, lastLineFeed
        case end
    }

    private let limits: Gate.Limits
    private var place = Place.size
    /// What is left of the present chunk.
    private var chunkBytes = 0
    private var digits = 0
    /// Of all chunks whose size is known.
    private var bodyBytes = 0
    /// Bytes of extensions, of needless zeros, and of trailers.
    private var extraBytes = 0
    private var trailerCount = 0
    private var word = ShortWord()

    init(limits: Gate.Limits) {
        self.limits = limits
    }

    /// Whether the body is whole.
    var isAtEnd: Bool { place == .end }

    /// Reads on, up to the end of the body; `onData` gets the data.
    ///
    /// - Returns: how many bytes belong to the body; or why the connection must be closed.
    mutating func read(_ bytes: UnsafeRawBufferPointer, _ onData: (UnsafeRawBufferPointer) -> Void) -> (Int, Refusal?) {
        var index = 0
        while index < bytes.count, place != .end {
            if place == .data {
                let count = min(bytes.count - index, chunkBytes)
                onData(UnsafeRawBufferPointer(rebasing: bytes[index..<(index + count)]))
                chunkBytes -= count
                index += count
                if chunkBytes == 0 { place = .dataReturn }
            } else {
                if let refusal = read(bytes[index]) { return (index, refusal) }
                index += 1
            }
        }
        return (index, nil)
    }

    private mutating func read(_ byte: UInt8) -> Refusal? {
        switch place {
        case .size:
            return readSize(byte)
        case .sizeLineFeed, .dataReturn, .dataLineFeed:
            return readLineEnd(byte)
        case .trailerLine, .trailerName, .trailerValue, .trailerLineFeed, .lastLineFeed:
            return readTrailer(byte)
        default:
            return readExtension(byte)
        }
    }

    private mutating func readSize(_ byte: UInt8) -> Refusal? {
        guard let digit = hexDigitValue(byte) else {
            return digits > 0 ? endSize(byte) : ChunkGate.malformed
        }
        digits += 1
        // Zeros in front may be many, but not without limit.
        if chunkBytes == 0, digits > 1, let refusal = countExtra() { return refusal }
        guard chunkBytes >> 28 == 0 else { return ChunkGate.malformed }
        chunkBytes = chunkBytes << 4 | Int(digit)
        return nil
    }

    private mutating func endSize(_ byte: UInt8) -> Refusal? {
        bodyBytes += chunkBytes
        if bodyBytes > limits.bodyBytes { return .bodyTooLarge }
        if byte == 0x0D {
            place = .sizeLineFeed
            return nil
        }
        place = .afterSize
        return readExtension(byte)
    }

    /// chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )
    private mutating func readExtension(_ byte: UInt8) -> Refusal? {
        if let refusal = countExtra() { return refusal }
        let isSpace = byte == 0x20 || byte == 0x09
        switch place {
        case .beforeExtension where isTokenByte(byte), .extensionName where isTokenByte(byte):
            place = .extensionName
        case .extensionName where byte == 0x3D, .afterName where byte == 0x3D:
            place = .beforeValue
        case .extensionName where isSpace:
            place = .afterName
        case .beforeValue where byte == 0x22:
            place = .quoted
        case .beforeValue where isTokenByte(byte), .extensionValue where isTokenByte(byte):
            place = .extensionValue
        case .extensionValue where isSpace:
            place = .afterQuoted
        case .quoted where byte == 0x22:
            place = .afterQuoted
        case .quoted where byte == 0x5C:
            place = .escaped
        case .quoted where ChunkGate.isText(byte), .escaped where ChunkGate.isText(byte):
            place = .quoted
        case .extensionName, .extensionValue, .afterName, .afterQuoted, .afterSize:
            return readBetweenExtensions(byte)
        case .beforeExtension where isSpace, .beforeValue where isSpace:
            break
        default:
            return ChunkGate.malformed
        }
        return nil
    }

    private mutating func readBetweenExtensions(_ byte: UInt8) -> Refusal? {
        switch byte {
        case 0x3B:
            place = .beforeExtension
        // A size alone has no space after it.
        case 0x0D where place != .afterSize:
            place = .sizeLineFeed
        case 0x20, 0x09:
            break
        default:
            return ChunkGate.malformed
        }
        return nil
    }

    private mutating func readLineEnd(_ byte: UInt8) -> Refusal? {
        switch place {
        case .dataReturn where byte == 0x0D:
            place = .dataLineFeed
        case .dataLineFeed where byte == 0x0A:
            place = .size
            digits = 0
        case .sizeLineFeed where byte == 0x0A:
            place = chunkBytes > 0 ? .data : .trailerLine
        default:
            return ChunkGate.malformed
        }
        return nil
    }

    private mutating func readTrailer(_ byte: UInt8) -> Refusal? {
        if let refusal = countExtra() { return refusal }
        switch place {
        case .trailerLine where byte == 0x0D:
            place = .lastLineFeed
        case .trailerLine where isTokenByte(byte):
            trailerCount += 1
            if trailerCount > limits.headerCount { return Refusal(431, "the request has too many trailers") }
            word = ShortWord()
            word.append(byte)
            place = .trailerName
        case .trailerName where isTokenByte(byte):
            word.append(byte)
        case .trailerName where byte == 0x3A:
            guard !isFraming else { return Refusal(400, "bad request: a trailer that is about framing") }
            place = .trailerValue
        case .trailerValue where byte == 0x0D:
            place = .trailerLineFeed
        case .trailerValue where ChunkGate.isText(byte):
            break
        case .trailerLineFeed where byte == 0x0A:
            place = .trailerLine
        case .lastLineFeed where byte == 0x0A:
            place = .end
        default:
            return Refusal(400, "bad request: malformed trailers")
        }
        return nil
    }

    private var isFraming: Bool {
        word.equalsIgnoringCase("content-length") || word.equalsIgnoringCase("transfer-encoding")
            || word.equalsIgnoringCase("host")
    }

    private mutating func countExtra() -> Refusal? {
        extraBytes += 1
        guard extraBytes > limits.headerBytes else { return nil }
        return Refusal(431, "the request's chunk extensions and trailers are over the limit")
    }

    private static func isText(_ byte: UInt8) -> Bool { byte >= 0x20 && byte != 0x7F || byte == 0x09 }
    private static var malformed: Refusal { Refusal(400, "bad request: malformed chunk") }
}
