// One event loop with everything that pushes pass through on it. The server makes workers, gives each the same rings
// and settings, and adds up what they count. Workers share nothing but immutable values.
import Logging
import MovingCore

/// A loop's ingress and forwarding.
final class Worker {
    let loop: EventLoop
    let metrics = RequestMetrics()
    let forwarder: Forwarder
    let pushHandler: PushHandler
    let server: HTTPServer
    /// Told of what the worker's pushes find out about the register.
    var onFailure: (StoreID, String) -> Void = { _, _ in }
    var onDropBackup: (Slot) -> Void = { _ in }
    var onNote: (Note) -> Void = { _ in }
    private var configuration: Configuration
    private let logger: Logger

    init(loop: EventLoop, configuration: Configuration, descriptorLimit: Int, resolver: Resolver, logger: Logger) {
        self.loop = loop
        self.logger = logger
        self.configuration = configuration
        forwarder = Forwarder(
            loop: loop,
            metrics: metrics,
            resolver: resolver,
            settings: ForwardSettings(configuration),
            logger: logger
        )
        let pushHandler = PushHandler(forwarder: forwarder, configuration: configuration)
        self.pushHandler = pushHandler
        server = HTTPServer(
            loop: loop,
            limits: InboundLimits(configuration, descriptorLimit: descriptorLimit),
            onRequest: { pushHandler.handle($0) },
            onRefusal: { [metrics, logger] in
                metrics.countRejection(RejectionReason(refusalStatus: $0.status))
                logger.debug("request refused", metadata: ["status": "\($0.status)", "reason": "\($0.message)"])
            }
        )
        logRequests()
    }

    /// Goes by a register from now on.
    ///
    /// - Parameter peers: the other replicas, and the other workers of this one.
    func follow(_ placement: Placement, peers: [Peer], hasConsul: Bool, settings: UInt64) {
        if forwarder.follower == nil {
            let key = configuration.hash.key
            let follower = Follower(forwarder, placement, key: key, settings: settings)
            follower.onFailure = { [unowned self] in onFailure($0, $1) }
            follower.onDropBackup = { [unowned self] in onDropBackup($0) }
            follower.onNote = { [unowned self] in onNote($0) }
            forwarder.begin(follower)
        }
        forwarder.follow(placement, peers: peers, hasConsul: hasConsul)
    }

    /// Goes by other settings from now on; nothing under way is disturbed.
    func apply(_ configuration: Configuration, descriptorLimit: Int) {
        loop.assertOnLoop()
        forwarder.settings = ForwardSettings(configuration)
        pushHandler.apply(configuration)
        server.limits = InboundLimits(configuration, descriptorLimit: descriptorLimit)
        self.configuration = configuration
        logRequests()
    }

    /// Logs each request where the log's level asks for it.
    private func logRequests() {
        guard logger.logLevel <= .debug else { return server.onAnswer = nil }
        server.onAnswer = { [logger] connection, status in
            let exchange = connection.owner as? Exchange
            var metadata: Logger.Metadata = [
                "method": "\(connection.method.name)",
                "path": "\(String(decoding: RequestTarget(connection.target).path, as: UTF8.self))",
                "status": status.map { "\($0)" } ?? "none: the client has gone",
                "duration": "\(connection.waitingTime.seconds)s",
            ]
            if let exchange, !exchange.routes.pools.isEmpty { metadata["shard"] = "\(exchange.pool.shard)" }
            logger.debug("request", metadata: metadata)
        }
    }

    /// What has been counted so far.
    var snapshot: WorkerSnapshot {
        loop.assertOnLoop()
        var snapshot = WorkerSnapshot()
        snapshot.answers = metrics.answers
        snapshot.durations = metrics.durations
        snapshot.handoverWaits = metrics.handoverWaits
        snapshot.rejections = metrics.rejections
        snapshot.refusals = metrics.refusals
        snapshot.inFlight = metrics.inFlight
        snapshot.connections = server.connectionCount
        for pool in forwarder.pools.values {
            snapshot.shards[pool.shard] = WorkerSnapshot.Shard(
                answers: pool.metrics.answers,
                responses: pool.metrics.responses,
                failovers: pool.metrics.failovers,
                inFlight: pool.exchangeCount,
                connections: pool.pipelines.count,
                fault: pool.fault,
                queue: pool.waitingCount,
                retries: pool.metrics.retries,
                connectErrors: pool.metrics.connectErrors,
                bytesIn: pool.metrics.bytesIn,
                bytesOut: pool.metrics.bytesOut,
                checkFailures: pool.metrics.checkFailures,
                lastSuccess: pool.metrics.lastSuccess
            )
        }
        return snapshot
    }
}

extension ForwardSettings {
    init(_ configuration: Configuration) {
        let forward = configuration.forward
        self.init(
            connectTimeout: forward.connectTimeout,
            responseTimeout: forward.responseTimeout,
            connectionLimit: forward.connectionsPerShard,
            pipelineDepth: forward.pipelineDepth,
            queueLimit: forward.queuePerShard,
            failsOver: forward.failover,
            check: configuration.check
        )
    }
}

extension InboundLimits {
    /// What each worker grants.
    ///
    /// - Parameter descriptorLimit: how many descriptors the process has for clients and their requests.
    init(_ configuration: Configuration, descriptorLimit: Int) {
        let limits = configuration.limits
        let descriptors = descriptorLimit / configuration.workers
        let connections = max(1, min(limits.connections / configuration.workers, descriptors * 2 / 3))
        self.init(
            gate: Gate.Limits(
                headerBytes: limits.headerBytes,
                headerCount: limits.headerCount,
                bodyBytes: limits.bodyBytes
            ),
            bodiesBytes: limits.bodiesBytes / configuration.workers,
            headerTimeout: limits.headerTimeout,
            bodyTimeout: limits.bodyTimeout,
            idleTimeout: limits.idleTimeout,
            connections: connections,
            requests: max(1, min(connections, descriptors - connections))
        )
    }
}
