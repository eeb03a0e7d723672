// Where every request of a worker comes in: pushes are judged, looked up on the ring and forwarded, or redirected; a GET on
// a push's path tells where it would go; everything else is for the admin endpoints.

/// Answers requests on pushes' paths; loop-confined.
final class PushHandler {
    private let forwarder: Forwarder
    private var parser: GroupingKeyParser
    private var mode: Configuration.Mode
    private var pushCheck: Configuration.PushCheck
    /// Decides about pushes over all shards, where `pushCheck` asks for that.
    var tierCheck: TierCheck?
    private let bodyGuard = PushGuard()
    private let slowJudge: SlowJudge
    private var inflatedLimit: Int
    private let heldPushes: HeldPushes
    /// Answers requests on all other paths.
    var onOther: ((InboundConnection, RequestTarget) -> Void)?

    init(forwarder: Forwarder, configuration: Configuration) {
        self.forwarder = forwarder
        mode = configuration.mode
        pushCheck = configuration.pushCheck
        parser = GroupingKeyParser(key: configuration.hash.key)
        heldPushes = HeldPushes(forwarder: forwarder)
        slowJudge = SlowJudge(mailbox: forwarder.loop.mailbox)
        inflatedLimit = PushHandler.inflatedLimit(configuration)
    }

    private var isGuarding: Bool { pushCheck != .off }

    /// Goes by other settings from now on.
    func apply(_ configuration: Configuration) {
        forwarder.loop.assertOnLoop()
        mode = configuration.mode
        pushCheck = configuration.pushCheck
        parser = GroupingKeyParser(key: configuration.hash.key)
        inflatedLimit = PushHandler.inflatedLimit(configuration)
    }

    /// Holds POSTs with an empty instance for these shards, which have yet to be searched for such groups.
    func holdPosts(for shards: Set<ShardAddress>) {
        forwarder.loop.assertOnLoop()
        heldPushes.hold(for: shards)
    }

    /// Takes a request that has arrived as a whole.
    func handle(_ connection: InboundConnection) {
        forwarder.loop.assertOnLoop()
        let target = RequestTarget(connection.target)
        let method = connection.method
        guard parser.isPushPath(target.path) else { return handleOther(connection, target, method) }
        if method.isPush {
            handlePush(connection, target, method)
        } else if method == .get || method == .head {
            tellPlacement(connection, target, method)
        } else {
            let allow = ReplyHeader(name: "Allow", value: HTTPServer.allowedMethods)
            answer(connection, 405, headers: [allow], line: "method not allowed on a push's path")
        }
    }

    private func handleOther(_ connection: InboundConnection, _ target: RequestTarget, _ method: Method) {
        if method.isPush, let refusal = PathGuard.judgeSegments(target.path) { return refuse(connection, refusal) }
        onOther?(connection, target)
    }

    // MARK: Pushes

    @inline(__always)
    private func handlePush(_ connection: InboundConnection, _ target: RequestTarget, _ method: Method) {
        let (hash, finding) = parser.place(path: target.path)
        if case .nothing = finding {} else if !mayGoOn(connection, target, method, finding) { return }
        guard mode == .forward else { return redirect(connection, hash) }
        if pushCheck == .full, let tierCheck { return check(connection, target, hash, tierCheck) }
        if isGuarding, method != .delete, connection.bodyCount > 0 {
            let (type, coding) = connection.bodyHeaders()
            let body = connection.body
            if SlowJudge.isFor(body, coding: coding) {
                return judgeSlowly(connection, hash, path: target.path, type: type, coding: coding)
            }
            if let refusal = bodyGuard.judge(body, path: target.path, type: type, coding: coding) {
                return refuse(connection, refusal)
            }
        }
        forward(connection, hash)
    }

    @inline(__always)
    private func forward(_ connection: InboundConnection, _ hash: UInt32) {
        if connection.rewrittenTarget != nil, connection.method == .post {
            return heldPushes.forward(connection, hash: hash, nil)
        }
        forwarder.forward(connection, hash: hash)
    }

    @inline(never)
    private func judgeSlowly(
        _ connection: InboundConnection,
        _ hash: UInt32,
        path: UnsafeRawBufferPointer,
        type: UnsafeRawBufferPointer?,
        coding: UnsafeRawBufferPointer?
    ) {
        slowJudge.judge(connection, path: path, type: type, coding: coding, inflatedLimit: inflatedLimit) {
            [unowned self] connection, refusal, _ in
            if let refusal { refuse(connection, refusal) } else { forward(connection, hash) }
        }
    }

    // MARK: The check over all shards

    @inline(never)
    private func check(
        _ connection: InboundConnection,
        _ target: RequestTarget,
        _ hash: UInt32,
        _ tierCheck: TierCheck
    ) {
        guard connection.method != .delete, connection.bodyCount > 0 else {
            bodyGuard.readKey(target.path)
            return decide(connection, hash, .read, tierCheck)
        }
        let (type, coding) = connection.bodyHeaders()
        let body = connection.body
        if SlowJudge.isFor(body, coding: coding) {
            return slowJudge.judge(
                connection,
                path: target.path,
                type: type,
                coding: coding,
                isRead: true,
                inflatedLimit: inflatedLimit
            ) { [unowned self] connection, refusal, contents in
                if let refusal { return refuse(connection, refusal) }
                decide(connection, hash, contents, tierCheck)
            }
        }
        if let refusal = bodyGuard.judge(body, path: target.path, type: type, coding: coding) {
            return refuse(connection, refusal)
        }
        decide(connection, hash, bodyGuard.read(body, path: target.path, type: type), tierCheck)
    }

    /// Decides by what the guard's reader has.
    @inline(__always)
    private func decide(
        _ connection: InboundConnection,
        _ hash: UInt32,
        _ outcome: ContentsReader.Outcome,
        _ tierCheck: TierCheck
    ) {
        let families = bodyGuard.reader.families
        if case .refused(let refusal) = outcome {
            return decide(connection, hash, PushContents.refused(refusal), tierCheck)
        }
        if connection.rewrittenTarget == nil, let counted = tierCheck.takeAtOnce(families) {
            return forwarder.forward(connection, hash: hash, counted)
        }
        decide(connection, hash, PushContents.families(families.pushed()), tierCheck)
    }

    @inline(never)
    private func decide(
        _ connection: InboundConnection,
        _ hash: UInt32,
        _ contents: PushContents,
        _ tierCheck: TierCheck
    ) {
        tierCheck.decide(connection, hash: hash, contents: contents) { [unowned self] connection, outcome in
            switch outcome {
            case .take(let taken) where connection.rewrittenTarget != nil && connection.method == .post:
                heldPushes.forward(connection, hash: hash, taken)
            case .take(let taken): forwarder.forward(connection, hash: hash, taken)
            case .refuse(let refusal): refuse(connection, refusal)
            }
        }
    }

    /// Does what the path asks for; false when the request has been answered.
    @inline(never)
    private func mayGoOn(
        _ connection: InboundConnection,
        _ target: RequestTarget,
        _ method: Method,
        _ finding: PathFinding
    ) -> Bool {
        switch PathGuard.judge(target.path, finding, method: method, isGuarding: isGuarding) {
        case .forward:
            return true
        case .withoutInstance(let path):
            rewrite(connection, target, path)
            return true
        case .refuse(let refusal):
            refuse(connection, refusal)
            return false
        }
    }

    private func rewrite(_ connection: InboundConnection, _ target: RequestTarget, _ path: [UInt8]) {
        connection.rewrittenTarget = RewrittenTarget(path + (target.query.map { [UInt8(ascii: "?")] + $0 } ?? []))
    }

    private func refuse(_ connection: InboundConnection, _ refusal: PushRefusal) {
        forwarder.metrics.countRefusal(refusal.reason)
        answer(connection, refusal.status, line: refusal.line)
    }

    /// Has the client push to the shard itself, as dynamic-sharding does.
    private func redirect(_ connection: InboundConnection, _ hash: UInt32) {
        guard let shard = forwarder.shard(for: hash) else { return answerNoShard(connection) }
        let url = shardURL(shard, connection)
        answer(connection, 307, headers: [ReplyHeader(name: "Location", value: url)], line: url)
    }

    // MARK: Where pushes go

    /// dynamic-sharding's answer to a GET.
    private func tellPlacement(_ connection: InboundConnection, _ target: RequestTarget, _ method: Method) {
        let (hash, finding) = parser.place(path: target.path)
        switch finding {
        // No push goes anywhere with such a path; a client that has followed a redirect must not see a 200.
        case .unclean, .noJob:
            if case .refuse(let refusal) = PathGuard.judge(target.path, finding, method: method, isGuarding: false) {
                return answer(connection, refusal.status, line: refusal.line)
            }
        case .emptyInstance where isGuarding:
            rewrite(connection, target, PathGuard.withoutInstance(target.path))
        default:
            break
        }
        guard let shard = forwarder.shard(for: hash) else { return answerNoShard(connection) }
        answer(connection, 200, line: "nextUrl:\(shardURL(shard, connection))")
    }

    private func shardURL(_ shard: ShardAddress, _ connection: InboundConnection) -> String {
        "http://\(shard)\(String(decoding: connection.forwardedTarget, as: UTF8.self))"
    }

    private func answerNoShard(_ connection: InboundConnection) {
        forwarder.metrics.countRejection(.noShard)
        let headers = [ReplyHeader(name: "Retry-After", value: "1")]
        answer(connection, 503, headers: headers, line: UpstreamFailure.noShard.line(shard: nil))
    }

    private func answer(_ connection: InboundConnection, _ status: Int, headers: [ReplyHeader] = [], line: String) {
        let method = connection.method
        if method.isPush {
            forwarder.metrics.countAnswer(method, status, connection.waitingTime)
        } else {
            forwarder.metrics.countAnswer(method, status)
        }
        connection.reply(status: status, headers: headers, line: line)
    }

    /// Enough for text that gzip makes an eighth of.
    private static func inflatedLimit(_ configuration: Configuration) -> Int {
        let bodyBytes = configuration.limits.bodyBytes
        return max(bodyBytes, min(8 * bodyBytes, 64 << 20))
    }
}
