// One event loop with everything that pushes pass through on it. The server makes workers, gives each the same rings
// and settings, and adds up what they count. Workers share nothing but immutable values.
import Logging

/// A loop's ingress and forwarding.
final class Worker {
    let loop: EventLoop
    let metrics = RequestMetrics()
    let forwarder: Forwarder
    let pushHandler: PushHandler
    let server: HTTPServer
    /// Told of a shard that has become suspect.
    var onSuspect: ((ShardAddress) -> Void)?
    /// Told of a suspect shard that answers again: the worker uses it again when `done` is called, on its loop.
    var onShardAnswers: ((ShardAddress, _ done: @escaping () -> Void) -> Void)?
    /// Told of a shard that has been suspect and is used again.
    var onShardUp: ((ShardAddress) -> Void)?
    private let suspects: SuspectProber
    private let logger: Logger

    init(loop: EventLoop, configuration: Configuration, descriptorLimit: Int, resolver: Resolver, logger: Logger) {
        self.loop = loop
        self.logger = logger
        suspects = SuspectProber(loop: loop, check: configuration.check, resolver: resolver)
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
        forwarder.onSuspect = { [unowned self] pool in
            suspects.watch(pool)
            if forwarder.settings.failsOver { onSuspect?(pool.shard) }
        }
        suspects.onAnswer = { [unowned self] pool in
            guard let onShardAnswers else { return pool.markUp() }
            onShardAnswers(pool.shard) { [unowned self] in
                pool.markUp()
                onShardUp?(pool.shard)
            }
        }
    }

    /// Goes by other settings from now on; nothing under way is disturbed.
    func apply(_ configuration: Configuration, descriptorLimit: Int) {
        loop.assertOnLoop()
        forwarder.settings = ForwardSettings(configuration)
        pushHandler.apply(configuration)
        server.limits = InboundLimits(configuration, descriptorLimit: descriptorLimit)
        suspects.check = configuration.check
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
            if let exchange, !exchange.routes.ring.isEmpty { metadata["shard"] = "\(exchange.pool.shard)" }
            logger.debug("request", metadata: metadata)
        }
    }

    /// What has been counted so far.
    var snapshot: WorkerSnapshot {
        loop.assertOnLoop()
        var snapshot = WorkerSnapshot()
        snapshot.answers = metrics.answers
        snapshot.durations = metrics.durations
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
                suspicion: pool.suspicion,
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
