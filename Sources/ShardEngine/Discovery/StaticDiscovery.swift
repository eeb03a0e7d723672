// Discovery without Consul: shardd probes the servers in the file itself. Discovery owns it in static mode.
import Logging

/// Probes each server every `check.interval`; loop-confined.
final class StaticDiscovery {
    private let loop: EventLoop
    private let resolver: Resolver
    private let logger: Logger
    private let metrics: DiscoveryMetrics
    private let onChange: (Membership) -> Void
    private var check: Configuration.Check
    private var servers: [ShardAddress]
    private var membership: StaticMembership
    private var timer: Timer?
    private var next: Timer?
    private var probes: [ShardAddress: HealthProbe] = [:]
    /// Servers that this round has yet to probe, the next one last.
    private var waiting: [ShardAddress] = []

    init(
        loop: EventLoop,
        resolver: Resolver,
        configuration: Configuration,
        metrics: DiscoveryMetrics,
        logger: Logger,
        onChange: @escaping (Membership) -> Void
    ) {
        self.loop = loop
        self.resolver = resolver
        self.logger = logger
        self.metrics = metrics
        self.onChange = onChange
        check = configuration.check
        servers = configuration.servers
        membership = StaticMembership(shards: servers, fall: check.fall, rise: check.rise)
        timer = Timer(loop: loop) { [unowned self] in probeAll() }
        next = Timer(loop: loop) { [unowned self] in probeNext() }
    }

    /// Starts to probe.
    func start() {
        loop.assertOnLoop()
        tell()
        probeAll()
    }

    /// Goes over to other servers and settings.
    func apply(_ configuration: Configuration) {
        loop.assertOnLoop()
        check = configuration.check
        servers = configuration.servers
        membership.replace(servers, fall: check.fall, rise: check.rise)
        probes = probes.filter { servers.contains($0.key) }
        metrics.keep(servers.contains)
        waiting = []
        tell()
        probeAll()
    }

    private func probeAll() {
        // A round that takes longer than the interval is not begun anew, or the last servers would never have a turn.
        if waiting.isEmpty { waiting = servers.reversed().filter { probes[$0] == nil } }
        probeNext()
        timer?.schedule(after: check.interval)
    }

    /// Begins some probes, and the others a moment later: answers to all of them at once would hold pushes up.
    private func probeNext() {
        let ticks = check.interval.seconds / 2 / StaticDiscovery.tick.seconds
        var left = max(StaticDiscovery.probesInATick, Int((Double(servers.count) / ticks).rounded(.up)))
        while left > 0, probes.count < StaticDiscovery.probeLimit, let shard = waiting.popLast() {
            guard probes[shard] == nil else { continue }
            left -= 1
            probes[shard] = HealthProbe(shard, check: check, loop: loop, resolver: resolver) { [unowned self] outcome in
                probed(shard, outcome)
            }
        }
        if !waiting.isEmpty { next?.schedule(after: StaticDiscovery.tick) }
    }

    private func probed(_ shard: ShardAddress, _ outcome: ProbeOutcome) {
        probes[shard] = nil
        metrics.count(outcome == .healthy ? .success : .unreachable)
        let before = membership.shards
        let fault: String? = if case .failed(let reason) = outcome { reason } else { nil }
        if fault != nil { metrics.countCheckFailure(of: shard) }
        if membership.record(shard, fault: fault) {
            if let fault {
                logger.warning("shard fails its probes", metadata: ["shard": "\(shard)", "reason": "\(fault)"])
            } else {
                logger.info("shard passes its probes again", metadata: ["shard": "\(shard)"])
            }
        }
        if membership.shards != before { tell() }
    }

    /// The shards that fail their probes, with what is wrong with each.
    var faults: [ShardAddress: String] { membership.faults }

    /// Why a shard is on the ring no more.
    func reasonToLeave(_ shard: ShardAddress) -> String {
        guard servers.contains(shard) else { return "pushgateway.servers does not name it any more" }
        return membership.faults[shard].map { "its probes fail: \($0)" } ?? "its probes failed a moment ago"
    }

    private func tell() {
        onChange(Membership(shards: membership.shards, source: .static))
    }

    /// How many descriptors probes may take at a time: with none left, healthy shards would seem dead.
    private static let probeLimit = 32
    private static let tick = TimeSpan.milliseconds(10)
    /// As long as a round takes no more than half of the interval so.
    private static let probesInATick = 8
}
