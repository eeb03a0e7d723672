// The composition root: what shardd is made of, and how its parts hear of each other.
//
//   client ─▶ HTTPServer ─▶ PushHandler ─▶ GroupingKeyParser ─▶ Ring ─▶ Forwarder ─▶ ShardPool ─▶ Pipeline ══▶ shard
//                               └─▶ AdminHandler                 ▲ swap
//                                     Discovery, StoreWatch ─▶ Tier ◀─▶ register in Consul
//
// `run` is called by the command line and returns when the server has shut down.
import Glibc
import Logging
import MovingCore

/// A running shardd.
public final class Server {
    let options: ServeOptions
    private let logLevel: LogLevelBox
    private let log: LogWriter
    let logger: Logger
    let loop: EventLoop
    let workers: WorkerGroup
    let discovery: Discovery
    let resolver: Resolver
    let stores: StoreWatch
    let emptyInstances: EmptyInstances
    let lookup: FamilyLookup
    let conflicts: ConflictWatch
    var tier: Tier
    var members: TierMembers
    var shown: ShownRing
    var configuration: Configuration
    var membership: Membership
    /// Where the register is kept.
    var registerAt: RegisterPlace
    /// Tells of other replicas that would move groups; nil where Consul does.
    var claims: MoverClaims?
    /// Asks for the register in Consul while there was none to serve by.
    var knock: (any RegisterKeeper)?
    /// Why there was no register.
    var absence: MovingHindrance?
    /// When all was last seen at rest before something kept it from being moved, in seconds since 1970.
    var lastRest: Double?
    /// Why nothing is moved though the configuration has it so.
    var hindrance: MovingHindrance?
    /// Shards whose consistency check does not go together with `pushes.check`, as the log has them.
    var mismatched: Set<ShardAddress> = []
    /// Whether nothing was moving when the tier last changed.
    private var wasAtRest = false
    /// Whether the tier has been started.
    private var isBegun = false
    private var isDraining = false
    private var wasLastReloadSuccessful = true
    private var lastReloadSuccess = wallClock()
    private let descriptors: Int
    private var signals: [SignalEvent] = []
    private var graceEnd: Timer?
    private var startCheck: Timer?

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
            server.emptyInstances.stop()
            server.lookup.stop()
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
        stores = StoreWatch(loop: loop, resolver: resolver, configuration: configuration, logger: logger)
        emptyInstances = EmptyInstances(home: loop.mailbox, logger: logger)
        lookup = FamilyLookup(home: loop.mailbox, logger: logger)
        conflicts = ConflictWatch(loop: loop, resolver: resolver)
        shown = ShownRing(mailbox: loop.mailbox, logger: logger)
        registerAt = RegisterPlace(configuration)
        (members, tier) = Server.makeTier(registerAt, loop, resolver, workers, configuration, options, logger)
        var changed: (Membership) -> Void = { _ in }
        discovery = Discovery(loop: loop, resolver: resolver, configuration: configuration, logger: logger) {
            changed($0)
        }
        changed = { [unowned self] in membershipChanged($0) }
        stores.onChange = { [unowned self] in storesChanged() }
        connectParts()
        connectWorkers()
        hearTier()
        emptyInstances.onPending = { [workers] shards in workers.forEach { $0.pushHandler.holdPosts(for: shards) } }
        emptyInstances.start()
        for worker in workers.all {
            worker.pushHandler.tierCheck = TierCheck(worker.forwarder, known: lookup.known, lookup: lookup.questions)
        }
        hearConflicts()
        tellLookup()
        discovery.start()
        // The first pushes must find a ring, so the first one is there before anything is accepted.
        identifyShards { [unowned self] in
            beginClaims { [unowned self] in
                isBegun = true
                let first = tier
                useRegister()
                if tier === first { tier.start() }
                awaitRing()
            }
        }
    }

    /// Accepts clients once there is a ring, or after a while without.
    private func awaitRing() {
        let since = loop.now
        startCheck = Timer(loop: loop) { [unowned self] in
            let isLate = MonotonicTime.now().since(since) >= Server.startTime
            guard isLate || tier.following != nil && shown.hasRing else {
                startCheck?.schedule(after: .milliseconds(5))
                return
            }
            startCheck = nil
            accept()
        }
        startCheck?.schedule(after: .zero)
    }

    /// How long a start waits for a register.
    private static let startTime = TimeSpan.seconds(5)

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
        }
        signals = [
            SignalEvent(loop: loop, signal: SIGTERM) { [unowned self] in quit() },
            SignalEvent(loop: loop, signal: SIGINT) { [unowned self] in quit() },
            SignalEvent(loop: loop, signal: SIGHUP) { [unowned self] in _ = reload() },
        ]
    }

    /// Joins the workers and the tier, wherever the workers' loops are; before these run.
    private func connectWorkers() {
        let server = WeakLoopBound(self, on: loop.mailbox)
        for (index, worker) in workers.all.enumerated() {
            let mailbox = worker.loop.mailbox
            worker.onFailure = { store, cause in server.perform(from: mailbox) { $0.tier.fail(store, cause) } }
            worker.onDropBackup = { slot in server.perform(from: mailbox) { $0.tier.dropBackup(slot) } }
            worker.onNote = { note in server.perform(from: mailbox) { $0.tier.workerTold(index, note) } }
            worker.forwarder.onLateTurn = { server.perform(from: mailbox) { $0.tier.turnCameLate() } }
        }
    }

    /// How long the log's reader may take, at the end, for what is queued.
    private static let lastLogTime = TimeSpan.seconds(1)

    // MARK: Membership

    private func membershipChanged(_ membership: Membership) {
        for shard in Set(self.membership.shards).subtracting(membership.shards) {
            shown.leavingReasons[shard] = discovery.reasonToLeave(shard)
        }
        self.membership = membership
        identifyShards()
    }

    /// Finds out who is behind the addresses of the membership, and tells the tier.
    private func identifyShards(_ done: @escaping () -> Void = {}) {
        watchStores()
        let identified = membership.shards
        stores.identify(identified) { [unowned self] in
            // Another membership has come meanwhile, whose addresses may have yet to be asked.
            if identified != membership.shards { return identifyShards(done) }
            tellTier()
            done()
        }
    }

    private func watchStores() {
        let registered = tier.following?.view.stores.compactMap { ShardAddress(parsing: $0.address) } ?? []
        stores.watch(Set(membership.shards + configuration.servers + registered), configuration)
    }

    private func storesChanged() {
        if isBegun { useRegister() }
        tellTier()
        tellEmptyInstances()
        tellLookup()
    }

    func tellTier() {
        members.healthy = stores.select(membership.shards)
        let faults = discovery.faults
        members.failing = Dictionary(
            // Where all fail, the last ones stay in the membership.
            uniqueKeysWithValues: discovery.unhealthy.subtracting(discovery.maintained).subtracting(membership.shards)
                .map {
                    ($0, faults[$0] ?? "it fails its checks")
                }
        )
        members.identities = stores.map
        members.draining = discovery.draining
        claims?.claim(members.healthy, headers: configuration.check.headers)
        members.stillNamed = discovery.stillNamed
        tier.membersChanged()
        tierChanged()
    }

    /// The register, or what is known of it, has changed.
    func tierChanged() {
        guard let following = tier.following else { return }
        if wasAtRest, !following.view.isAtRest { claims?.lookAgain() }
        wasAtRest = following.view.isAtRest
        let failing = discovery.unhealthy.subtracting(membership.shards).union(discovery.draining)
        shown.show(tier.wholeRing?.members ?? following.view.next ?? following.view.ring, failing: failing)
        watchStores()
        tellLookup()
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
            ring: shown.ring,
            generation: shown.generation,
            source: membership.source,
            ringChangedAt: shown.changedAt,
            key: configuration.hash.key,
            movesGroups: members.movesGroups,
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
            moving: movingStatus,
            down: tier.down,
            draining: draining,
            offRing: offRing,
            sameStoreCount: stores.sameStoreCount,
            familiesSetAside: tier.familiesSetAside,
            restartCounts: stores.restartCounts,
            mayDecide: configuration.pushCheck != .full || lookup.known.isComplete,
            checkMismatches: checkMismatches
        )
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
        let isElsewhere = RegisterPlace(loaded) != RegisterPlace(configuration)
        configuration = loaded
        if isElsewhere {
            if let keeper = knock { keeper.leave { _ = keeper } }
            knock = nil
        }
        useRegister()
        logLevel.level = loaded.logLevel ?? options.logLevel
        let descriptorLimit = DescriptorBudget(descriptors, loaded).clients
        workers.forEach { $0.apply(loaded, descriptorLimit: descriptorLimit) }
        discovery.apply(loaded)
        tellEmptyInstances()
        tellLookup()
        identifyShards()
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
        workers.drain { [unowned self] in
            tier.stop { [unowned self] in
                guard let claims else { return loop.stop() }
                claims.withdraw { [unowned self] in loop.stop() }
            }
        }
    }
}
