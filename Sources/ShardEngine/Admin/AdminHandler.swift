// Everything that is not a push: health, metrics, the API, lifecycle. A worker's push handler passes such requests on.

/// What the admin endpoints ask of the server. They may be on another loop than the server: it answers on theirs.
protocol AdminDelegate: Sendable {
    /// Whether the lifecycle endpoints are on; never changes.
    var isLifecycleEnabled: Bool { get }
    /// What was built; never changes.
    var build: BuildInfo { get }
    /// Calls `done`, on the loop of the mailbox, with the server's state and all workers' figures, added up.
    func gather(for mailbox: LoopMailbox, _ done: @escaping (ServerStatus, WorkerSnapshot) -> Void)
    /// Reads the configuration anew; `done`, on the loop of the mailbox, gets what is wrong with it, and then nothing
    /// has changed.
    func reload(for mailbox: LoopMailbox, _ done: @escaping ([String]) -> Void)
    /// Shuts down gracefully.
    func quit(from mailbox: LoopMailbox)
}

/// Answers requests of one worker on all paths but those of pushes; loop-confined.
final class AdminHandler {
    private let server: any AdminDelegate
    private let forwarder: Forwarder
    /// What the server and all workers told last, and in which turn.
    private var latest: (at: MonotonicTime, status: ServerStatus, snapshot: WorkerSnapshot)?
    private var mailbox: LoopMailbox { forwarder.loop.mailbox }
    private let metrics = SharedPage()
    private let ring = SharedPage()
    private let targets = SharedPage()

    init(server: any AdminDelegate, forwarder: Forwarder) {
        self.server = server
        self.forwarder = forwarder
    }

    /// Answers a request that has arrived as a whole.
    func handle(_ connection: InboundConnection, _ target: RequestTarget) {
        mailbox.assertOnLoop()
        switch String(decoding: target.path, as: UTF8.self) {
        case "/":
            welcome(connection)
        case "/metrics":
            readPage(connection, metrics, "text/plain; version=0.0.4; charset=utf-8") { status, snapshot, fill in
                var text = MetricsExposition(status, snapshot)
                text.write()
                fill(text.bytes)
            }
        case "/-/healthy":
            readLine(connection, 200, "shardd is healthy")
        case "/-/ready":
            read(connection) { status, snapshot, answer in
                let problem = Readiness(status, snapshot).problem
                var line = problem.map { "shardd is not ready: \($0)\n" } ?? "shardd is ready\n"
                let code = problem == nil ? 200 : 503
                line.withUTF8 { answer(code, "text/plain; charset=utf-8", UnsafeRawBufferPointer($0)) }
            }
        case "/test/v1":
            readLine(connection, 200, "hello from shardd")
        case "/api/v1/ring":
            readPage(connection, ring, "application/json") { APIDocument.ring($0, $1).withJSON($2) }
        case "/api/v1/sd":
            readPage(connection, targets, "application/json") { APIDocument.serviceDiscovery($0, $1).withJSON($2) }
        case "/api/v1/locate":
            locate(connection, target)
        case "/-/reload":
            if isLifecycle(connection) { reload(connection) }
        case "/-/quit":
            guard isLifecycle(connection) else { return }
            answer(connection, 200, line: "shardd is shutting down")
            server.quit(from: mailbox)
        default:
            answer(connection, 404, line: "not found")
        }
    }

    /// For people, and for balancers, which ask for `/` by default.
    private func welcome(_ connection: InboundConnection) {
        if connection.method == .options {
            let allow = ReplyHeader(name: "Allow", value: "GET, HEAD, OPTIONS")
            return answer(connection, 200, headers: [allow], line: links)
        }
        readLine(connection, 200, links)
    }

    private var links: String {
        """
        shardd \(server.build.version): a tier in front of Prometheus Pushgateways
        /metrics
        /-/healthy
        /-/ready
        /api/v1/ring
        /api/v1/locate?path=/metrics/job/JOB
        /api/v1/sd
        """
    }

    private func locate(_ connection: InboundConnection, _ target: RequestTarget) {
        guard let path = target.parameter("path"), !path.isEmpty else {
            return readLine(connection, 400, "the parameter path is missing: /api/v1/locate?path=/metrics/job/JOB")
        }
        guard LocatedPath.isPush(path) else {
            return readLine(connection, 400, "the parameter path is not a push's: expected /metrics/job/JOB/...")
        }
        readJSON(connection) { status, _ in .locate(LocatedPath(path, status)) }
    }

    private func reload(_ connection: InboundConnection) {
        let pending = PendingAnswer(connection)
        server.reload(for: mailbox) { [self] problems in
            guard let connection = pending.connection else { return }
            if problems.isEmpty { return answer(connection, 200, line: "the configuration has been reloaded") }
            let reasons = problems.joined(separator: "; ")
            answer(connection, 500, line: "the configuration has not been reloaded: \(reasons)")
        }
    }

    // MARK: Answering

    private func readJSON(
        _ connection: InboundConnection,
        _ document: @escaping (ServerStatus, WorkerSnapshot) -> APIDocument
    ) {
        read(connection) { status, snapshot, answer in
            document(status, snapshot).withJSON { answer(200, "application/json", $0) }
        }
    }

    /// Answers with a document that many ask for, which `make` makes by what the server and all workers tell.
    private func readPage(
        _ connection: InboundConnection,
        _ page: SharedPage,
        _ contentType: StaticString,
        _ make: @escaping (ServerStatus, WorkerSnapshot, (UnsafeRawBufferPointer) -> Void) -> Void
    ) {
        guard isRead(connection) else { return }
        if page.isFresh(at: forwarder.loop.now) { return answer(connection, page, contentType) }
        let pending = PendingAnswer(connection)
        gather { [self] status, snapshot in
            guard let connection = pending.connection else { return }
            // Others may have waited for the same.
            if !page.isFresh(at: forwarder.loop.now) {
                make(status, snapshot) { page.fill($0, at: forwarder.loop.now) }
            }
            answer(connection, page, contentType)
        }
    }

    /// Asks the server and all workers, once in a turn: with very many shards that takes a millisecond.
    private func gather(_ done: @escaping (ServerStatus, WorkerSnapshot) -> Void) {
        let now = forwarder.loop.now
        if let latest, latest.at == now { return done(latest.status, latest.snapshot) }
        server.gather(for: mailbox) { [self] status, snapshot in
            latest = (forwarder.loop.now, status, snapshot)
            done(status, snapshot)
        }
    }

    private func answer(_ connection: InboundConnection, _ page: SharedPage, _ contentType: StaticString) {
        forwarder.metrics.countAnswer(connection.method, 200)
        page.answer(connection, contentType: contentType)
    }

    private func readLine(_ connection: InboundConnection, _ status: Int, _ line: String) {
        guard isRead(connection) else { return }
        answer(connection, status, line: line)
    }

    /// Answers by what the server and all workers tell, if the client is still there by then.
    private func read(
        _ connection: InboundConnection,
        _ body: @escaping (ServerStatus, WorkerSnapshot, (Int, StaticString, UnsafeRawBufferPointer) -> Void) -> Void
    ) {
        guard isRead(connection) else { return }
        let pending = PendingAnswer(connection)
        gather { [self] status, snapshot in
            guard let connection = pending.connection else { return }
            body(status, snapshot) { code, contentType, bytes in
                forwarder.metrics.countAnswer(connection.method, code)
                connection.reply(status: code, contentType: contentType, body: bytes)
            }
        }
    }

    /// Whether the method is GET or HEAD; any other is answered here.
    private func isRead(_ connection: InboundConnection) -> Bool {
        if connection.method == .get || connection.method == .head { return true }
        refuseMethod(connection, allowed: "GET, HEAD")
        return false
    }

    /// Whether the request may act on the server; any other is answered here.
    private func isLifecycle(_ connection: InboundConnection) -> Bool {
        guard connection.method == .post || connection.method == .put else {
            refuseMethod(connection, allowed: "POST, PUT")
            return false
        }
        if server.isLifecycleEnabled { return true }
        answer(connection, 403, line: "lifecycle endpoints are off: start shardd with --web.enable-lifecycle")
        return false
    }

    private func refuseMethod(_ connection: InboundConnection, allowed: String) {
        answer(connection, 405, headers: [ReplyHeader(name: "Allow", value: allowed)], line: "method not allowed")
    }

    private func answer(_ connection: InboundConnection, _ status: Int, headers: [ReplyHeader] = [], line: String) {
        forwarder.metrics.countAnswer(connection.method, status)
        connection.reply(status: status, headers: headers, line: line)
    }
}

/// A request whose answer has to be fetched from other loops first.
private final class PendingAnswer: InboundRequestOwner {
    /// The client; nil once it is gone.
    private(set) var connection: InboundConnection?

    init(_ connection: InboundConnection) {
        self.connection = connection
        connection.owner = self
    }

    func clientDisconnected() {
        connection = nil
    }
}
