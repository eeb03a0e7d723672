// Registers the file's servers with the Consul agent, so that nobody has to do it by hand. Consul discovery owns one
// and runs it at the start, and again when Consul has lost what it knew.
//
// A service that is registered the same way is left alone: a second replica or a restart changes nothing. A new one is
// registered as passing when a probe has just found it healthy, so that it does not leave the ring until Consul's own
// check has run.
import FoundationEssentials
import Logging

/// Registration of a set of servers; loop-confined.
final class Registrar {
    /// Servers that the last run has registered as passing, which Consul will soon name.
    private(set) var announced: Set<ShardAddress> = []
    private let client: ConsulClient
    private let servers: [ShardAddress]
    private let check: Configuration.Check
    private let loop: EventLoop
    private let resolver: Resolver
    private let logger: Logger
    private var services: [String: RegisteredService] = [:]
    private var left: [ShardAddress] = []
    private var call: HTTPCall?
    private var probe: HealthProbe?
    private var done: ((String?) -> Void)?

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
    }

    /// Registers what is not registered; `done` gets the reason when that has failed. Nothing while a run is under way.
    func run(_ done: @escaping (String?) -> Void) {
        guard self.done == nil else { return }
        self.done = done
        announced = []
        call = client.agentServices { [unowned self] outcome in
            guard let services: [String: RegisteredService] = decode(outcome) else { return end(failure(outcome)) }
            self.services = services
            readChecks()
        }
    }

    private func readChecks() {
        call = client.agentChecks { [unowned self] outcome in
            guard let checks: [String: RegisteredCheck] = decode(outcome) else { return end(failure(outcome)) }
            let checksByService = Dictionary(grouping: checks.values, by: \.serviceID)
            left = servers.filter { server in
                guard let service = services[registrationID(server)] else { return true }
                return !isSame(service, checksByService[service.id] ?? [], as: server)
            }
            registerNext()
        }
    }

    private func isSame(_ service: RegisteredService, _ checks: [RegisteredCheck], as server: ShardAddress) -> Bool {
        guard service.name == client.settings.serviceName, service.address == server.host, service.port == server.port
        else { return false }
        // An agent that does not tell what its checks are must be taken at its word.
        let urls = checks.compactMap { $0.definition?.url }.filter { !$0.isEmpty }
        return !checks.isEmpty && (urls.isEmpty || urls.contains(checkURL(server)))
    }

    private func registerNext() {
        guard let server = left.popLast() else { return end(nil) }
        probe = HealthProbe(server, check: check, loop: loop, resolver: resolver) { [unowned self] outcome in
            register(server, isHealthy: outcome == .healthy)
        }
    }

    private func register(_ server: ShardAddress, isHealthy: Bool) {
        let registration = ServiceRegistration(
            id: registrationID(server),
            name: client.settings.serviceName,
            address: server.host,
            port: server.port,
            tags: client.settings.tag.map { [$0] } ?? [],
            check: ServiceRegistration.Check(
                url: checkURL(server),
                interval: consulDuration(check.interval),
                timeout: consulDuration(check.timeout),
                status: isHealthy ? "passing" : "critical",
                deregisterAfter: client.settings.deregisterCriticalServiceAfter.map(consulDuration)
            )
        )
        call = client.register(registration) { [unowned self] outcome in
            guard case .response(let response) = outcome, response.status == 200 else { return end(failure(outcome)) }
            if isHealthy { announced.insert(server) }
            logger.info("shard is registered with Consul", metadata: ["shard": "\(server)", "passing": "\(isHealthy)"])
            registerNext()
        }
    }

    private func end(_ failure: String?) {
        let done = self.done
        self.done = nil
        done?(failure)
    }

    private func decode<Document: Decodable>(_ outcome: HTTPOutcome) -> Document? {
        guard case .response(let response) = outcome, response.status == 200 else { return nil }
        return try? JSONDecoder().decode(Document.self, from: Data(response.body))
    }

    private func failure(_ outcome: HTTPOutcome) -> String {
        switch outcome {
        case .failed(let reason): reason
        case .response(let response) where response.status == 200: "its answer is not what it should be"
        case .response(let response): "it answered \(response.status)"
        }
    }

    private func checkURL(_ server: ShardAddress) -> String { "http://\(server)\(check.path)" }
}

/// The ID under which a server is registered: `HOST_PORT`.
func registrationID(_ server: ShardAddress) -> String { "\(server.host)_\(server.port)" }

/// A time as Consul, which is written in Go, reads it.
func consulDuration(_ span: TimeSpan) -> String { "\(span.nanoseconds / 1_000_000)ms" }
