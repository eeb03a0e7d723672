// Everything that is not a push: health, metrics, the API, lifecycle. A worker's push handler passes such requests on.

/// What the admin endpoints ask of the server.
protocol AdminDelegate: AnyObject {
    var status: ServerStatus { get }
    /// The workers' figures, added up.
    var snapshot: WorkerSnapshot { get }
    /// Reads the configuration anew; returns what is wrong with it, and then nothing has changed.
    func reload() -> [String]
    /// Shuts down gracefully.
    func quit()
}

/// Answers requests on all paths but those of pushes; loop-confined.
final class AdminHandler {
    private unowned let server: any AdminDelegate
    private let forwarder: Forwarder

    init(server: any AdminDelegate, forwarder: Forwarder) {
        self.server = server
        self.forwarder = forwarder
    }

    /// Answers a request that has arrived as a whole.
    func handle(_ connection: InboundConnection, _ target: RequestTarget) {
        switch String(decoding: target.path, as: UTF8.self) {
        case "/metrics":
            read(connection) { answer in
                var text = MetricsExposition(server.status, server.snapshot)
                text.write()
                answer(200, "text/plain; version=0.0.4; charset=utf-8", text.bytes)
            }
        case "/-/healthy":
            readLine(connection, 200, "shardd is healthy")
        case "/-/ready":
            let status = server.status
            readLine(connection, status.isReady ? 200 : 503, readiness(status))
        case "/test/v1":
            readLine(connection, 200, "hello from shardd")
        case "/api/v1/ring":
            readJSON(connection) { .ring(server.status, server.snapshot) }
        case "/api/v1/sd":
            readJSON(connection) { .serviceDiscovery(server.status.ring) }
        case "/api/v1/locate":
            locate(connection, target)
        case "/-/reload":
            lifecycle(connection) { reload() }
        case "/-/quit":
            lifecycle(connection) {
                server.quit()
                return (200, "shardd is shutting down")
            }
        default:
            answer(connection, 404, line: "not found")
        }
    }

    private func readiness(_ status: ServerStatus) -> String {
        if status.isDraining { return "shardd is not ready: it is shutting down" }
        return status.ring.isEmpty ? "shardd is not ready: no shard is healthy" : "shardd is ready"
    }

    private func locate(_ connection: InboundConnection, _ target: RequestTarget) {
        guard let path = target.parameter("path"), !path.isEmpty else {
            return readLine(connection, 400, "the parameter path is missing: /api/v1/locate?path=/metrics/job/JOB")
        }
        let status = server.status
        guard let located = LocatedPath(path, status, forwarder) else {
            return readLine(connection, 400, "the parameter path is not a push's: expected /metrics/job/JOB/...")
        }
        readJSON(connection) { .locate(located) }
    }

    private func reload() -> (Int, String) {
        let problems = server.reload()
        if problems.isEmpty { return (200, "the configuration has been reloaded") }
        return (500, "the configuration has not been reloaded: " + problems.joined(separator: "; "))
    }

    // MARK: Answering

    private func readJSON(_ connection: InboundConnection, _ document: () -> APIDocument) {
        read(connection) { answer in
            document().withJSON { answer(200, "application/json", $0) }
        }
    }

    private func readLine(_ connection: InboundConnection, _ status: Int, _ line: String) {
        guard isRead(connection) else { return }
        answer(connection, status, line: line)
    }

    private func read(
        _ connection: InboundConnection,
        _ body: ((Int, StaticString, UnsafeRawBufferPointer) -> Void) -> Void
    ) {
        guard isRead(connection) else { return }
        body { status, contentType, bytes in
            forwarder.metrics.countAnswer(connection.method, status, .zero)
            connection.reply(status: status, contentType: contentType, body: bytes)
        }
    }

    /// Whether the method is GET or HEAD; any other is answered here.
    private func isRead(_ connection: InboundConnection) -> Bool {
        if connection.method == .get || connection.method == .head { return true }
        refuseMethod(connection, allowed: "GET, HEAD")
        return false
    }

    private func lifecycle(_ connection: InboundConnection, _ act: () -> (Int, String)) {
        guard connection.method == .post || connection.method == .put else {
            return refuseMethod(connection, allowed: "POST, PUT")
        }
        guard server.status.isLifecycleEnabled else {
            return answer(
                connection,
                403,
                line: "lifecycle endpoints are off: start shardd with --web.enable-lifecycle"
            )
        }
        let (status, line) = act()
        answer(connection, status, line: line)
    }

    private func refuseMethod(_ connection: InboundConnection, allowed: String) {
        answer(connection, 405, headers: [ReplyHeader(name: "Allow", value: allowed)], line: "method not allowed")
    }

    private func answer(_ connection: InboundConnection, _ status: Int, headers: [ReplyHeader] = [], line: String) {
        forwarder.metrics.countAnswer(connection.method, status, .zero)
        connection.reply(status: status, headers: headers, line: line)
    }
}
