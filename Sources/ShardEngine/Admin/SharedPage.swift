// A document of the admin endpoints that all who ask for it at about the same time get from the same bytes. Of 600 shards the
// metrics are a megabyte: to make and to keep that for each of many requests would hold up pushes, and take memory. The admin
// handler has one for each such document.

/// A document, made anew for each request while it is small, and once a second when it is large; loop-confined.
final class SharedPage {
    private var bytes: [UInt8] = []
    private var packed: [UInt8]?
    private var madeAt = MonotonicTime(nanoseconds: 0)

    /// Whether it need not be made anew.
    func isFresh(at now: MonotonicTime) -> Bool {
        // What was made in this turn of the loop is as fresh as it can be.
        madeAt == now || bytes.count >= SharedPage.largeSize && now.since(madeAt) < SharedPage.lifetime
    }

    /// Is these bytes from now on.
    func fill(_ bytes: UnsafeRawBufferPointer, at now: MonotonicTime) {
        self.bytes = Array(bytes)
        packed = nil
        madeAt = now
    }

    /// Answers the outstanding request with it, as gzip where the client takes that.
    func answer(_ connection: InboundConnection, contentType: StaticString) {
        var headers = [ReplyHeader(name: "Vary", value: "Accept-Encoding")]
        guard connection.acceptsGzip, let packed = packed ?? gzipped(bytes) else {
            return connection.reply(status: 200, contentType: contentType, headers: headers, page: bytes)
        }
        self.packed = packed
        headers.append(ReplyHeader(name: "Content-Encoding", value: "gzip"))
        connection.reply(status: 200, contentType: contentType, headers: headers, page: packed)
    }

    /// A tenth of a millisecond of work, about, and fresh for whoever has just done something.
    private static let largeSize = 1 << 16
    private static let lifetime = TimeSpan.seconds(1)
}
