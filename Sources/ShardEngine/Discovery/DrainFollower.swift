// The shards that are being drained, as `shardd drain` writes them into Consul's key-value store for all replicas: each takes them
// off its ring, and sees to it that its own agent, which others may not reach, holds them for unhealthy and, at the end,
// deregisters them. Consul discovery owns one.
import FoundationEssentials
import Logging

/// One shard that is being drained.
struct DrainEntry: Codable, Equatable, Sendable {
    /// How far the drain has come.
    enum Phase: String, Codable, Sendable {
        /// The shard is being emptied: agents have it in maintenance.
        case emptying
        /// Nothing that it holds counts any more: agents deregister it, so that Prometheus finds it there no more.
        case leaving
        /// It is out of discovery, as far as that could be done: its copies go once Prometheus has dropped it.
        case left
    }

    /// A registration of the shard: those without an address of their own can only be told so.
    struct Registration: Codable, Hashable, Sendable {
        var node: String
        var id: String
    }

    /// As `host:port`.
    var shard: String
    var phase: Phase
    /// All that there were when the drain began.
    var registrations: [Registration]

    var address: ShardAddress? { ShardAddress(parsing: shard) }
}

extension ConsulClient {
    /// Where the drain of a shard is; without one, where all are listed.
    func drainTarget(_ shard: ShardAddress?) -> String {
        shard.map { keyTarget(["register", "drain", registrationID($0)]) }
            ?? keyTarget(["register", "drain", ""], "recurse=1", ConsulClient.consistentRead)
    }

    /// The drains that an answer lists.
    static func drains(_ outcome: HTTPOutcome) -> [DrainEntry] {
        KeyValueEntry.list(outcome).compactMap { try? JSONDecoder().decode(DrainEntry.self, from: $0.value) }
    }
}

/// Follows drains at one agent; loop-confined.
final class DrainFollower {
    private let client: ConsulClient
    private let logger: Logger
    private let onChange: () -> Void
    /// Nil before the first answer.
    private var entries: [ShardAddress: DrainEntry]?
    /// Shards whose drain was finished, with Consul's index by then. A catalogue of an earlier index that names one is out of
    /// date.
    private var finished: [ShardAddress: UInt64] = [:]
    private var watch: KeyValueWatch?
    private var retry: Timer?
    private var call: HTTPCall?
    /// What is to be asked of the agent, the next one last.
    private var requests: [(target: String, shard: ShardAddress, message: Logger.Message)] = []
    /// Whether something has changed since the agent was last asked what it has.
    private var isDue = false

    /// - Parameter onChange: is called when other shards are being drained, or have left discovery.
    init(client: ConsulClient, loop: EventLoop, logger: Logger, onChange: @escaping () -> Void) {
        self.client = client
        self.logger = logger
        self.onChange = onChange
        retry = Timer(loop: loop) { [unowned self] in tend() }
        watch = KeyValueWatch(client: client, target: client.drainTarget(nil), loop: loop) { [unowned self] outcome in
            take(ConsulClient.drains(outcome), index: outcome.consulIndex)
        }
    }

    /// The shards that are being drained, or were, and may still be named by a catalogue that is out of date.
    var shards: Set<ShardAddress> { Set(finished.keys).union(entries.map { Array($0.keys) } ?? []) }

    /// Those of them that have yet to leave discovery: their copies stay until they have.
    var stillNamed: Set<ShardAddress> {
        Set((entries ?? [:]).filter { $0.value.phase != .left }.keys)
    }

    /// Takes in which shards the catalogue names.
    ///
    /// - Parameter index: Consul's, of the catalogue; nil where it does not tell.
    func catalogueNames(_ shards: Set<ShardAddress>, index: UInt64?) {
        finished = finished.filter { shards.contains($0.key) && index ?? .max < $0.value }
    }

    private func take(_ drains: [DrainEntry], index: UInt64?) {
        let pairs = drains.compactMap { drain in drain.address.map { ($0, drain) } }
        let new = Dictionary(pairs) { first, _ in first }
        guard new != entries else { return }
        let (before, namedBefore) = (shards, stillNamed)
        for (shard, drain) in entries ?? [:] where new[shard] == nil && drain.phase != .emptying {
            finished[shard] = index
        }
        entries = new
        if shards != before || stillNamed != namedBefore { onChange() }
        isDue = true
        tend()
    }

    /// Brings the agent's registrations into the state that they are to be in.
    private func tend() {
        guard isDue, call == nil else { return }
        isDue = false
        call = client.agentServices { [unowned self] outcome in
            guard let services: [String: RegisteredService] = decodeDocument(outcome) else { return failed() }
            call = client.agentChecks { [unowned self] outcome in
                guard let checks: [String: RegisteredCheck] = decodeDocument(outcome) else { return failed() }
                call = nil
                plan(services.values, checks.values)
                askNext()
            }
        }
    }

    private func plan(_ services: some Sequence<RegisteredService>, _ checks: some Sequence<RegisteredCheck>) {
        let drained = checks.filter { $0.isMaintenance && $0.notes == ConsulClient.drainReason }
        let maintained = Set(drained.map(\.serviceID))
        let node = checks.first { _ in true }?.node
        for service in services where service.name == client.settings.serviceName {
            let own = node.map { DrainEntry.Registration(node: $0, id: service.id) }
            let address = ShardAddress(host: service.address, port: service.port)
            let drain = entries?[address] ?? entries?.values.first { own.map($0.registrations.contains) == true }
            let shard = drain?.address ?? address
            let isMaintained = maintained.contains(service.id)
            switch drain?.phase {
            case .emptying where !isMaintained:
                requests.append((client.maintenanceTarget(service.id, isOn: true), shard, "shard is being drained"))
            case .leaving, .left:
                requests.append((client.deregistrationTarget(service.id), shard, "drained shard is deregistered"))
            case nil where isMaintained:
                requests.append((client.maintenanceTarget(service.id, isOn: false), shard, "shard is drained no more"))
            default:
                break
            }
        }
    }

    private func askNext() {
        guard let request = requests.popLast() else { return tend() }
        call = client.call(.put, request.target, timeout: ConsulClient.timeout) { [unowned self] outcome in
            call = nil
            if case .response(let response) = outcome, response.status == 200 {
                logger.info(request.message, metadata: ["shard": "\(request.shard)"])
                askNext()
            } else {
                failed()
            }
        }
    }

    private func failed() {
        call = nil
        requests = []
        isDue = true
        retry?.schedule(after: DrainFollower.retryInterval)
    }

    private static let retryInterval = TimeSpan.seconds(1)
}

/// What an answer of Consul's with status 200 holds; nil where it is another one, or is not what it should be.
func decodeDocument<Document: Decodable>(_ outcome: HTTPOutcome) -> Document? {
    guard case .response(let response) = outcome, response.status == 200 else { return nil }
    return try? JSONDecoder().decode(Document.self, from: Data(response.body))
}
