// The composition root: what shardd is made of, and how its parts hear of each other.
//
//   client ─▶ HTTPServer ─▶ PushHandler ─▶ GroupingKeyParser ─▶ Ring ─▶ Forwarder ─▶ ShardPool ─▶ Pipeline ══▶ shard
//                               └─▶ AdminHandler                 ▲ swap
//                                                   Discovery ─▶ RingBuilder
//
// `run` is called by the command line and returns when the server has shut down.
import Glibc
import Logging

/// A running shardd.
public final class Server {
    private let options: ServeOptions
    private let logLevel: LogLevelBox
    private let logger: Logger
    private let loop: EventLoop
    private let worker: Worker
    private let discovery: Discovery
    private let ringBuilder: RingBuilder
    private let suspects: SuspectProber
    private var adminHandler: AdminHandler?
    private var configuration: Configuration
    private var membership: Membership
    private var generation = 1
    private var ringChangedAt = wallClock()
    private var isDraining = false
    private var wasLastReloadSuccessful = true
    private let descriptors: Int
    private var signals: [SignalEvent] = []
    private var drainCheck: Timer?
    private var graceEnd: Timer?

    /// Serves until a signal, or a request, ends it.
    public static func run(_ options: ServeOptions) throws(StartFailure) {
        let configuration: Configuration
        do throws(ConfigurationErrors) {
            configuration = try Configuration.load(file: options.configurationFile)
        } catch {
            throw .configuration(error)
        }
        let server: Server
        do throws(ListenFailure) {
            server = try Server(options, configuration)
        } catch {
            throw .runtime(error.description)
        }
        server.loop.run()
        server.worker.server.close()
        server.logger.info("shardd has stopped")
    }

    private init(_ options: ServeOptions, _ configuration: Configuration) throws(ListenFailure) {
        self.options = options
        self.configuration = configuration
        logLevel = LogLevelBox(configuration.logLevel ?? options.logLevel)
        logger = Logger.standardError(format: options.logFormat, level: logLevel)
        signal(SIGPIPE, SIG_IGN)
        keepFreedMemory()
        descriptors = raiseDescriptorLimit()
        let loop = EventLoop()
        self.loop = loop
        let listener = try Listener(loop: loop, host: configuration.listen.host, port: configuration.listen.port)
        let resolver = Resolver(loop: loop)
        membership = Membership(shards: configuration.servers, source: .config)
        ringBuilder = RingBuilder(mailbox: loop.mailbox)
        suspects = SuspectProber(loop: loop, check: configuration.check, resolver: resolver)
        worker = Worker(
            loop: loop,
            configuration: configuration,
            descriptorLimit: Server.connectionLimit(descriptors, configuration),
            resolver: resolver,
            logger: logger
        )
        var changed: (Membership) -> Void = { _ in }
        discovery = Discovery(loop: loop, resolver: resolver, configuration: configuration, logger: logger) {
            changed($0)
        }
        changed = { [unowned self] in membershipChanged($0) }
        // The first pushes must find a ring, so the first one is built before anything is accepted.
        worker.forwarder.use(Ring(shards: membership.shards, vnodes: configuration.hash.vnodes))
        connectParts()
        discovery.start()
        worker.server.start(listener)
        let address = ShardAddress(host: configuration.listen.host ?? "*", port: listener.port)
        logger.info(
            "shardd is listening",
            metadata: [
                "address": "\(address)", "version": "\(sharddVersion)",
                "shards": "\(membership.shards.count)",
            ]
        )
        warnOfFewDescriptors()
    }

    private func connectParts() {
        let admin = AdminHandler(server: self, forwarder: worker.forwarder)
        adminHandler = admin
        worker.pushHandler.onOther = { admin.handle($0, $1) }
        worker.forwarder.onSuspect = { [suspects] in suspects.watch($0) }
        signals = [
            SignalEvent(loop: loop, signal: SIGTERM) { [unowned self] in quit() },
            SignalEvent(loop: loop, signal: SIGINT) { [unowned self] in quit() },
            SignalEvent(loop: loop, signal: SIGHUP) { [unowned self] in _ = reload() },
        ]
    }

    // MARK: Membership

    private func membershipChanged(_ membership: Membership) {
        self.membership = membership
        rebuildRing()
    }

    private func rebuildRing() {
        let membership = self.membership
        ringBuilder.build(shards: membership.shards, vnodes: configuration.hash.vnodes) { [unowned self] ring in
            use(ring)
        }
    }

    private func use(_ ring: Ring) {
        let present = worker.forwarder.routes.ring
        guard ring.shards != present.shards || ring.vnodes != present.vnodes else { return }
        generation += 1
        ringChangedAt = wallClock()
        worker.forwarder.use(ring)
        logger.info(
            "ring changed",
            metadata: [
                "generation": "\(generation)", "shards": "\(ring.shards.count)",
                "joined": "\(ring.shards.filter { !present.shards.contains($0) })",
                "left": "\(present.shards.filter { !ring.shards.contains($0) })",
            ]
        )
    }

    // MARK: Descriptors

    /// How many connections of clients there are descriptors for, when every shard has all of its connections.
    private static func connectionLimit(_ descriptors: Int, _ configuration: Configuration) -> Int {
        let shards = max(configuration.servers.count, 8) * configuration.forward.connectionsPerShard
        return max(descriptors - shards - 64, descriptors / 4)
    }

    private func warnOfFewDescriptors() {
        let possible = Server.connectionLimit(descriptors, configuration)
        guard possible < configuration.limits.connections else { return }
        logger.notice(
            "fewer connections than limits.connections are possible: raise the limit of open files",
            metadata: ["open_files": "\(descriptors)", "connections": "\(possible)"]
        )
    }
}

// MARK: -

extension Server: AdminDelegate {
    var status: ServerStatus {
        ServerStatus(
            ring: worker.forwarder.routes.ring,
            generation: generation,
            source: membership.source,
            ringChangedAt: ringChangedAt,
            key: configuration.hash.key,
            isDraining: isDraining,
            wasLastReloadSuccessful: wasLastReloadSuccessful,
            discovery: discovery.metrics,
            isLifecycleEnabled: options.enableLifecycle
        )
    }

    var snapshot: WorkerSnapshot { worker.snapshot }

    /// Reads the configuration anew and applies all of it, or, when it has any problem, nothing.
    func reload() -> [String] {
        var problems: [String] = []
        do throws(ConfigurationErrors) {
            let loaded = try Configuration.load(file: options.configurationFile)
            problems = fixedKeys(changedIn: loaded)
            if problems.isEmpty { apply(loaded) }
        } catch {
            problems = error.problems.map(\.description)
        }
        wasLastReloadSuccessful = problems.isEmpty
        if problems.isEmpty {
            logger.info("the configuration has been reloaded")
        } else {
            logger.error("the configuration has not been reloaded", metadata: ["problems": "\(problems)"])
        }
        return problems
    }

    private func fixedKeys(changedIn loaded: Configuration) -> [String] {
        var problems: [String] = []
        if loaded.listen != configuration.listen {
            problems.append("http_listen_addr: cannot change without a restart")
        }
        if loaded.workers != configuration.workers { problems.append("workers: cannot change without a restart") }
        return problems.map { "\(options.configurationFile): \($0)" }
    }

    private func apply(_ loaded: Configuration) {
        let hadVnodes = configuration.hash.vnodes
        configuration = loaded
        logLevel.level = loaded.logLevel ?? options.logLevel
        worker.apply(loaded, descriptorLimit: Server.connectionLimit(descriptors, loaded))
        suspects.check = loaded.check
        discovery.apply(loaded)
        if loaded.hash.vnodes != hadVnodes { rebuildRing() }
    }

    /// Shuts down: no new connections, every request already received is answered; asked again, at once.
    func quit() {
        guard !isDraining else { return loop.stop() }
        isDraining = true
        logger.info("shardd is shutting down", metadata: ["grace": "\(configuration.shutdown.grace.seconds)s"])
        worker.server.drain()
        discovery.stop()
        drainCheck = Timer(loop: loop) { [unowned self] in stopWhenDrained() }
        graceEnd = Timer(loop: loop) { [unowned self] in
            logger.warning("shutdown.grace is over", metadata: ["in_flight": "\(worker.metrics.inFlight)"])
            loop.stop()
        }
        graceEnd?.schedule(after: configuration.shutdown.grace)
        stopWhenDrained()
    }

    private func stopWhenDrained() {
        if worker.server.connectionCount == 0 { return loop.stop() }
        drainCheck?.schedule(after: .milliseconds(10))
    }
}
