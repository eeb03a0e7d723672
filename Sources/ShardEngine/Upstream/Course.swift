// The way of one push while the register is not settled: the shell of a `RequestMachine`. It keeps the request, so that it can
// be sent to a backup or made again though its client has gone, and the owner's answer until the client may have it. A follower
// makes one for each such exchange.
import MovingCore

/// One exchange's course; confined to its worker's loop.
final class Course {
    private unowned(unsafe) let exchange: Exchange
    private let follower: Follower
    let id: Int
    private var machine: RequestMachine
    /// Nil for a request that was sent before the register left rest, and whose client had gone: it cannot be sent again.
    private let request: KeptRequest?
    /// In which form the shard has the push now.
    private var form = PushForm.plain
    /// The answer to the push, until its mark is answered.
    private var unmarked: HeldAnswer?
    /// The answer that the client gets once the backup has the push, too.
    private var ownerAnswer: HeldAnswer?
    /// Since when it waits for a mover.
    private(set) var fencedSince: MonotonicTime?
    /// Since when no store is there that could take it.
    private var storelessSince: MonotonicTime?
    var isWaiting = false

    /// A push that begins while the register is not settled.
    init(_ exchange: Exchange, _ follower: Follower, id: Int) {
        (self.exchange, self.follower, self.id) = (exchange, follower, id)
        request = KeptRequest(exchange)
        machine = RequestMachine(id: id, hash: exchange.hash, .init(exchange.method))
    }

    /// A push that a shard has, or that waits for one, while the register leaves rest, or the shard is found to have failed.
    ///
    /// - Parameter isByFormer: whether it was sent by another register than the one that the follower has.
    init(takingOver exchange: Exchange, _ follower: Follower, id: Int, byFormer isByFormer: Bool = false) {
        (self.exchange, self.follower, self.id) = (exchange, follower, id)
        request = KeptRequest(exchange)
        machine = RequestMachine(
            id: id,
            hash: exchange.hash,
            .init(exchange.method),
            sentTo: exchange.routes.store(exchange.shard),
            byFormer: isByFormer,
            follower.following
        )
    }

    /// Whether the push can be sent again: nothing is known of it any more where its client had gone before there was a course.
    var isKept: Bool { request != nil }

    /// Whether the request has a body that would hold up others on its connection.
    var isLarge: Bool { (request?.bytes.count ?? 0) >= Exchange.largeBodySize }

    // MARK: Going on

    /// Begins, or goes on after it has waited.
    func resume() {
        isWaiting = false
        perform(machine.resume(follower.following))
    }

    /// The shard refused the push, or broke its connection.
    func refused(_ failure: UpstreamFailure) {
        perform(machine.ended(.refused, follower.following), failure)
    }

    /// A shard has answered.
    func answered(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse, _ chunkedBody: UnsafeRawBufferPointer) {
        var answer = HeldAnswer(bytes, response, chunkedBody)
        var result = response.status < 300 ? PushResult.done : .rejected
        if let unmarked {
            self.unmarked = nil
            // Both or none: without its mark the push could be taken for one that a predecessor's values go with.
            if result == .done { result = unmarked.response.status < 300 ? .done : .rejected }
            answer = unmarked
        }
        let isOwner = !machine.isAtBackup
        let action = machine.ended(result, follower.following)
        if isOwner { ownerAnswer = answer }
        perform(action)
    }

    /// Keeps the answer to the push until the answer to its mark; false where there is no mark, or this is its answer.
    func keepsUntilMarked(
        _ bytes: UnsafeRawBufferPointer,
        _ response: ParsedResponse,
        _ chunkedBody: UnsafeRawBufferPointer
    ) -> Bool {
        guard case .marked = form, unmarked == nil else { return false }
        unmarked = HeldAnswer(bytes, response, chunkedBody)
        return true
    }

    /// There is no answer.
    func failed(_ failure: UpstreamFailure) {
        switch failure {
        case .unreachable: refused(failure)
        case .timeout where exchange.pool.standing == .doubted:
            perform(machine.ended(.late, follower.following), failure)
        case .timeout, .brokeConnection, .garbage, .queueFull, .noDescriptors, .noShard, .moving:
            // It says nothing of the shard as a whole: as a backup, it is not equal any more.
            perform(
                machine.ended(machine.isAtBackup ? .rejected : .late, follower.following),
                failure,
                sparesShard: true
            )
        }
    }

    // MARK: The end

    /// Nobody waits for the answer any more. What a shard may have been sent is seen through.
    func clientHasGone() {
        if !exchange.isOnPipeline, ownerAnswer == nil { abandon() }
    }

    /// Ends the push if it has waited for too long.
    func enforceTimeLimit(at now: MonotonicTime) {
        let isStoreless = storelessSince.map { now.since($0) >= Course.storelessTime } ?? false
        guard isStoreless || now >= exchange.deadline else { return }
        let cause = storelessSince == nil ? nil : follower.cause(of: exchange.hash)
        abandon()
        exchange.tell(cause.map { .unreachable($0) } ?? .moving)
    }

    /// Shards that have all restarted are in use again within so much.
    private static let storelessTime = TimeSpan.seconds(1)

    /// Another register takes the place of this one.
    func letGo() { abandon() }

    private func abandon() {
        machine.abandon(follower.following)
        end()
    }

    private func end() {
        exchange.course = nil
        follower.ended(self)
    }

    // MARK: Actions

    /// - Parameter sparesShard: a push that was given up is no reason to have the shard failed over.
    private func perform(_ action: RequestAction, _ failure: UpstreamFailure = .timeout, sparesShard: Bool = false) {
        switch action {
        case .wait(let reason):
            wait(reason, failure)
        case .send(let store, let form):
            send(to: store, form)
        case .failOver(let store):
            ownerAnswer = nil
            follower.wait(exchange, self)
            follower.onFailure(store, failure.cause)
        case .dropBackup(let slot):
            ownerAnswer = nil
            follower.wait(exchange, self)
            follower.onDropBackup(slot)
        case .answer:
            end()
            if let ownerAnswer { ownerAnswer.pass(to: exchange) } else { exchange.tell(failure) }
        case .giveUp(let store):
            end()
            if let store, !sparesShard { follower.onFailure(store, failure.cause) }
            exchange.tell(failure)
        }
    }

    private func wait(_ reason: WaitReason, _ failure: UpstreamFailure) {
        ownerAnswer = nil
        switch reason {
        case .noStore:
            storelessSince = storelessSince ?? follower.forwarder.loop.now
            follower.wait(exchange, self)
        case .fence:
            fencedSince = fencedSince ?? follower.forwarder.loop.now
            follower.wait(exchange, self)
        case .unclean, .notFollowed:
            follower.wait(exchange, self)
        }
    }

    private func send(to store: StoreID, _ form: PushForm) {
        storelessSince = nil
        if let fencedSince {
            follower.forwarder.metrics.countHandoverWait(follower.forwarder.loop.now.since(fencedSince))
            self.fencedSince = nil
        }
        let routes = follower.forwarder.routes
        guard request != nil, let place = routes.place(of: store) else {
            return perform(machine.ended(machine.isAtBackup ? .rejected : .refused, follower.following))
        }
        // What another store has answered before says nothing any more.
        if !machine.isAtBackup { ownerAnswer = nil }
        if form != .tried { countFailover(store, routes) }
        self.form = form
        unmarked = nil
        exchange.move(to: routes, shard: place)
        exchange.pool.submit(exchange)
    }

    private func countFailover(_ store: StoreID, _ routes: RoutingTable) {
        if let whole = routes.wholeRing {
            let owner = whole.shards[whole.owner(of: exchange.hash)]
            if routes.place(of: store).map({ routes.pools[$0].shard }) != owner {
                follower.forwarder.pools[owner]?.metrics.failovers += 1
            }
            return
        }
        let owner = follower.following.rings.slot(of: exchange.hash).after
        guard store != owner, follower.following.view.isDown(owner), let place = routes.place(of: owner) else { return }
        routes.pools[place].metrics.failovers += 1
    }

    /// Appends the request in its form; returns how many answers come before the one that counts.
    func write(to buffer: inout ByteBuffer, headers: [(name: String, value: String)]) -> Int {
        guard let request else { preconditionFailure("a request that was not kept is sent again") }
        switch form {
        case .plain: buffer.append(request.bytes.readable)
        case .tried:
            request.appendAsPost(to: &buffer)
            return 0
        case .marked(let number):
            // Of a shard that answers one request on a connection, the answer to the push may have come already.
            let isTaken = unmarked != nil
            if !isTaken { buffer.append(request.bytes.readable) }
            guard let mark = request.path.withUnsafeBytes({ MarkID(path: $0, follower.parser) }) else {
                preconditionFailure("a push on a path that no shard takes")
            }
            buffer.append(markOf: mark, number: number, headers: headers)
            if isTaken { return 0 }
        }
        return request.precedingAnswers
    }
}

extension RequestMachine.Method {
    init(_ method: Method) {
        self =
            switch method {
            case .post: .post
            case .delete: .delete
            default: .put
            }
    }
}

/// A request as it goes to shards, apart from its connection.
private final class KeptRequest {
    private(set) var bytes = ByteBuffer(capacity: 512)
    /// How many requests go before the push, and where it begins.
    let precedingAnswers: Int
    private let start: Int
    let path: [UInt8]

    init?(_ exchange: Exchange) {
        guard let connection = exchange.connection else { return nil }
        precedingAnswers = bytes.append(removalBefore: connection, to: exchange.pool.shard)
        start = bytes.count
        bytes.append(pushOf: connection, to: exchange.pool.shard, largeBody: nil)
        path = Array(RequestTarget(connection.forwardedTarget).path)
    }

    /// Appends the push, which is a PUT, as a POST, and nothing that goes before it.
    func appendAsPost(to buffer: inout ByteBuffer) {
        precondition(begins(bytes.readable, at: start, with: Method.put.name))
        buffer.append(Method.post.name)
        let rest = start + Method.put.name.utf8CodeUnitCount
        buffer.append(UnsafeRawBufferPointer(rebasing: bytes.readable[rest...]))
    }
}

/// A shard's answer that the client gets later.
private struct HeldAnswer {
    private var bytes: [UInt8]
    var response: ParsedResponse
    private var chunkedBody: [UInt8]

    init(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse, _ chunkedBody: UnsafeRawBufferPointer) {
        self.bytes = Array(bytes.prefix(response.consumed))
        self.response = response
        self.chunkedBody = response.isChunked ? Array(chunkedBody) : []
    }

    func pass(to exchange: Exchange) {
        bytes.withUnsafeBytes { bytes in
            chunkedBody.withUnsafeBytes { exchange.answer(bytes, response, chunkedBody: $0) }
        }
    }
}
