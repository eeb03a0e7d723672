// Registers the file's servers with the Consul agent, so that nobody has to do it by hand. Consul discovery owns one
// and runs it at the start, and again when Consul has lost what it knew.
//
// A service that is registered the same way is left alone: a second replica or a restart changes nothing. So is one that another
// node's agent has registered, while that node is there: each replica may have an agent of its own. Replicas that start together
// may still both register a server; then one of them takes its registration back (docs/adr/0020-many-agents.md). A new one is
// registered as passing when a probe has just found it healthy, so that it does not leave the ring until Consul's own
// check has run.
import FoundationEssentials
import Logging

/// Registration of a set of servers; loop-confined.
final class Registrar {
    /// Servers that the agent holds for passing since the last run, and that Consul will therefore soon name.
    private(set) var announced: Set<ShardAddress> = []
    private let client: ConsulClient
    private let servers: [ShardAddress]
    private let check: Configuration.Check
    private let loop: EventLoop
    private let resolver: Resolver
    private let logger: Logger
    /// Servers that are being drained, and so are not registered.
    var draining: Set<ShardAddress> = []
    /// The name of the agent's node; nil before the agent has told.
    private var node: String?
    private var services: [String: RegisteredService] = [:]
    /// Registrations at other agents whose nodes are there.
    private var elsewhere: [ShardAddress: CatalogRegistration] = [:]
    private var removals: [String: HTTPCall] = [:]
    private var left: [ShardAddress] = []
    private var call: HTTPCall?
    private var lanes: [Lane] = []
    private var busyLanes = 0
    private var firstFailure: String?
    private var done: ((String?) -> Void)?

    /// One server after the other; several lanes go at once, so that dead servers do not hold up the others.
    private final class Lane {
        var probe: HealthProbe?
        var call: HTTPCall?
    }

    init(
        client: ConsulClient,
        configuration: Configuration,
        loop: EventLoop,
        resolver: Resolver,
        logger: Logger
    ) {
        self.client = client
        servers = configuration.servers
        check = configuration.check
        self.loop = loop
        self.resolver = resolver
        self.logger = logger
        lanes = (0..<Registrar.laneCount).map { _ in Lane() }
    }

    /// Whether a run is under way.
    var isRunning: Bool { done != nil }

    /// Registers what is not registered; `done` gets the reason when that has failed. Nothing while a run is under way.
    func run(_ done: @escaping (String?) -> Void) {
        loop.assertOnLoop()
        guard self.done == nil else { return }
        self.done = done
        announced = []
        firstFailure = nil
        call = client.agentServices { [unowned self] outcome in
            guard let services: [String: RegisteredService] = decodeDocument(outcome) else {
                return end(failure(outcome))
            }
            self.services = services
            readChecks()
        }
    }

    private func readChecks() {
        call = client.agentChecks { [unowned self] outcome in
            guard let checks: [String: RegisteredCheck] = decodeDocument(outcome) else { return end(failure(outcome)) }
            node = checks.values.first?.node ?? node
            let byService = Dictionary(grouping: checks.values, by: \.serviceID)
            if node == nil { readNode(byService) } else { readCatalog(byService) }
        }
    }

    /// An agent that runs no check tells its node's name only to who may read all of the agent. Without it, each registration in
    /// the catalogue that this agent does not have is another one's, and duplicates are found once it has checks.
    private func readNode(_ checks: [String: [RegisteredCheck]]) {
        call = client.agentItself { [unowned self] outcome in
            let agent: ConsulAgent? = decodeDocument(outcome)
            node = agent?.member.name
            readCatalog(checks)
        }
    }

    private func readCatalog(_ checks: [String: [RegisteredCheck]]) {
        call = client.instances(since: ConsulIndex()) { [unowned self] outcome in
            guard case .response(let response) = outcome, response.status == 200,
                let instances = HealthyInstances(decoding: response.body)
            else { return end(failure(outcome)) }
            let others = instances.registrations.filter { $0.isNodeAlive && $0.node != node }
            elsewhere = Dictionary(others.map { ($0.shard, $0) }) { $0.isPassing ? $0 : $1 }
            compare(checks)
        }
    }

    private func compare(_ checks: [String: [RegisteredCheck]]) {
        let isNodePassing = (checks[""] ?? []).allSatisfy { $0.status == "passing" }
        left = []
        for server in servers where !draining.contains(server) {
            let own = checks[registrationID(server)] ?? []
            if services[registrationID(server)] == nil, let other = elsewhere[server] {
                if other.isPassing { announced.insert(server) }
            } else if !isSame(services[registrationID(server)], own, as: server) {
                left.append(server)
            } else if isNodePassing, own.allSatisfy({ $0.status == "passing" }) {
                announced.insert(server)
            }
        }
        busyLanes = lanes.count
        for lane in lanes { registerNext(lane) }
    }

    /// Takes back what this agent and another one have both registered, if the other's is the one that stays.
    func removeDuplicates(_ registrations: [CatalogRegistration]) {
        loop.assertOnLoop()
        guard let node, !isRunning else { return }
        let others = Dictionary(grouping: registrations.filter { $0.isNodeAlive && $0.node != node }, by: \.shard)
        for own in registrations where own.node == node && own.isOfShardd && servers.contains(own.shard) {
            guard removals[own.id] == nil, let other = others[own.shard]?.first(where: { $0.outlasts(own) }) else {
                continue
            }
            removals[own.id] = client.deregister(own.id) { [unowned self] _ in
                removals[own.id] = nil
            }
            let metadata: Logger.Metadata = ["shard": "\(own.shard)", "node": "\(other.node)"]
            logger.info("another Consul agent has the shard too: it is deregistered here", metadata: metadata)
        }
    }

    /// The servers that only agents of nodes which are gone have registered.
    func orphans(_ registrations: [CatalogRegistration]) -> Set<ShardAddress> {
        let kept = Set(registrations.filter(\.isNodeAlive).map(\.shard))
        return Set(registrations.map(\.shard)).subtracting(kept).intersection(servers).subtracting(draining)
    }

    /// Whether a service is registered as this would do it, as far as the agent tells. One that somebody else has
    /// registered tells nothing of its check, and is taken as it is.
    private func isSame(_ service: RegisteredService?, _ checks: [RegisteredCheck], as server: ShardAddress) -> Bool {
        guard let service, service.name == client.settings.serviceName, service.address == server.host,
            service.port == server.port, checks.contains(where: { !$0.isMaintenance })
        else { return false }
        if let tag = client.settings.tag, service.tags?.contains(tag) != true { return false }
        guard let mark = service.meta?[Registrar.markName] else { return true }
        return mark == self.mark
    }

    private func registerNext(_ lane: Lane) {
        guard let server = left.popLast() else {
            busyLanes -= 1
            if busyLanes == 0 { end(firstFailure) }
            return
        }
        lane.probe = HealthProbe(server, check: check, loop: loop, resolver: resolver) {
            [unowned self, unowned lane] outcome in
            register(server, isHealthy: outcome == .healthy, lane)
        }
    }

    private func register(_ server: ShardAddress, isHealthy: Bool, _ lane: Lane) {
        lane.call = client.register(registration(server, isHealthy: isHealthy)) {
            [unowned self, unowned lane] outcome in
            if case .response(let response) = outcome, response.status == 200 {
                if isHealthy { announced.insert(server) }
                let metadata: Logger.Metadata = ["shard": "\(server)", "passing": "\(isHealthy)"]
                logger.info("shard is registered with Consul", metadata: metadata)
            } else {
                firstFailure = firstFailure ?? failure(outcome)
                left = []
            }
            registerNext(lane)
        }
    }

    private func registration(_ server: ShardAddress, isHealthy: Bool) -> ServiceRegistration {
        let present = services[registrationID(server)]
        var tags = present?.tags ?? []
        if let tag = client.settings.tag, !tags.contains(tag) { tags.append(tag) }
        var meta = present?.meta ?? [:]
        meta[Registrar.markName] = mark
        return ServiceRegistration(
            id: registrationID(server),
            name: client.settings.serviceName,
            address: server.host,
            port: server.port,
            tags: tags,
            meta: meta,
            check: ServiceRegistration.Check(
                url: "http://\(server)\(check.path)",
                interval: consulDuration(check.interval),
                timeout: consulDuration(check.timeout),
                status: isHealthy ? "passing" : "critical",
                deregisterAfter: client.settings.deregisterCriticalServiceAfter.map(consulDuration),
                headers: check.authorization.map { ["Authorization": [$0]] }
            )
        )
    }

    private func end(_ failure: String?) {
        let done = self.done
        self.done = nil
        done?(failure)
    }

    private func failure(_ outcome: HTTPOutcome) -> String {
        switch outcome {
        case .failed(let reason): reason
        case .response(let response) where response.status == 200: "its answer is not what it should be"
        case .response(let response): "it answered \(response.status)"
        }
    }

    /// What the check asks, kept with the service, since an agent does not tell. At most as long as Consul allows.
    private var mark: String {
        let after = client.settings.deregisterCriticalServiceAfter.map { " \(consulDuration($0))" } ?? ""
        let text = "\(consulDuration(check.interval)) \(consulDuration(check.timeout))\(after) \(check.path)"
        return String(text.prefix(512))
    }

    static let markName = "shardd-check"
    private static let laneCount = 8
}

/// The ID under which a server is registered: `HOST_PORT`.
func registrationID(_ server: ShardAddress) -> String { "\(server.host)_\(server.port)" }

/// A time as Consul, which is written in Go, reads it.
func consulDuration(_ span: TimeSpan) -> String { "\(span.nanoseconds / 1_000_000)ms" }
