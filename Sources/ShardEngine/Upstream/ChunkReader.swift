// Puts a chunked response body together (RFC 9112, section 7.1). The response parser owns one.
// Extensions are passed over, trailers are checked and dropped; anything that the grammar does not have is malformed.

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
    private var isInTrailers = false

    /// What there is of the line that a chunk begins with.
    private enum SizeLine {
        case needsMore
        case malformed
        case whole(size: Int, end: Int)
    }

    /// Reads on in a body that begins at `start` of these bytes, which are shown anew, and longer, with each call.
    ///
    /// - Parameter limit: how long the body may be; and as long may it be with everything that frames it.
    mutating func read(_ bytes: UnsafeRawBufferPointer, from start: Int, limit: Int) -> Outcome {
        if position == nil {
            body.reset(keeping: 4096)
            position = start
            isInTrailers = false
        }
        while let at = position, at - start <= limit {
            if isInTrailers { return readTrailers(bytes, at) }
            switch readSizeLine(bytes, at) {
            case .needsMore: return .needsMore
            case .malformed: return .malformed
            case .whole(size: 0, let end):
                position = end
                isInTrailers = true
            case .whole(let size, let dataStart):
                guard body.count + size <= limit else { return .malformed }
                let end = dataStart + size
                guard bytes.count >= end + 2 else { return .needsMore }
                guard bytes[end] == 0x0D, bytes[end + 1] == 0x0A else { return .malformed }
                body.append(UnsafeRawBufferPointer(rebasing: bytes[dataStart..<end]))
                position = end + 2
            }
        }
        return .malformed
    }

    private func readSizeLine(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> SizeLine {
        var size = 0
        var index = start
        while index < bytes.count, let digit = hexDigitValue(bytes[index]) {
            size = size << 4 | Int(digit)
            guard size <= ResponseParser.bodyLimit, index - start < ChunkReader.lineLimit else { return .malformed }
            index += 1
        }
        guard index < bytes.count else { return .needsMore }
        guard index > start else { return .malformed }
        if bytes[index] != 0x0D {
            let extensions = index + spaceRun(of: bytes, from: index)
            // Space is for what follows it; the extensions themselves are nobody's here.
            if extensions < bytes.count, bytes[extensions] != 0x3B { return .malformed }
            index = extensions + fieldTextRun(of: bytes, from: extensions)
            guard index - start <= ChunkReader.lineLimit else { return .malformed }
        }
        switch endOfLine(bytes, index) {
        case .needsMore: return .needsMore
        case .malformed: return .malformed
        case .end(let end): return .whole(size: size, end: end)
        }
    }

    /// The end of a line, which has to be here.
    private func endOfLine(_ bytes: UnsafeRawBufferPointer, _ index: Int) -> Outcome {
        if index < bytes.count, bytes[index] != 0x0D { return .malformed }
        guard index + 1 < bytes.count else { return .needsMore }
        return bytes[index + 1] == 0x0A ? .end(index + 2) : .malformed
    }

    private mutating func readTrailers(_ bytes: UnsafeRawBufferPointer, _ start: Int) -> Outcome {
        var line = start
        while line - start <= ResponseParser.headLimit {
            let textEnd = line + fieldTextRun(of: bytes, from: line)
            switch endOfLine(bytes, textEnd) {
            case .needsMore where bytes.count - start <= ResponseParser.headLimit:
                return .needsMore
            case .needsMore, .malformed:
                return .malformed
            case .end(let end) where textEnd == line:
                position = nil
                return .end(end)
            case .end(let end):
                let text = UnsafeRawBufferPointer(rebasing: bytes[line..<textEnd])
                guard fieldNameLength(of: text) != nil else { return .malformed }
                line = end
            }
        }
        return .malformed
    }

    /// How long the line before a chunk may be, extensions included.
    private static let lineLimit = 4096
}

/// How many bytes from `index` on are spaces and tabs.
private func spaceRun(of bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
    var end = index
    while end < bytes.count, bytes[end] == 0x20 || bytes[end] == 0x09 { end += 1 }
    return end - index
}

/// How many bytes from `index` on may stand in a header's line, or in another line of text: no control characters but tabs.
func fieldTextRun(of bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
    var end = index + printableRun(of: bytes, from: index)
    while end < bytes.count, bytes[end] == 0x09 { end += 1 + printableRun(of: bytes, from: end + 1) }
    return end - index
}

/// The length of a header line's name, which a colon follows; nil when the line, without its end, is not a header's.
func fieldNameLength(of line: UnsafeRawBufferPointer) -> Int? {
    let colon = tokenRun(of: line, from: 0)
    guard colon > 0, colon < line.count, line[colon] == 0x3A else { return nil }
    return fieldTextRun(of: line, from: colon) == line.count - colon ? colon : nil
}
