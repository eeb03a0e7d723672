// Where every request of a worker comes in: pushes are looked up on the ring and forwarded, or redirected; a GET on a
// push's path tells where it would go; everything else is for the admin endpoints.

/// Answers requests on pushes' paths; loop-confined.
final class PushHandler {
    private let forwarder: Forwarder
    private var parser: GroupingKeyParser
    private var mode: Configuration.Mode
    /// Answers requests on all other paths.
    var onOther: ((InboundConnection, RequestTarget) -> Void)?

    init(forwarder: Forwarder, mode: Configuration.Mode, key: HashKey) {
        self.forwarder = forwarder
        self.mode = mode
        parser = GroupingKeyParser(key: key)
    }

    /// Goes by other settings from now on.
    func apply(mode: Configuration.Mode, key: HashKey) {
        self.mode = mode
        parser = GroupingKeyParser(key: key)
    }

    /// Takes a request that has arrived as a whole.
    func handle(_ connection: InboundConnection) {
        let target = RequestTarget(connection.target)
        guard parser.isPushPath(target.path) else {
            onOther?(connection, target)
            return
        }
        let method = connection.method
        if method.isPush {
            let hash = parser.hash(path: target.path)
            if mode == .forward { forwarder.forward(connection, hash: hash) } else { redirect(connection, hash) }
        } else if method == .get || method == .head {
            tellPlacement(connection, parser.hash(path: target.path))
        } else {
            let allow = ReplyHeader(name: "Allow", value: HTTPServer.allowedMethods)
            answer(connection, 405, headers: [allow], line: "method not allowed on a push's path")
        }
    }

    /// Has the client push to the shard itself, as dynamic-sharding does.
    private func redirect(_ connection: InboundConnection, _ hash: UInt32) {
        guard let shard = forwarder.shard(for: hash) else { return answerNoShard(connection) }
        let url = shardURL(shard, connection)
        answer(connection, 307, headers: [ReplyHeader(name: "Location", value: url)], line: url)
    }

    /// dynamic-sharding's answer to a GET.
    private func tellPlacement(_ connection: InboundConnection, _ hash: UInt32) {
        guard let shard = forwarder.shard(for: hash) else { return answerNoShard(connection) }
        answer(connection, 200, line: "nextUrl:\(shardURL(shard, connection))")
    }

    private func shardURL(_ shard: ShardAddress, _ connection: InboundConnection) -> String {
        "http://\(shard)\(String(decoding: connection.target, as: UTF8.self))"
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
}
