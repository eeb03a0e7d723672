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
    private let log: LogWriter
    private let logger: Logger
    private let loop: EventLoop
    private let workers: WorkerGroup
    private let discovery: Discovery
    private let ringBuilder: RingBuilder
    private let resolver: Resolver
    private let stores: StoreWatch
    private let hints: Hints
    private let handover: Handover
    private let reconciler: Reconciler
    private let emptyInstances: EmptyInstances
    private var reconcileMetrics = ReconcileMetrics()
    /// The ring in force.
    private var ring: Ring
    private var configuration: Configuration
    private var membership: Membership
    /// The addresses of which the latest ring was made, or is being made; nil before the first.
    private var selected: [ShardAddress]?
    private var generation = 0
    private var absences = Absences()
    private var ringChangedAt = wallClock()
    /// Shards that have yet to be told what they have missed.
    private var untold: Set<ShardAddress> = []
    /// The Consul that has the stores.
    private var storesAt: Configuration.Consul?
    private var isDraining = false
    private var wasLastReloadSuccessful = true
    private var lastReloadSuccess = wallClock()
    /// Why shards have left the membership, until the ring without them is in force.
    private var leavingReasons: [ShardAddress: String] = [:]
    private let descriptors: Int
    private var signals: [SignalEvent] = []
    private var graceEnd: Timer?

    /// Serves until a signal, or a request, ends it.
    public static func run(_ options: ServeOptions) throws(StartFailure) {
        let configuration: Configuration
        do throws(ConfigurationErrors) {
            configuration = try Configuration.load(file: options.configurationFile)
        } catch {
            throw .configuration(error)
        }
        let files = FilePages()
        keepStandardDescriptors()
        ignoreWriteSignals()
        let log = LogWriter.standardError(format: options.logFormat)
        defer { log.finish(within: lastLogTime) }
        let server: Server
        do throws(ListenFailure) {
            server = try Server(options, configuration, log)
        } catch {
            throw .runtime(error.description)
        }
        files.giveBack()
        server.loop.drive {
            server.loop.run()
            server.reconciler.stop()
            server.emptyInstances.stop()
            server.workers.close()
        }
        server.logger.info("shardd has stopped")
    }

    private init(_ options: ServeOptions, _ configuration: Configuration, _ log: LogWriter) throws(ListenFailure) {
        self.options = options
        self.configuration = configuration
        logLevel = LogLevelBox(configuration.logLevel ?? options.logLevel)
        self.log = log
        logger = Logger.lines(format: options.logFormat, level: logLevel, writer: log)
        keepFreedMemory()
        descriptors = raiseDescriptorLimit()
        let loop = EventLoop()
        self.loop = loop
        resolver = Resolver(loop: loop)
        workers = try WorkerGroup(
            loop: loop,
            resolver: resolver,
            configuration: configuration,
            descriptorLimit: DescriptorBudget(descriptors, configuration).clients,
            logger: logger
        )
        membership = Membership(servers: configuration)
        ring = Ring(shards: [], vnodes: configuration.hash.vnodes)
        stores = StoreWatch(loop: loop, resolver: resolver, configuration: configuration, logger: logger)
        ringBuilder = RingBuilder(mailbox: loop.mailbox)
        hints = Hints(loop: loop, resolver: resolver, logger: logger)
        var ringsChanged: (RingSet) -> Void = { _ in }
        handover = Handover(
            loop: loop,
            ring: ring,
            hold: configuration.hold,
            builder: ringBuilder,
            hints: hints,
            logger: logger
        ) { ringsChanged($0) }
        var runsChanged: (RunState) -> Void = { _ in }
        var counted: (ReconcileMetrics) -> Void = { _ in }
        reconciler = Reconciler(
            home: loop.mailbox,
            logger: logger,
            onState: { runsChanged($0) },
            onMetrics: { counted($0) }
        )
        emptyInstances = EmptyInstances(home: loop.mailbox, logger: logger)
        var changed: (Membership) -> Void = { _ in }
        discovery = Discovery(loop: loop, resolver: resolver, configuration: configuration, logger: logger) {
            changed($0)
        }
        changed = { [unowned self] in membershipChanged($0) }
        ringsChanged = { [unowned self] in use($0) }
        runsChanged = { [unowned self] in handover.observe($0) }
        counted = { [unowned self] in
            reconcileMetrics = $0
            stores.noteListings(groups: $0.groups, unmarked: $0.unmarked)
        }
        stores.onChange = { [unowned self] in storesChanged() }
        hints.isInUse = { [unowned self] in handover.isInUse($0) }
        hints.onUntold = { [unowned self] shards in
            untold = shards
            tellReconciler()
        }
        connectParts()
        workers.use(handover.rings)
        useStores()
        tellReconciler()
        startThreads()
        discovery.start()
        // The first pushes must find a ring, so the first one is there before anything is accepted.
        identifyShards(isFirst: true) { [unowned self] in
            handover.begin { [unowned self] in accept() }
        }
    }

    private func startThreads() {
        emptyInstances.onPending = { [workers] shards in workers.forEach { $0.pushHandler.holdPosts(for: shards) } }
        emptyInstances.start()
        reconciler.start()
    }

    private func accept() {
        let address = ShardAddress(host: configuration.listen.host ?? "*", port: workers.port)
        workers.start()
        logger.info(
            "shardd is listening",
            metadata: [
                "address": "\(address)", "version": "\(options.build.version)", "shards": "\(membership.shards.count)",
                "workers": "\(configuration.workers)",
            ]
        )
        DescriptorBudget(descriptors, configuration).noteIfFew(logger)
    }

    private func connectParts() {
        passOnLibeventMessages(to: logger)
        let this = WeakLoopBound(self, on: loop.mailbox)
        let entrance = ServerEntrance(server: this, isLifecycleEnabled: options.enableLifecycle, build: options.build)
        for worker in workers.all {
            let admin = AdminHandler(server: entrance, forwarder: worker.forwarder)
            worker.pushHandler.onOther = { admin.handle($0, $1) }
            connectToHandover(worker, this)
        }
        signals = [
            SignalEvent(loop: loop, signal: SIGTERM) { [unowned self] in quit() },
            SignalEvent(loop: loop, signal: SIGINT) { [unowned self] in quit() },
            SignalEvent(loop: loop, signal: SIGHUP) { [unowned self] in _ = reload() },
        ]
    }

    /// Has the worker tell of shards that missed something, or that answer again, wherever its loop is.
    private func connectToHandover(_ worker: Worker, _ server: WeakLoopBound<Server>) {
        let (mailbox, home) = (worker.loop.mailbox, loop.mailbox)
        worker.forwarder.onMissed = { shard, path, doneBy, done in
            let done = LoopBound(done, on: mailbox)
            server.perform(from: mailbox) { server in
                server.missed(shard, path, doneBy: doneBy) { done.perform(from: home) { $0() } }
            }
        }
        worker.onSuspect = { shard in
            server.perform(from: mailbox) { $0.handover.isPassedOver(shard) }
        }
        worker.onShardUp = { shard in
            server.perform(from: mailbox) { $0.handover.isUp(shard) }
        }
        worker.onShardAnswers = { shard, done in
            let done = LoopBound(done, on: mailbox)
            server.perform(from: mailbox) { server in
                server.handover.answers(shard) { done.perform(from: home) { $0() } }
            }
        }
    }

    /// How long the log's reader may take, at the end, for what is queued.
    private static let lastLogTime = TimeSpan.seconds(1)

    // MARK: Membership

    private func membershipChanged(_ membership: Membership) {
        let isFirst = self.membership.source == .config
        for shard in Set(self.membership.shards).subtracting(membership.shards) {
            leavingReasons[shard] = discovery.reasonToLeave(shard)
        }
        self.membership = membership
        identifyShards(isFirst: isFirst)
    }

    /// Finds out who is behind the addresses of the membership, and makes the ring of those that are a store each.
    private func identifyShards(isFirst: Bool, _ done: @escaping () -> Void = {}) {
        watchStores()
        let identified = membership.shards
        stores.identify(identified) { [unowned self] in
            // Another membership has come meanwhile, whose addresses may have yet to be asked.
            if identified != membership.shards { return identifyShards(isFirst: isFirst, done) }
            rebuildRing(isFirst: isFirst, done)
        }
    }

    private func watchStores() {
        let others = handover.rings.others.flatMap(\.ring.shards)
        let known = membership.shards + configuration.servers + handover.rings.ring.shards + handover.draining + others
        stores.watch(Set(known), configuration)
    }

    private func storesChanged() {
        handover.stores = stores.map
        tellEmptyInstances()
        guard let selected, selected != stores.select(membership.shards) else { return }
        rebuildRing()
    }

    private func rebuildRing(isFirst: Bool = false, _ done: @escaping () -> Void = {}) {
        handover.stores = stores.map
        let shards = stores.select(membership.shards)
        selected = shards
        ringBuilder.build(shards: shards, vnodes: configuration.hash.vnodes) { [unowned self] ring in
            noteAbsences(ring)
            handover.change(to: ring, isFirst: isFirst)
            done()
        }
    }

    private func noteAbsences(_ ring: Ring) {
        (absences.lag, absences.noticeTime) = (configuration.replicaLag, configuration.noticeTime)
        absences.willUse(ring.shards, after: self.ring.shards, stores: stores.map)
        tellReconciler()
    }

    private func missed(
        _ shard: ShardAddress,
        _ path: [UInt8],
        doneBy: ShardAddress,
        _ done: @escaping () -> Void
    ) {
        if configuration.movesGroups { hints.add(shard, path: path, doneBy: doneBy, done) } else { done() }
    }

    /// Keeps what a replica's end must not undo in Consul, where there is one.
    private func useStores() {
        hints.headers = configuration.check.headers
        guard configuration.consul != storesAt || !configuration.movesGroups else { return }
        storesAt = configuration.movesGroups ? configuration.consul : nil
        let client = storesAt.map { ConsulClient(loop: loop, resolver: resolver, settings: $0) }
        hints.store = client.map { HintStore(client: $0, loop: loop) }
        handover.store = client.map { RingStore(client: $0, loop: loop) }
    }

    /// Routes pushes by other rings, and tells of it where another one is in force.
    private func use(_ rings: RingSet) {
        workers.use(rings)
        watchStores()
        let present = ring
        ring = rings.ring
        defer { tellReconciler() }
        guard !ring.isSame(as: present) else { return }
        absences.didUse(ring.shards)
        generation += 1
        ringChangedAt = wallClock()
        RingChange(from: present, to: ring).log(generation: generation, reasons: leavingReasons, by: logger)
        leavingReasons = leavingReasons.filter { ring.shards.contains($0.key) }
    }

    private func tellReconciler() {
        let input = ReconcilerInput(
            configuration: configuration,
            rings: handover.rings,
            isSettled: handover.isSettled,
            untold: untold,
            absences: absences
        )
        reconciler.update(input)
        tellEmptyInstances()
    }

    /// Has the processes of all shards searched for groups with an empty instance, unless these are forwarded as they are.
    private func tellEmptyInstances() {
        let processes = configuration.pushCheck == .off ? [:] : stores.map.identities.mapValues(\.process)
        emptyInstances.update(EmptyInstances.Input(processes: processes, check: configuration.check))
    }
}

// MARK: -

extension Server {
    var mailbox: LoopMailbox { loop.mailbox }

    /// Calls `done` with the server's state and all workers' figures, added up.
    func gather(_ done: @escaping (ServerStatus, WorkerSnapshot) -> Void) {
        workers.gather { [unowned self] in done(status, $0) }
    }

    private var status: ServerStatus {
        ServerStatus(
            ring: ring,
            generation: generation,
            source: membership.source,
            ringChangedAt: ringChangedAt,
            key: configuration.hash.key,
            isDraining: isDraining,
            wasLastReloadSuccessful: wasLastReloadSuccessful,
            lastReloadSuccess: lastReloadSuccess,
            polls: discovery.metrics.polls,
            faults: discovery.faults,
            checkFailures: discovery.metrics.checkFailures,
            checkInterval: configuration.check.interval,
            logDropped: log.droppedCount,
            build: options.build,
            lastPollSuccess: discovery.metrics.lastSuccess,
            reconcile: reconcileMetrics,
            draining: handover.draining,
            offRing: offRing,
            sameStoreCount: stores.sameStoreCount,
            restartCounts: stores.restartCounts
        )
    }

    private var offRing: [ShardAddress: ShardState] {
        var found = OffRingShards(ring: ring, stores: stores)
        let unhealthy = discovery.unhealthy
        for shard in handover.unsettled.sorted() { found.add(shard, unhealthy.contains(shard) ? .down : .draining) }
        for shard in handover.joining + membership.shards { found.add(shard, .joining) }
        for shard in handover.holders.sorted() where stores.isAnswering(shard) { found.add(shard, .draining) }
        for shard in unhealthy.sorted() { found.add(shard, .down) }
        // Where Consul names the shards, one of the file that answers and that Consul does not name has been taken out.
        for shard in configuration.servers where configuration.consul == nil || !stores.isAnswering(shard) {
            found.add(shard, .down)
        }
        return found.states
    }

    /// Reads the configuration anew and applies all of it, or, when it has any problem, nothing; returns the problems.
    func reload() -> [String] {
        loop.assertOnLoop()
        var problems: [String] = []
        do throws(ConfigurationErrors) {
            let loaded = try Configuration.load(file: options.configurationFile)
            problems = configuration.fixedKeys(changedIn: loaded).map { "\(options.configurationFile): \($0)" }
            if problems.isEmpty { apply(loaded) }
        } catch {
            problems = error.problems.map(\.description)
        }
        wasLastReloadSuccessful = problems.isEmpty
        if problems.isEmpty {
            lastReloadSuccess = wallClock()
            logger.info("the configuration has been reloaded")
        } else {
            let reasons = problems.joined(separator: "; ")
            logger.error("the configuration has not been reloaded", metadata: ["problems": "\(reasons)"])
        }
        return problems
    }

    private func apply(_ loaded: Configuration) {
        let hadVnodes = configuration.hash.vnodes
        configuration = loaded
        handover.hold = loaded.hold
        useStores()
        logLevel.level = loaded.logLevel ?? options.logLevel
        let descriptorLimit = DescriptorBudget(descriptors, loaded).clients
        workers.forEach { $0.apply(loaded, descriptorLimit: descriptorLimit) }
        discovery.apply(loaded)
        tellReconciler()
        watchStores()
        if loaded.hash.vnodes != hadVnodes { rebuildRing() }
    }

    /// Shuts down: no new connections, every request already received is answered; asked again, at once.
    func quit() {
        loop.assertOnLoop()
        guard !isDraining else { return loop.stop() }
        isDraining = true
        logger.info("shardd is shutting down", metadata: ["grace": "\(configuration.shutdown.grace.seconds)s"])
        discovery.stop()
        graceEnd = Timer(loop: loop) { [unowned self] in
            logger.warning("shutdown.grace is over, with connections still open")
            loop.stop()
        }
        graceEnd?.schedule(after: configuration.shutdown.grace)
        workers.drain { [unowned self] in loop.stop() }
    }
}
