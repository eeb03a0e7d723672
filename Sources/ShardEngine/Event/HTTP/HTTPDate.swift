// The Date header's text, made once a second. HTTPServer keeps one for its answers.
import Glibc

/// The present time as HTTP writes it (RFC 9110, section 5.6.7), cached.
struct HTTPDate: ~Copyable {
    private var text = ByteBuffer(capacity: 64)
    private var madeAt: MonotonicTime?

    /// The text of the present second; valid until the next call.
    mutating func text(at now: MonotonicTime) -> UnsafeRawBufferPointer {
        if let madeAt, now.since(madeAt) < .milliseconds(500) { return text.readable }
        madeAt = now
        text.reset(keeping: 64)
        var seconds = time(nil)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        let room = text.reserve(64)
        let count = strftime(room.assumingMemoryBound(to: CChar.self), 64, "%a, %d %b %Y %H:%M:%S GMT", &parts)
        text.commit(count)
        return text.readable
    }
}
