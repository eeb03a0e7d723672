// Puts a chunked response body together (RFC 9112, section 7.1). The response parser owns one.

/// Reads chunks as they come in and keeps their data.
struct ChunkReader: ~Copyable {
    /// How far a call got.
    enum Outcome {
        case needsMore
        case malformed
        /// The offset behind the last chunk and its trailers.
        case end(Int)
    }

    /// The data of the chunks so far, or of the last whole body.
    private(set) var body = ByteBuffer(capacity: 64)
    private var position: Int?

    /// Reads on in a body that begins at `start` of these bytes, which are shown anew, and longer, with each call.
    mutating func read(_ bytes: UnsafeRawBufferPointer, from start: Int, limit: Int) -> Outcome {
        if position == nil {
            body.reset(keeping: 4096)
            position = start
        }
        while let at = position {
            guard let size = readSize(bytes, at) else { return bytes.count - at > 64 ? .malformed : .needsMore }
            guard size.isValid, body.count + size.count <= limit else { return .malformed }
            if size.count == 0 { return endOfTrailers(bytes, at) }
            let end = size.dataStart + size.count
            guard bytes.count >= end + 2 else { return .needsMore }
            guard bytes[end] == 0x0D, bytes[end + 1] == 0x0A else { return .malformed }
            body.append(UnsafeRawBufferPointer(rebasing: bytes[size.dataStart..<end]))
            position = end + 2
        }
        return .malformed
    }

    private struct Size {
        var count = 0
        var isValid = false
        var dataStart = 0
    }

    /// The size at an offset, once its whole line is there.
    private func readSize(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Size? {
        guard let lineFeed = bytes[start...].firstIndex(of: 0x0A) else { return nil }
        var size = Size(dataStart: lineFeed + 1)
        var index = start
        while index < lineFeed, let digit = hexDigitValue(bytes[index]), index - start < 8 {
            size.count = size.count << 4 | Int(digit)
            index += 1
        }
        // What follows the digits is an extension, which nobody uses, or the line's end.
        size.isValid = index > start && (bytes[index] == 0x0D || bytes[index] == 0x3B || bytes[index] == 0x20)
        return size
    }

    private mutating func endOfTrailers(_ bytes: UnsafeRawBufferPointer, _ lastChunk: Int) -> Outcome {
        var line = lastChunk
        while let lineFeed = bytes[line...].firstIndex(of: 0x0A) {
            let isEmpty = line != lastChunk && (lineFeed == line || lineFeed == line + 1 && bytes[line] == 0x0D)
            if isEmpty {
                position = nil
                return .end(lineFeed + 1)
            }
            line = lineFeed + 1
        }
        return bytes.count - lastChunk > ResponseParser.headLimit ? .malformed : .needsMore
    }
}
