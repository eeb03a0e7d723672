// What `shardd reconcile` and `shardd drain` stand on: the shards as a starting replica would find them, the lock, and a
// way to break off.
import Glibc

/// A command that moves groups; confined to the thread that makes it.
final class CommandContext {
    let configuration: Configuration
    let session: HTTPSession
    let client: ShardClient
    let consul: ConsulClient?
    let runs: RunProtocol
    private var signals: [SignalEvent] = []
    private let note: (String) -> Void

    /// - Parameter note: is told what a person who waits should know.
    init(_ configuration: Configuration, note: @escaping (String) -> Void) throws(RunFailure) {
        guard configuration.hash.key == .group else {
            throw RunFailure("hash.key is path: only by their grouping keys can groups be told where they belong")
        }
        self.configuration = configuration
        self.note = note
        let session = HTTPSession(loop: EventLoop())
        self.session = session
        client = ShardClient(session: session, check: configuration.check)
        consul = configuration.consul.map {
            ConsulClient(loop: session.loop, resolver: session.resolver, settings: $0)
        }
        let lock = configuration.consul.map { ConsulLock(session: session, settings: $0) }
        runs = RunProtocol(session: session, lock: lock) { _ in }
        signal(SIGPIPE, SIG_IGN)
        signals = [SIGINT, SIGTERM].map { number in
            SignalEvent(loop: session.loop, signal: number) { [unowned self] in interrupt() }
        }
    }

    private func interrupt() {
        // Asked twice: at once. What is left behind is at worst a copy more than needed.
        if runs.isInterrupted { session.cancel() }
        runs.isInterrupted = true
    }

    /// The shards that a replica would have on its ring: those that are healthy, by Consul or by probes of the file's
    /// servers, each store under one address.
    func healthyShards() throws(RunFailure) -> [ShardAddress] {
        let shards = stores(of: try healthyAddresses()).shards
        guard !shards.isEmpty else { throw RunFailure("no shard is healthy") }
        return shards
    }

    /// Another address than this one by which a replica would find the same store; nil without one.
    func otherAddress(of shard: ShardAddress) throws(RunFailure) -> ShardAddress? {
        let addresses = try healthyAddresses()
        let map = stores(of: Set(addresses).union([shard]).sorted()).map
        return addresses.first { $0 != shard && map.areSame($0, shard) }
    }

    private func healthyAddresses() throws(RunFailure) -> [ShardAddress] {
        try consul.map { (consul) throws(RunFailure) in try named(by: consul) } ?? probed()
    }

    /// Asks all addresses who is behind them.
    private func stores(of addresses: [ShardAddress]) -> (map: StoreMap, shards: [ShardAddress]) {
        var book = StoreBook()
        let requests = addresses.map { client.statusRequest($0) }
        for (address, outcome) in zip(addresses, session.sendAll(requests, atOnce: 32)) {
            if let outcome { book.record(StoreFinding(outcome), of: address) }
        }
        book.endRound(Set(addresses))
        return (book.map, book.select(addresses).shards)
    }

    private func named(by consul: ConsulClient) throws(RunFailure) -> [ShardAddress] {
        switch session.send(consul.request(.get, consul.currentHealthTarget)) {
        case .failed(let reason):
            throw RunFailure("Consul does not name the shards: \(reason)")
        case .response(let response):
            guard response.status == 200, let instances = HealthyInstances(decoding: response.body) else {
                throw RunFailure("Consul does not name the shards: it answered \(response.status)")
            }
            let draining = ConsulClient.drains(session.send(consul.request(.get, consul.drainTarget(nil))))
            return instances.shards.filter { shard in !draining.contains { $0.address == shard } }
        }
    }

    private func probed() -> [ShardAddress] {
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
        return zip(servers, session.sendAll(requests, atOnce: 32)).compactMap { server, outcome in
            guard case .response(let response) = outcome, (200..<300).contains(response.status) else { return nil }
            return server
        }
    }

    /// What a run has to do, for these healthy shards.
    func order(shards: [ShardAddress], draining: [ShardAddress] = []) -> RunProtocol.Order {
        let ring = Ring(shards: shards, vnodes: configuration.hash.vnodes)
        var known = configuration.servers + draining
        if case .success(let state) = runs.latestState() {
            known += state.settledShards + state.awayShards
        }
        return RunProtocol.Order(
            ring: ring,
            others: Set(known).subtracting(ring.shards).sorted(),
            isDue: !draining.isEmpty,
            hold: configuration.replicaLag,
            groupsPerSecond: configuration.reconcile.groupsPerSecond,
            check: configuration.check,
            draining: draining
        )
    }

    /// Performs a run, after those of others.
    func perform(
        _ order: RunProtocol.Order,
        onPlan: ([Stray]) -> Void = { _ in }
    ) throws(RunFailure) -> RunOutcome {
        let deadline = MonotonicTime.now().advanced(by: CommandContext.patience)
        var hasNoted = false
        while true {
            switch runs.perform(order, onPlan: onPlan) {
            case .ended(let outcome): return outcome
            case .failed(let reason): throw RunFailure(reason)
            case .taken:
                if !hasNoted { note("another run is under way, or was broken off a moment ago: waiting for its lock") }
                hasNoted = true
                session.pause(.seconds(1)) { runs.isInterrupted }
                if runs.isInterrupted { throw RunFailure("interrupted") }
                if MonotonicTime.now() > deadline { throw RunFailure("another run holds the lock") }
            }
        }
    }

    /// A session that has died holds the lock for its time to live, twice at worst, and then the lock delay.
    private static let patience = TimeSpan.seconds(60)
}
