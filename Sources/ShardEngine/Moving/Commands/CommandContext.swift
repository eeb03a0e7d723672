// What `shardd reconcile` and `shardd drain` stand on: a replica without clients, the shards as a starting replica would find
// them, and a way to break off. It follows the register in Consul beside the replicas that serve, and moves groups itself where
// none of them does; without Consul it has a register of its own, which knows nothing and so looks at everything.
import Glibc
import Logging
import MovingCore

/// Why something could not be done; for logs and the command line.
public struct RunFailure: Error, Equatable, Sendable {
    /// One line.
    public let reason: String

    init(_ reason: String) {
        self.reason = reason
    }
}

/// A command that moves groups; confined to the thread that makes it.
final class CommandContext {
    let configuration: Configuration
    let session: HTTPSession
    let consul: ConsulClient?
    let members: TierMembers
    let tier: Tier
    private let stores: StoreWatch
    private let workers = NoWorkers()
    private var signals: [SignalEvent] = []
    private(set) var isInterrupted = false
    /// What a person who waits is told.
    let progress: Progress
    /// Shards that the command takes for being on their way out.
    var leaving: Set<ShardAddress> = []
    /// Whether these are out of discovery, as far as that can be done.
    var haveLeftDiscovery = false

    /// - Parameter line: is called with each line of progress.
    init(_ configuration: Configuration, version: String, line: @escaping (String) -> Void) throws(RunFailure) {
        guard configuration.hash.key == .group else {
            throw RunFailure("hash.key is path: only by their grouping keys can groups be told where they belong")
        }
        guard configuration.mode == .forward else {
            throw RunFailure("mode is redirect: redirected clients push past shardd, so no group is moved")
        }
        var configuration = configuration
        configuration.reconcile.enabled = true
        self.configuration = configuration
        let session = HTTPSession(loop: EventLoop())
        self.session = session
        progress = Progress(loop: session.loop, line)
        let logger = Logger(label: "shardd") { _ in SwiftLogNoOpLogHandler() }
        consul = configuration.consul.map {
            ConsulClient(loop: session.loop, resolver: session.resolver, settings: $0)
        }
        members = TierMembers(vnodes: configuration.hash.vnodes, settle: .zero, movesGroups: true)
        stores = StoreWatch(
            loop: session.loop,
            resolver: session.resolver,
            configuration: configuration,
            logger: logger
        )
        let calls = StoreCalls(loop: session.loop, resolver: session.resolver)
        calls.headers = configuration.check.headers
        let place: RegisterPlace = configuration.consul.map { .consul($0) } ?? .memory
        tier = Tier(
            loop: session.loop,
            resolver: session.resolver,
            check: configuration.check,
            workers: workers,
            workerCount: 0,
            keeper: place.makeKeeper(session.loop, session.resolver, configuration, logger),
            stores: calls,
            members: members,
            mover: configuration.moverSettings,
            giveUp: configuration.reconcile.giveUp,
            settings: configuration.settingsNumber(version: version),
            logger: logger
        )
        tier.onMember = { [stores] in stores.noteMember($0, birth: $1) }
        tier.onNewProcess = { [stores] in stores.ask($0) }
        signal(SIGPIPE, SIG_IGN)
        signals = [SIGINT, SIGTERM].map { number in
            SignalEvent(loop: session.loop, signal: number) { [unowned self] in interrupt() }
        }
    }

    private func interrupt() {
        // Asked twice: at once.
        if isInterrupted { session.cancel() }
        isInterrupted = true
    }

    /// Joins the tier, and waits until the register is there.
    func join() throws(RunFailure) {
        progress.waits("who the shards are, and what the register says")
        try findShards()
        if let hindrance = stores.hindrance { throw RunFailure(hindrance.reason) }
        guard !members.healthy.isEmpty else { throw RunFailure("no shard is healthy") }
        tier.start()
        let deadline = MonotonicTime.now().advanced(by: CommandContext.joinTime)
        while tier.following == nil {
            guard MonotonicTime.now() < deadline, !isInterrupted else {
                throw RunFailure(tier.registerFault ?? "the register cannot be read: Consul does not answer")
            }
            session.pause(.milliseconds(20))
        }
    }

    /// Says goodbye to the tier.
    func leave() {
        var hasLeft = false
        tier.stop { hasLeft = true }
        session.pause(.seconds(1)) { hasLeft }
    }

    /// Asks discovery which shards there are, and the shards who they are.
    func findShards() throws(RunFailure) {
        let found = try consul.map { (consul) throws(RunFailure) in try named(by: consul) } ?? probed()
        let healthy = found.healthy.filter { !leaving.contains($0) }
        let registered = tier.following?.view.stores.compactMap { ShardAddress(parsing: $0.address) } ?? []
        stores.watch(Set(healthy + registered + leaving), configuration)
        var isDone = false
        stores.identify(Set(healthy + leaving).sorted()) { isDone = true }
        session.pause(.seconds(5)) { isDone }
        members.healthy = stores.select(healthy)
        members.failing = found.failing.filter { !leaving.contains($0.key) }
        members.identities = stores.map
        members.draining = leaving
        members.stillNamed = found.stillNamed.union(haveLeftDiscovery ? [] : leaving)
        tier.membersChanged()
    }

    /// What discovery tells.
    private struct Found {
        var healthy: [ShardAddress] = []
        var failing: [ShardAddress: String] = [:]
        /// Shards that other drains have yet to take out of discovery.
        var stillNamed: Set<ShardAddress> = []
    }

    private func named(by consul: ConsulClient) throws(RunFailure) -> Found {
        switch session.send(consul.request(.get, consul.currentHealthTarget)) {
        case .failed(let reason):
            throw RunFailure("Consul does not name the shards: \(reason)")
        case .response(let response):
            guard response.status == 200, let instances = HealthyInstances(decoding: response.body) else {
                throw RunFailure("Consul does not name the shards: it answered \(response.status)")
            }
            let draining = ConsulClient.drains(session.send(consul.request(.get, consul.drainTarget(nil))))
            let isDraining = { (shard: ShardAddress) in draining.contains { $0.address == shard } }
            let others = draining.filter { $0.phase != .left }.compactMap(\.address)
            return Found(
                healthy: instances.shards.filter { !isDraining($0) },
                failing: instances.faults.filter { !isDraining($0.key) },
                stillNamed: Set(others).subtracting(leaving)
            )
        }
    }

    private func probed() -> Found {
        let servers = configuration.servers
        let requests = servers.map { server in
            HTTPRequest(
                host: server.host,
                port: server.port,
                target: configuration.check.path,
                headers: configuration.check.headers,
                timeout: configuration.check.timeout
            )
        }
        var found = Found()
        for (server, outcome) in zip(servers, session.sendAll(requests, atOnce: 32)) {
            switch outcome {
            case .response(let response) where (200..<300).contains(response.status): found.healthy.append(server)
            case .response(let response): found.failing[server] = "it answered \(response.status)"
            case .failed(let reason): found.failing[server] = reason
            case nil: break
            }
        }
        return found
    }

    /// All groups of a store, by what is authoritative for them.
    func list(_ store: StoreID) throws(RunFailure) -> Listing {
        guard let address = members.address(of: store, tier.following?.view) else {
            throw RunFailure("a store of the register is at no address")
        }
        var result: (Listing?, String?)?
        tier.stores.list(address) { result = ($0, $1) }
        session.pause(.seconds(120)) { result != nil }
        guard let listing = result?.0 else { throw RunFailure("shard \(result?.1 ?? "\(address) cannot be listed")") }
        return listing
    }

    /// Waits until `isDone`; asks discovery again now and then, and calls `onTick` twice a second.
    ///
    /// - Throws: where it is interrupted, or nothing is moved, and nothing of the register comes to rest, for a while.
    func wait(until isDone: () -> Bool, onTick: () -> Void = {}) throws(RunFailure) {
        var lastProgress = MonotonicTime.now()
        var lastFind = MonotonicTime.now()
        var last: (UInt64, UInt64) = (0, 0)
        var (least, lastLess) = (Int.max, MonotonicTime.now())
        // The register changes also while a shard fails and comes back time and again: that is no progress. Whoever moves the
        // groups, less is left of the present plan after a while.
        var plan: (ring: RingMembers?, next: RingMembers?) = (nil, nil)
        var (leastOpen, leastLeft) = (Int.max, Int.max)
        while !isDone() {
            if isInterrupted { throw RunFailure("interrupted") }
            session.pause(.milliseconds(500), until: isDone)
            onTick()
            let now = MonotonicTime.now()
            if now.since(lastFind) >= CommandContext.findInterval {
                lastFind = now
                try? findShards()
            }
            let view = tier.following?.view
            if plan != (view?.ring, view?.next) {
                plan = (view?.ring, view?.next)
                (leastOpen, leastLeft) = (.max, .max)
            }
            let (state, open, left) = ((tier.counts.moved, tier.counts.deleted), view?.openCount ?? .max, unfinished)
            if state != last || open < leastOpen || left < leastLeft { lastProgress = now }
            (last, leastOpen, leastLeft) = (state, min(open, leastOpen), min(left, leastLeft))
            if now.since(lastProgress) >= patience { throw RunFailure("nothing moves: \(hindrance)") }
            if left < least || tier.stuck.isEmpty { (least, lastLess) = (left, now) }
            if now.since(lastLess) >= CommandContext.stuckTime {
                throw RunFailure("groups cannot be moved: \(tier.stuck.joined(separator: "; "))")
            }
        }
    }

    /// How many slots have yet to be where they belong.
    private var unfinished: Int {
        guard let following = tier.following else { return .max }
        let view = following.view
        return following.rings.slots.count { slot in
            let entry = view.entry(slot)
            return entry.own != slot.after || !entry.predecessors.isEmpty
        }
    }

    /// A job that failed is tried again, and an overlap takes its time.
    private var patience: TimeSpan {
        CommandContext.longestJob + tier.overlap
    }

    /// Why nothing moves, as far as can be told.
    private var hindrance: String {
        if !tier.hasConsul { return "Consul does not answer" }
        if let down = tier.down.sorted(by: { $0.key < $1.key }).first { return "\(down.key) is away: \(down.value)" }
        let obstacles = tier.status.obstacles
        if obstacles.contains(.version) { return "a replica of another version is there" }
        if obstacles.contains(.config) { return "a replica has another hash in its file" }
        return "the log of the replica that moves groups may tell why"
    }

    private static let longestJob = TimeSpan.seconds(30)
    /// After so long without any other group being moved, those that are stuck are all that is left.
    private static let stuckTime = TimeSpan.seconds(10)
    private static let findInterval = TimeSpan.seconds(2)
    private static let joinTime = TimeSpan.seconds(15)
}

/// A tier without clients.
private final class NoWorkers: TierWorkers {
    func follow(_ placement: Placement, peers: [Peer], notes: [Note?], hasConsul: Bool, settings: UInt64) {}
    func failOverAlone(_ store: StoreID, backupStarts: [StoreID: StartTime]) {}
    func beganSession() {}
    func goOnAfterStop() {}
    func note(cause: String, of store: StoreID) {}
}

private func + (left: TimeSpan, right: TimeSpan) -> TimeSpan {
    TimeSpan(nanoseconds: left.nanoseconds + right.nanoseconds)
}
