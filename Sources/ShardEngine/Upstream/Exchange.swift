// One push on its way to a shard and back: the request of a connection, the shard that has it, and its answer.
// The forwarder makes and recycles exchanges; a pool queues them, a pipeline sends them and tells them what came. While the
// register is not settled an exchange has a course (Course.swift), which decides where it goes and when it is answered.
import MovingCore

/// One request and its reply; confined to its worker's loop.
final class Exchange {
    /// With what others, and on which connection, it may be sent.
    enum Placement {
        /// Behind others, and with others behind it.
        case shared
        /// On a connection without others: it has a large body, or a connection that it shared has come to its end.
        case alone
        /// On a connection of its own, opened for it: one has broken with it as the first without an answer.
        case apart
        /// As `alone`, but only where others do not need the connection: its answer was late once.
        case late
    }

    unowned(unsafe) let forwarder: Forwarder
    /// The client; nil once it is gone or has its answer.
    private(set) var connection: InboundConnection?
    /// The ring that the push was looked up on, and the pools behind it.
    private(set) var routes: RoutingTable
    private(set) var hash: UInt32
    /// The shard that has the push, as an index into the ring's shards.
    var shard: Int
    /// The body, when it is too large to be copied around.
    private(set) var largeBody: BodyBuffer?
    /// When the push was accepted.
    private(set) var start: MonotonicTime
    /// When its answer is due.
    private(set) var deadline: MonotonicTime
    /// When it was last handed to a pipeline.
    var sentAt: MonotonicTime
    /// Where it begins in its pipeline's stream of bytes.
    var streamStart: UInt64 = 0
    var placement = Placement.shared
    /// How many answers come before its own, to what was sent before it on its behalf.
    var precedingAnswers = 0
    /// Whether the shard, when it is sent the push, has been sent it before.
    var isSentAgain = false
    private(set) var method = Method.put
    /// What becomes of it while the register is not settled; nil on the hot path.
    var course: Course?
    /// Whether a pipeline has it.
    var isOnPipeline = false
    /// Is let go of when the push has ended, by which whoever gave it hears of that.
    var taken: AnyObject?
    /// The same of a push that is known by its number alone.
    private var counted: CountedPush?

    /// Takes over the request that is outstanding on the connection.
    init(_ forwarder: Forwarder, _ connection: InboundConnection, _ routes: RoutingTable, hash: UInt32, shard: Int) {
        self.forwarder = forwarder
        self.connection = connection
        self.routes = routes
        self.hash = hash
        self.shard = shard
        start = forwarder.loop.now
        sentAt = start
        deadline = start.advanced(by: forwarder.settings.responseTimeout)
        take(connection)
    }

    /// The process was stopped for so long, which does not count.
    func resume(after stop: TimeSpan) {
        sentAt = min(sentAt.advanced(by: stop), forwarder.loop.now)
        deadline = deadline.advanced(by: stop)
    }

    /// Uses a finished exchange for another push.
    func restart(_ connection: InboundConnection, _ routes: RoutingTable, hash: UInt32, shard: Int) {
        self.connection = connection
        if self.routes !== routes { self.routes = routes }
        self.hash = hash
        self.shard = shard
        start = forwarder.loop.now
        deadline = start.advanced(by: forwarder.settings.responseTimeout)
        isSentAgain = false
        course = nil
        isOnPipeline = false
        take(connection)
    }

    private func take(_ connection: InboundConnection) {
        method = connection.method
        connection.owner = self
        largeBody = connection.bodyCount >= Exchange.largeBodySize ? connection.bodyBuffer : nil
        placement = largeBody == nil ? .shared : .alone
    }

    /// Whether nobody waits for the answer any more, and nothing depends on it.
    var isAbandoned: Bool { connection == nil && course == nil }

    /// Goes to a shard by another table from now on.
    func move(to routes: RoutingTable, shard: Int) {
        self.routes = routes
        self.shard = shard
        isSentAgain = false
        placement = course?.isLarge == true ? .alone : .shared
        largeBody = nil
    }

    /// Ends a push with this one.
    func end(_ counted: consuming CountedPush) {
        self.counted = consume counted
    }

    /// Goes to its owner.
    func move(to routes: RoutingTable, owner: Int) {
        if self.routes !== routes { self.routes = routes }
        shard = owner
    }

    var pool: ShardPool { routes.pools[shard] }

    /// Passes the shard's answer on to the client, if it is still there, or has its course go by it.
    func complete(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse, chunkedBody: UnsafeRawBufferPointer) {
        isOnPipeline = false
        pool.metrics.countAnswer(response.status, after: forwarder.loop.now.since(sentAt))
        if let course { return course.answered(bytes, response, chunkedBody) }
        guard connection != nil else { return }
        answer(bytes, response, chunkedBody: chunkedBody)
    }

    /// Gives the client the answer, if it is one to a push.
    func answer(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse, chunkedBody: UnsafeRawBufferPointer) {
        if response.status >= 300, response.status < 400 { return refuse(bytes, response) }
        passOn(bytes, response, chunkedBody: chunkedBody)
    }

    /// Does not pass on what the client could take for success, though the shard has stored nothing.
    private func refuse(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse) {
        guard let connection else { return }
        var line = UpstreamFailure.garbage("it is not an answer to a push").line(shard: pool.shard)
        let isRedirect = Redirect.isOne(response.status)
        if isRedirect {
            let redirect = Redirect(response, head: UnsafeRawBufferPointer(rebasing: bytes[response.head]))
            line = redirect.line(shard: pool.shard, target: String(decoding: connection.target, as: UTF8.self))
        }
        let status = isRedirect ? 400 : 502
        finish(status)
        connection.reply(status: status, line: line)
    }

    /// Gives the client the answer.
    func passOn(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse, chunkedBody: UnsafeRawBufferPointer) {
        guard let connection else { return }
        finish(response.status)
        let body = response.isChunked ? chunkedBody : UnsafeRawBufferPointer(rebasing: bytes[response.body])
        connection.reply(head: UnsafeRawBufferPointer(rebasing: bytes[response.head]), response, body: body)
    }

    /// There is no answer: the client is told, if it is still there, or the course goes by that.
    func fail(_ failure: UpstreamFailure) {
        isOnPipeline = false
        if let course { return course.failed(failure) }
        tell(failure)
    }

    /// Tells the client, if it is still there, that there is no answer.
    func tell(_ failure: UpstreamFailure) {
        guard let connection else { return }
        finish(failure.status)
        let shard = routes.pools.isEmpty ? nil : pool.shard
        if let rejection = failure.rejection {
            forwarder.metrics.countRejection(rejection)
        } else {
            pool.metrics.countFailure(failure.status)
        }
        let headers = failure.status == 503 ? [ReplyHeader(name: "Retry-After", value: "1")] : []
        connection.reply(status: failure.status, headers: headers, line: failure.line(shard: shard))
    }

    private func finish(_ status: Int) {
        connection = nil
        forwarder.metrics.inFlight -= 1
        forwarder.metrics.countAnswer(method, status, forwarder.loop.now.since(start))
    }

    /// Ends the connection of a client that is gone, and with it the request, where the shard has not been sent all of it.
    func dropIfClientIsGone() {
        if let connection, connection.hasClientClosed { connection.abort() }
    }

    /// Whether it matters what the shard answers, though the client may wait no more.
    var isAnswerAwaited: Bool { !isAbandoned }

    /// Lets go of what it holds once it need not be sent again.
    func release() {
        largeBody = nil
        course = nil
        if taken != nil { taken = nil }
        if counted != nil { counted = nil }
    }

    /// From this many bytes on a body has a connection to the shard to itself, so that it holds up nobody.
    static let largeBodySize = 32768
}

extension Exchange: InboundRequestOwner {
    func clientDisconnected() {
        connection = nil
        forwarder.metrics.inFlight -= 1
        course?.clientHasGone()
    }
}
