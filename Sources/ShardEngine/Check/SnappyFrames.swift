// Inflates bodies under snappy, which Pushgateway reads from 1.7 on, in the framing format:
// https://github.com/google/snappy/blob/main/framing_format.txt and format_description.txt. The guard calls it.
//
// No library, since the format takes less than the ties to one: libsnappy is C++. Checksums are not looked at.

/// Inflates framed snappy.
enum SnappyFrames {
    /// Appends what the body inflates to, as far as it can be inflated: a shard that knows snappy refuses the rest.
    static func inflate(_ body: UnsafeRawBufferPointer, into output: inout ByteBuffer, limit: Int) -> InflationOutcome {
        var offset = 0
        while offset + 4 <= body.count {
            let size = Int(body[offset + 1]) | Int(body[offset + 2]) << 8 | Int(body[offset + 3]) << 16
            let start = offset + 4
            guard start + size <= body.count else { return .whole }
            let chunk = UnsafeRawBufferPointer(rebasing: body[start..<start + size])
            switch body[offset] {
            case 0x00:
                guard size >= 4, inflateBlock(UnsafeRawBufferPointer(rebasing: chunk[4...]), into: &output) else {
                    return .whole
                }
            case 0x01:
                guard size >= 4, size - 4 <= blockLimit else { return .whole }
                output.append(UnsafeRawBufferPointer(rebasing: chunk[4...]))
            case 0x02...0x7F:
                return .whole
            default:
                // The stream's identifier, padding, and what decoders that do not know it pass over.
                break
            }
            if output.count > limit { return .tooLarge }
            offset = start + size
        }
        return .whole
    }

    /// One block: its length when inflated, then literals and copies of what came before.
    private static func inflateBlock(_ block: UnsafeRawBufferPointer, into output: inout ByteBuffer) -> Bool {
        var wire = WireReader(block)
        guard let length = wire.varint(), length <= UInt64(blockLimit) else { return false }
        let target = UnsafeMutableRawBufferPointer(start: output.reserve(Int(length)), count: Int(length))
        var written = 0
        var offset = block.count - wire.count
        while offset < block.count {
            guard let element = element(block, at: offset) else { return false }
            offset += element.tagSize
            guard element.length <= target.count - written else { return false }
            if element.distance == 0 {
                guard element.length <= block.count - offset else { return false }
                for index in 0..<element.length { target[written + index] = block[offset + index] }
                offset += element.length
            } else {
                guard element.distance <= written else { return false }
                // Byte by byte: a copy may overlap what it writes.
                for index in written..<written + element.length { target[index] = target[index - element.distance] }
            }
            written += element.length
        }
        guard written == target.count else { return false }
        output.commit(written)
        return true
    }

    /// The element at an offset: a literal of that length, or, with a distance, a copy. nil where it is none.
    private static func element(
        _ block: UnsafeRawBufferPointer,
        at offset: Int
    ) -> (tagSize: Int, length: Int, distance: Int)? {
        func number(_ count: Int) -> Int? {
            guard offset + count < block.count else { return nil }
            return (0..<count).reduce(0) { $0 | Int(block[offset + 1 + $1]) << (8 * $1) }
        }
        let tag = Int(block[offset])
        switch tag & 3 {
        case 0:
            let length = tag >> 2
            guard length >= 60 else { return (1, length + 1, 0) }
            return number(length - 59).map { (length - 58, $0 + 1, 0) }
        case 1:
            return copy(tagSize: 2, length: 4 + tag >> 2 & 7, distance: number(1).map { $0 | (tag >> 5) << 8 })
        case 2:
            return copy(tagSize: 3, length: 1 + tag >> 2, distance: number(2))
        default:
            return copy(tagSize: 5, length: 1 + tag >> 2, distance: number(4))
        }
    }

    private static func copy(tagSize: Int, length: Int, distance: Int?) -> (tagSize: Int, length: Int, distance: Int)? {
        guard let distance, distance > 0 else { return nil }
        return (tagSize, length, distance)
    }

    /// What one chunk may inflate to, by the framing format.
    private static let blockLimit = 65536
}
