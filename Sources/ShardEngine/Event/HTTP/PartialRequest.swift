// A request that has not come as a whole. Its connection has one from the end of the first read to the end of the last; most
// requests come in one piece and have none.

/// What has come of a request; loop-confined.
final class PartialRequest {
    var gate: Gate
    /// The head, with nothing after it once it is whole.
    var head: ByteBuffer
    /// The body; nil before the head is whole.
    var body: BodyBuffer?
    /// Takes a chunked body apart.
    var chunks: ChunkGate?
    /// Whether the client waits for a 100 before it sends its body.
    var owesContinue = false
    /// What of the memory is granted for the head, once it is whole.
    var headGrant = 0
    /// Whether there is memory for what evhttp makes of it, too.
    var isParsable = false
    /// How much of the body there was at the last look at its progress, and when.
    private var countBefore = 0
    private var lookedAt: MonotonicTime
    /// When it was last seen to come fast enough.
    private var wasFastAt: MonotonicTime
    /// How many bytes of the body come in a second.
    private(set) var pace = 0.0

    init(_ gate: Gate, _ bytes: UnsafeRawBufferPointer, now: MonotonicTime) {
        self.gate = gate
        head = ByteBuffer(capacity: bytes.count)
        head.append(bytes)
        lookedAt = now
        wasFastAt = now
    }

    /// It has had to wait for others, which says nothing of its client.
    func restartProgress(at now: MonotonicTime) {
        lookedAt = now
        wasFastAt = now
        countBefore = body?.count ?? 0
    }

    /// Looks at how fast the body comes.
    ///
    /// - Parameter left: the time that it has to be whole.
    func lookAtProgress(at now: MonotonicTime, left: TimeSpan) {
        let passed = now.since(lookedAt)
        guard let body, passed >= PartialRequest.period else { return }
        pace = Double(body.count - countBefore) / passed.seconds
        let needed = Double(body.bytesToCome) / max(left.seconds, PartialRequest.period.seconds)
        // A chunked body does not say how long it is.
        if pace >= (chunks == nil ? needed : min(needed, PartialRequest.chunkedPace)) { wasFastAt = now }
        countBefore = body.count
        lookedAt = now
    }

    /// Whether, at its pace, it will not be whole in time.
    func isHopeless(at now: MonotonicTime) -> Bool {
        body != nil && now.since(wasFastAt) >= PartialRequest.patience
    }

    private static let period = TimeSpan.milliseconds(200)
    private static let patience = TimeSpan.seconds(1)
    private static let chunkedPace = 65536.0
}
