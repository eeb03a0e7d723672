// The Gate's reading of a body: counted bytes, or strict chunks and trailers.
// Chunk extensions are refused: evhttp does not take them, and no push client sends any.

extension Gate {
    /// Passes over up to `available` bytes of body; returns how many.
    mutating func skipBody(upTo available: Int) -> Int {
        if place == .sizedBody {
            let passed = min(available, bodyBytes)
            bodyBytes -= passed
            if bodyBytes == 0 { completeRequest() }
            return passed
        }
        let passed = min(available, chunkBytes)
        chunkBytes -= passed
        if chunkBytes == 0 { place = .chunkDataEnd }
        return passed
    }

    mutating func startChunkedBody() {
        place = .chunkSize
        bodyBytes = 0
        startChunk()
    }

    /// Reads one byte of what separates chunks.
    mutating func readBodyFraming(_ byte: UInt8) -> Refusal? {
        switch place {
        case .chunkSize:
            return readChunkSize(byte)
        case .chunkSizeEnd:
            guard byte == 0x0A else { return Gate.malformedChunk }
            headBytes = 0
            place = chunkBytes == 0 ? .trailerLine : .chunkData
        case .chunkDataEnd:
            guard byte == 0x0D else { return Gate.malformedChunk }
            place = .chunkDataLineFeed
        case .chunkDataLineFeed:
            guard byte == 0x0A else { return Gate.malformedChunk }
            startChunk()
        default:
            return readTrailer(byte)
        }
        return nil
    }

    private mutating func startChunk() {
        place = .chunkSize
        chunkBytes = 0
        chunkDigits = 0
    }

    private mutating func readChunkSize(_ byte: UInt8) -> Refusal? {
        if byte == 0x0D, chunkDigits > 0 {
            bodyBytes += chunkBytes
            place = .chunkSizeEnd
            return bodyBytes > limits.bodyBytes ? .bodyTooLarge : nil
        }
        guard let digit = hexDigitValue(byte), chunkDigits < 8 else { return Gate.malformedChunk }
        chunkBytes = chunkBytes << 4 | Int(digit)
        chunkDigits += 1
        return nil
    }

    private mutating func readTrailer(_ byte: UInt8) -> Refusal? {
        headBytes += 1
        if headBytes > limits.headerBytes { return Refusal(431, "the request's trailers are over the limit") }
        switch place {
        case .trailerLine where byte == 0x0D:
            place = .trailersEnd
        case .trailerLine where isTokenByte(byte):
            place = .trailer
        case .trailer where byte == 0x0D:
            place = .trailerLineFeed
        case .trailer where byte >= 0x20 && byte != 0x7F || byte == 0x09:
            break
        case .trailerLineFeed where byte == 0x0A:
            place = .trailerLine
        case .trailersEnd where byte == 0x0A:
            completeRequest()
        default:
            return Refusal(400, "bad request: malformed trailers")
        }
        return nil
    }

    private static let malformedChunk = Refusal(400, "bad request: malformed chunk")
}
