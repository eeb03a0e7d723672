// Requests to a Consul agent: where it is, who asks, what the paths are. Discovery and reconciling make them.
import FoundationEssentials

/// A service to register, as `PUT /v1/agent/service/register` takes it:
/// https://developer.hashicorp.com/consul/api-docs/agent/service#register-service
struct ServiceRegistration: Encodable {
    struct Check: Encodable {
        var url: String
        var interval: String
        var timeout: String
        var status: String
        var deregisterAfter: String?
        var headers: [String: [String]]?

        enum CodingKeys: String, CodingKey {
            case url = "HTTP"
            case interval = "Interval"
            case timeout = "Timeout"
            case status = "Status"
            case deregisterAfter = "DeregisterCriticalServiceAfter"
            case headers = "Header"
        }
    }

    var id: String
    var name: String
    var address: String
    var port: Int
    var tags: [String]
    var meta: [String: String]
    var check: Check

    enum CodingKeys: String, CodingKey {
        case id = "ID"
        case name = "Name"
        case address = "Address"
        case port = "Port"
        case tags = "Tags"
        case meta = "Meta"
        case check = "Check"
    }
}

/// One agent, spoken to with the configured credentials; loop-confined.
final class ConsulClient {
    let settings: Configuration.Consul
    private let loop: EventLoop
    private let resolver: Resolver
    private let tls: TLSContext?

    init(loop: EventLoop, resolver: Resolver, settings: Configuration.Consul) {
        self.loop = loop
        self.resolver = resolver
        self.settings = settings
        tls = settings.isTLS ? TLSContext() : nil
    }

    /// Asks for the instances of the service, whatever their health.
    ///
    /// - Parameter index: with `wait` > 0, the state that is known already: the answer comes when there is another, or
    ///   after `wait`.
    func instances(since index: ConsulIndex, _ done: @escaping (HTTPOutcome) -> Void) -> HTTPCall {
        // Where a state is known, Consul tells of a later one; without one, its answer has to be the latest there is.
        var parameters = index.value == 0 ? [ConsulClient.consistentRead] : []
        var timeout = ConsulClient.timeout
        if settings.wait > .zero {
            parameters += ["index=\(index.value)", "wait=\(settings.wait.nanoseconds / 1_000_000)ms"]
            // Consul adds up to a sixteenth of the wait, so that not all clients come back at once.
            timeout.nanoseconds += settings.wait.nanoseconds / 16 * 17
        }
        return call(.get, healthTarget(parameters), timeout: timeout, done)
    }

    /// Where the instances of the service are listed with their health, for one who does not know of them yet.
    var currentHealthTarget: String { healthTarget([ConsulClient.consistentRead]) }

    /// Those that do not pass are listed too: Consul tells what is wrong with them.
    private func healthTarget(_ parameters: [String]) -> String {
        var parameters = parameters
        if let datacenter = settings.datacenter { parameters.append("dc=\(escaped(datacenter))") }
        if let tag = settings.tag { parameters.append("tag=\(escaped(tag))") }
        let query = parameters.isEmpty ? "" : "?" + parameters.joined(separator: "&")
        return "/v1/health/service/\(escaped(settings.serviceName))\(query)"
    }

    /// Asks what the agent has registered: services, or their checks.
    func agentServices(_ done: @escaping (HTTPOutcome) -> Void) -> HTTPCall {
        call(.get, "/v1/agent/services", timeout: ConsulClient.timeout, done)
    }

    /// Asks what the agent is.
    func agentItself(_ done: @escaping (HTTPOutcome) -> Void) -> HTTPCall {
        call(.get, "/v1/agent/self", timeout: ConsulClient.timeout, done)
    }

    /// Asks for the checks that the agent runs.
    func agentChecks(_ done: @escaping (HTTPOutcome) -> Void) -> HTTPCall {
        call(.get, "/v1/agent/checks", timeout: ConsulClient.timeout, done)
    }

    /// Deregisters a service from the agent.
    func deregister(_ id: String, _ done: @escaping (HTTPOutcome) -> Void) -> HTTPCall {
        call(.put, deregistrationTarget(id), timeout: ConsulClient.timeout, done)
    }

    /// Where the agent's registration with this ID is ended.
    func deregistrationTarget(_ id: String) -> String { "/v1/agent/service/deregister/\(escaped(id))" }

    /// Where the agent's service with this ID enters maintenance, in which it does not pass, or leaves it.
    func maintenanceTarget(_ id: String, isOn: Bool) -> String {
        let reason = isOn ? "&reason=\(escaped(ConsulClient.drainReason))" : ""
        return "/v1/agent/service/maintenance/\(escaped(id))?enable=\(isOn)\(reason)"
    }

    /// Why a shard that is being drained is in maintenance.
    static let drainReason = "shardd drain"

    /// Registers a service with the agent, in place of one with the same ID.
    func register(_ registration: ServiceRegistration, _ done: @escaping (HTTPOutcome) -> Void) -> HTTPCall {
        guard let body = try? JSONEncoder().encode(registration) else {
            preconditionFailure("a registration that is no JSON")
        }
        return call(.put, "/v1/agent/service/register", body: Array(body), timeout: ConsulClient.timeout, done)
    }

    /// Makes a request.
    func call(
        _ method: Method,
        _ target: String,
        body: [UInt8] = [],
        timeout: TimeSpan,
        _ done: @escaping (HTTPOutcome) -> Void
    ) -> HTTPCall {
        loop.assertOnLoop()
        return HTTPCall(loop: loop, resolver: resolver, request(method, target, body: body, timeout: timeout), done)
    }

    /// A request to the agent, with the configured credentials.
    func request(
        _ method: Method,
        _ target: String,
        body: [UInt8] = [],
        timeout: TimeSpan = ConsulClient.timeout
    ) -> HTTPRequest {
        var headers: [(name: String, value: String)] = []
        if let token = settings.token { headers.append(("X-Consul-Token", token)) }
        if let username = settings.username {
            headers.append(("Authorization", basicAuthorization(username, settings.password)))
        }
        if !body.isEmpty { headers.append(("Content-Type", "application/json")) }
        return HTTPRequest(
            method: method,
            host: settings.host,
            port: settings.port,
            tls: tls,
            target: target,
            headers: headers,
            body: body,
            timeout: timeout,
            bodyLimit: ConsulClient.bodyLimit
        )
    }

    /// `?dc=NAME` where the agent's own datacenter is not the one; otherwise nothing.
    var datacenterQuery: String { settings.datacenter.map { "?dc=\(escaped($0))" } ?? "" }

    /// Text as a part of a path or query.
    func escaped(_ text: String) -> String {
        text.utf8.map { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: String(UnicodeScalar(byte))
            default: "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
            }
        }.joined()
    }

    /// As a parameter, has a server that has just become the leader answer once it has read all of its log: before, it tells
    /// of what was deregistered or removed long ago. https://developer.hashicorp.com/consul/api-docs/features/consistency
    static let consistentRead = "consistent"
    /// How long an answer that need not wait for anything may take.
    static let timeout = TimeSpan.seconds(5)
    /// Enough for ten thousand instances, and for hints of hundreds of thousands of requests.
    private static let bodyLimit = 1 << 28
}
