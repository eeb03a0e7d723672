// Inflates bodies under gzip (RFC 1952) as Go's gzip reader does, which Pushgateway uses. The guard owns one.
//
// Members are read one after the other. The header is read here and not by zlib, which refuses flags that Go ignores; the
// checksums are not looked at, as older Pushgateways take bodies in which they are wrong.
import CZlib

/// Inflates one body after the other with the same state; loop-confined.
final class GzipInflater {
    /// Allocated with the first body, and used for all after it.
    private var stream: UnsafeMutablePointer<z_stream>?

    init() {}

    deinit {
        guard let stream else { return }
        inflateEnd(stream)
        stream.deallocate()
    }

    /// Appends what the body inflates to, as far as it can be inflated.
    func inflate(_ body: UnsafeRawBufferPointer, into output: inout ByteBuffer, limit: Int) -> InflationOutcome {
        var offset = 0
        while let start = GzipInflater.headerEnd(body, from: offset) {
            let rest = UnsafeRawBufferPointer(rebasing: body[start...])
            guard let used = inflateMember(rest, into: &output, limit: limit) else { return .damaged }
            if output.count > limit { return .tooLarge }
            offset = start + used + GzipInflater.trailerSize
            if offset >= body.count { break }
        }
        return .whole
    }

    /// - Returns: how many bytes of the member were read, all of them if it is cut short; nil if it is damaged.
    private func inflateMember(_ member: UnsafeRawBufferPointer, into output: inout ByteBuffer, limit: Int) -> Int? {
        let stream = freshStream()
        // zlib does not write to what it reads.
        stream.pointee.next_in = UnsafeMutablePointer(mutating: member.bindMemory(to: UInt8.self).baseAddress)
        stream.pointee.avail_in = UInt32(member.count)
        while output.count <= limit {
            let room = output.reserve(GzipInflater.step)
            stream.pointee.next_out = room.assumingMemoryBound(to: UInt8.self)
            stream.pointee.avail_out = UInt32(GzipInflater.step)
            let result = CZlib.inflate(stream, Z_NO_FLUSH)
            let written = GzipInflater.step - Int(stream.pointee.avail_out)
            output.commit(written)
            if result == Z_STREAM_END { return member.count - Int(stream.pointee.avail_in) }
            guard result == Z_OK || result == Z_BUF_ERROR else { return nil }
            if written == 0, stream.pointee.avail_in == 0 { return member.count }
        }
        return member.count
    }

    private func freshStream() -> UnsafeMutablePointer<z_stream> {
        if let stream {
            inflateReset(stream)
            return stream
        }
        let stream = UnsafeMutablePointer<z_stream>.allocate(capacity: 1)
        stream.initialize(to: z_stream())
        precondition(shardd_inflate_init_raw(stream) == Z_OK, "out of memory")
        self.stream = stream
        return stream
    }

    /// Where the data of the member begins whose header is at an offset; nil where there is no whole header.
    private static func headerEnd(_ body: UnsafeRawBufferPointer, from start: Int) -> Int? {
        guard body.count >= start + 10, body[start] == 0x1F, body[start + 1] == 0x8B, body[start + 2] == 8 else {
            return nil
        }
        let flags = body[start + 3]
        var end = start + 10
        if flags & 4 != 0 {
            guard end + 2 <= body.count else { return nil }
            end += 2 + Int(body[end]) + Int(body[end + 1]) << 8
        }
        // A name and a comment end with a NUL.
        for flag in [8, 16] as [UInt8] where flags & flag != 0 {
            guard let nul = index(of: 0, in: body, from: end) else { return nil }
            end = nul + 1
        }
        if flags & 2 != 0 { end += 2 }
        return end <= body.count ? end : nil
    }

    private static let step = 64 << 10
    private static let trailerSize = 8
}
