// One push on its way to a shard and back: the request of a connection, the shard that has it, and its answer.
// The forwarder makes and recycles exchanges; a pool queues them, a pipeline sends them and tells them what came.

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
    /// How many shards have refused it.
    var failovers = 0
    private(set) var method = Method.put
    /// The visits to other shards that come first, or that this is one of.
    private(set) var round: VisitRound?
    /// What is void once the owner has done the request, though nobody waits for its answer any more.
    private var leftToVoid: VisitRound.Voided?
    /// Whether this is a visit, of which the client hears nothing.
    private let isVisit: Bool
    /// Whether the shard gets a DELETE, whatever the request is.
    let isRemoval: Bool

    /// Takes over the request that is outstanding on the connection.
    init(_ forwarder: Forwarder, _ connection: InboundConnection, _ routes: RoutingTable, hash: UInt32, shard: Int) {
        self.forwarder = forwarder
        self.connection = connection
        self.routes = routes
        self.hash = hash
        self.shard = shard
        isVisit = false
        isRemoval = false
        start = forwarder.loop.now
        sentAt = start
        deadline = start.advanced(by: forwarder.settings.responseTimeout)
        take(connection)
    }

    /// Makes the request, or a removal in its place, at another shard too.
    init(visiting shard: Int, of request: Exchange, isRemoval: Bool, in round: VisitRound) {
        forwarder = request.forwarder
        connection = request.connection
        routes = request.routes
        hash = request.hash
        self.shard = shard
        self.round = round
        self.isRemoval = isRemoval
        isVisit = true
        method = request.method
        largeBody = isRemoval ? nil : request.largeBody
        placement = largeBody == nil ? .shared : .alone
        start = forwarder.loop.now
        sentAt = start
        // What waits for a shard that hangs has to have time left for its owner.
        deadline = start.advanced(by: TimeSpan(nanoseconds: forwarder.settings.responseTimeout.nanoseconds / 4))
    }

    /// Has been to other shards: its owner has all the time that it has for others.
    func restartClock() {
        deadline = forwarder.loop.now.advanced(by: forwarder.settings.responseTimeout)
    }

    /// The process was stopped for so long, which does not count.
    func resume(after stop: TimeSpan) {
        sentAt = min(sentAt.advanced(by: stop), forwarder.loop.now)
        deadline = deadline.advanced(by: stop)
    }

    /// Goes to its owner by way of other shards.
    func makeRound(_ visits: Visits) {
        if visits.first.isEmpty, visits.voided.isEmpty { return forwarder.submitVisited(self) }
        let round = VisitRound(of: self, voided: visits.voided)
        self.round = round
        round.start(visits.first)
    }

    /// Goes to another shard than this one, whose copy will be void.
    func passesOver(_ shard: Int) {
        let round = self.round ?? VisitRound(of: self)
        self.round = round
        round.isVoided(by: shard)
    }

    /// Uses a finished exchange for another push.
    func restart(_ connection: InboundConnection, _ routes: RoutingTable, hash: UInt32, shard: Int) {
        self.connection = connection
        if self.routes !== routes { self.routes = routes }
        self.hash = hash
        self.shard = shard
        start = forwarder.loop.now
        deadline = start.advanced(by: forwarder.settings.responseTimeout)
        failovers = 0
        isSentAgain = false
        leftToVoid = nil
        take(connection)
    }

    private func take(_ connection: InboundConnection) {
        method = connection.method
        connection.owner = self
        largeBody = connection.bodyCount >= Exchange.largeBodySize ? connection.bodyBuffer : nil
        placement = largeBody == nil ? .shared : .alone
    }

    /// Goes to another shard, where nothing is known of it but that it may have been what broke a connection.
    func changesShard() {
        failovers += 1
        isSentAgain = false
        if placement != .shared { placement = .alone }
    }

    /// Whether nobody waits for the answer any more.
    var isAbandoned: Bool { connection == nil }

    var pool: ShardPool { routes.pools[shard] }

    /// Passes the shard's answer on to the client, if it is still there.
    func complete(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse, chunkedBody: UnsafeRawBufferPointer) {
        pool.metrics.countAnswer(response.status, after: forwarder.loop.now.since(sentAt))
        guard connection != nil else {
            if let leftToVoid, response.status < 300 { forwarder.missed(leftToVoid) }
            return
        }
        if isVisit { return endVisit(response.status) }
        if response.status >= 300, response.status < 400 { return refuse(bytes, response) }
        if let round, round.holds(bytes, response, chunkedBody) { return }
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

    /// Tells the client, if it is still there, that there is no answer.
    func fail(_ failure: UpstreamFailure) {
        guard let connection else { return }
        if isVisit {
            pool.metrics.countFailure(failure.status)
            return endVisit(nil)
        }
        // The shard may do it yet.
        leftToVoid = round?.left
        finish(failure.status)
        let shard = routes.ring.isEmpty ? nil : pool.shard
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
        round = nil
        forwarder.metrics.inFlight -= 1
        forwarder.metrics.countAnswer(method, status, forwarder.loop.now.since(start))
    }

    private func endVisit(_ status: Int?) {
        connection = nil
        round?.ended(self, status: status)
        round = nil
    }

    /// Ends the connection of a client that is gone, and with it the request, where the shard has not been sent all of it.
    func dropIfClientIsGone() {
        if let connection, connection.hasClientClosed { connection.abort() }
    }

    /// Whether it matters what the shard answers, though the client waits no more.
    var isAnswerAwaited: Bool { connection != nil || leftToVoid != nil }

    /// Gives up a visit whose client is gone.
    func abandon() {
        connection = nil
        round = nil
    }

    /// Whether the forwarder may use it again for another push.
    var isReusable: Bool { !isVisit }

    /// Lets go of what it holds once it need not be sent again.
    func release() {
        largeBody = nil
        round = nil
    }

    /// From this many bytes on a body has a connection to the shard to itself, so that it holds up nobody.
    static let largeBodySize = 32768
}

extension Exchange: InboundRequestOwner {
    func clientDisconnected() {
        connection = nil
        forwarder.metrics.inFlight -= 1
        leftToVoid = round?.left
        round?.abandon()
        round = nil
    }
}
