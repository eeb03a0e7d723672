// Judges bodies that take long to judge on a thread of its own: compressed ones, which may be a thousand times as large when
// they are inflated, and large ones. On the loop each would hold up all other pushes. A worker's push handler owns one.
import Dispatch

/// Judgements away from a loop, in the order in which they are asked for; its methods are for that loop only.
final class SlowJudge {
    private let mailbox: LoopMailbox
    private let queue = DispatchQueue(label: "shardd.check")
    private let pushGuard: QueueBound<PushGuard>

    init(mailbox: LoopMailbox) {
        self.mailbox = mailbox
        pushGuard = QueueBound(PushGuard(), on: queue)
    }

    /// Whether the body is to be judged here.
    static func isFor(_ body: UnsafeRawBufferPointer, coding: UnsafeRawBufferPointer?) -> Bool {
        coding != nil || body.count >= largeSize
    }

    /// Judges the body of the outstanding request; `done` is called on the loop, if the client is still there.
    ///
    /// - Parameter isRead: whether what the push would store is to be read as well.
    func judge(
        _ connection: InboundConnection,
        path: UnsafeRawBufferPointer,
        type: UnsafeRawBufferPointer?,
        coding: UnsafeRawBufferPointer?,
        isRead: Bool = false,
        inflatedLimit: Int,
        _ done: @escaping (InboundConnection, PushRefusal?, PushContents) -> Void
    ) {
        let push = JudgedPush(connection, done)
        connection.owner = push
        // The bytes are lent to the queue; who has them is let go of on the loop, whichever of the two is done first.
        let (held, body) = (LoopBound(push, on: mailbox), QueueBound(push.body, on: queue))
        let (pushGuard, path) = (self.pushGuard, Array(path))
        let (type, coding) = (type.map { Array($0) }, coding.map { Array($0) })
        queue.async {
            pushGuard.value.inflatedLimit = inflatedLimit
            let (refusal, contents) = withBytes(type) { type in
                withBytes(coding) { coding in
                    path.withUnsafeBytes { path in
                        let pushGuard = pushGuard.value
                        let refusal = pushGuard.judge(body.value, path: path, type: type, coding: coding)
                        guard refusal == nil, isRead else { return (refusal, PushContents.unreadable) }
                        return (nil, pushGuard.contents(body.value, path: path, type: type, coding: coding))
                    }
                }
            }
            held.post { $0.isJudged(refusal, contents) }
        }
    }

    /// From this many bytes on a body takes a millisecond or more.
    private static let largeSize = 256 << 10
}

/// One push that is being judged; what it has of the body outlives the request.
private final class JudgedPush: InboundRequestOwner {
    /// The client; nil once it is gone.
    private var connection: InboundConnection?
    private let done: (InboundConnection, PushRefusal?, PushContents) -> Void
    private let buffer: BodyBuffer?
    private let copy: UnsafeMutableRawBufferPointer

    init(_ connection: InboundConnection, _ done: @escaping (InboundConnection, PushRefusal?, PushContents) -> Void) {
        self.connection = connection
        self.done = done
        buffer = connection.bodyBuffer
        copy = .allocate(byteCount: buffer == nil ? connection.bodyCount : 0, alignment: 1)
        if buffer == nil { copy.copyMemory(from: connection.body) }
    }

    deinit {
        copy.deallocate()
    }

    var body: UnsafeRawBufferPointer { buffer?.bytes ?? UnsafeRawBufferPointer(copy) }

    func isJudged(_ refusal: PushRefusal?, _ contents: PushContents) {
        guard let connection else { return }
        self.connection = nil
        connection.owner = nil
        done(connection, refusal, contents)
    }

    func clientDisconnected() {
        connection = nil
    }
}

/// Calls `body` with the bytes, or with nil.
private func withBytes<Result>(_ bytes: [UInt8]?, _ body: (UnsafeRawBufferPointer?) -> Result) -> Result {
    guard let bytes else { return body(nil) }
    return bytes.withUnsafeBytes { body($0) }
}
