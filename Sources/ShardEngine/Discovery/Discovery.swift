// Finds out which shards there are, by Consul or by probes, whichever the configuration says. The server owns it and
// builds a ring of every membership that it reports.
import Logging

/// The source of memberships; loop-confined.
final class Discovery {
    private enum Source {
        case consul(ConsulDiscovery)
        case probes(StaticDiscovery)
    }

    let metrics = DiscoveryMetrics()
    private let loop: EventLoop
    private let resolver: Resolver
    private let logger: Logger
    private let onChange: (Membership) -> Void
    private var configuration: Configuration
    private var source: Source?
    private var last: Membership
    private var lastNamed: Set<ShardAddress> = []

    /// - Parameter onChange: is called with each membership that differs from the one before, in shards or in source.
    init(
        loop: EventLoop,
        resolver: Resolver,
        configuration: Configuration,
        logger: Logger,
        onChange: @escaping (Membership) -> Void
    ) {
        self.loop = loop
        self.resolver = resolver
        self.configuration = configuration
        self.logger = logger
        self.onChange = onChange
        last = Membership(servers: configuration)
    }

    /// Starts with the membership of the file, and goes on from there.
    func start() {
        loop.assertOnLoop()
        makeSource()
    }

    /// Goes by another configuration; the last membership stays until there is a new one.
    func apply(_ loaded: Configuration) {
        loop.assertOnLoop()
        let old = configuration
        configuration = loaded
        if last.source == .config, loaded.consul != nil, !loaded.servers.isEmpty {
            // Consul has not answered yet, so that the file still says which shards there are.
            tell(Membership(shards: loaded.servers, source: .config))
        }
        switch source {
        case .probes(let probes) where loaded.consul == nil:
            probes.apply(loaded)
        case .consul where loaded.consul == old.consul && loaded.servers == old.servers && loaded.check == old.check:
            break
        default:
            makeSource()
        }
    }

    /// The shards that fail their checks, as far as is known, with what is wrong with each.
    var faults: [ShardAddress: String] {
        switch source {
        case .consul(let consul): consul.faults
        case .probes(let probes): probes.faults
        case nil: [:]
        }
    }

    /// The shards that are named and were last told to fail their checks, also while nobody can be asked; not those that are
    /// being drained.
    var unhealthy: Set<ShardAddress> {
        switch source {
        case .consul(let consul): consul.unhealthy
        case .probes(let probes): Set(probes.faults.keys)
        case nil: []
        }
    }

    /// Shards that somebody has put into maintenance.
    var maintained: Set<ShardAddress> {
        switch source {
        case .consul(let consul): consul.maintained
        case .probes, nil: []
        }
    }

    /// Shards that `shardd drain` is emptying.
    var draining: Set<ShardAddress> {
        switch source {
        case .consul(let consul): consul.draining
        case .probes, nil: []
        }
    }

    /// Those of them that have yet to leave discovery.
    var stillNamed: Set<ShardAddress> {
        switch source {
        case .consul(let consul): consul.stillNamed
        case .probes, nil: []
        }
    }

    /// Why a shard is in the membership no more, as far as is known.
    func reasonToLeave(_ shard: ShardAddress) -> String {
        let unnamed = "the configuration does not name it any more"
        switch source {
        case .consul(let consul): return consul.reasonToLeave(shard) ?? unnamed
        case .probes(let probes): return probes.reasonToLeave(shard)
        case nil: return unnamed
        }
    }

    /// Asks nobody any more.
    func stop() {
        loop.assertOnLoop()
        source = nil
    }

    private func makeSource() {
        if let settings = configuration.consul {
            let consul = ConsulDiscovery(
                loop: loop,
                resolver: resolver,
                configuration: configuration,
                settings: settings,
                metrics: metrics,
                logger: logger,
                onChange: { [unowned self] in tell($0) }
            )
            source = .consul(consul)
            consul.start()
        } else {
            let probes = StaticDiscovery(
                loop: loop,
                resolver: resolver,
                configuration: configuration,
                metrics: metrics,
                logger: logger,
                onChange: { [unowned self] in tell($0) }
            )
            source = .probes(probes)
            probes.start()
        }
    }

    private func tell(_ membership: Membership) {
        guard membership != last || stillNamed != lastNamed else { return }
        (last, lastNamed) = (membership, stillNamed)
        onChange(membership)
    }
}
