// Consul's answers, decoded: the healthy instances of a service, what an agent has registered, and the agent itself.
// https://developer.hashicorp.com/consul/api-docs/health and .../agent/service
import FoundationEssentials

/// One instance, as `/v1/health/service/NAME` lists it.
private struct HealthEntry: Decodable {
    struct Node: Decodable {
        var name: String?
        var address: String

        enum CodingKeys: String, CodingKey {
            case name = "Node"
            case address = "Address"
        }
    }

    struct Service: Decodable {
        var id: String?
        var address: String
        var port: Int
        var meta: [String: String]?

        enum CodingKeys: String, CodingKey {
            case id = "ID"
            case address = "Address"
            case port = "Port"
            case meta = "Meta"
        }
    }

    struct Check: Decodable {
        var id: String
        var status: String
        var output: String?
        var notes: String?

        enum CodingKeys: String, CodingKey {
            case id = "CheckID"
            case status = "Status"
            case output = "Output"
            case notes = "Notes"
        }

        var isMaintenance: Bool { id.hasPrefix("_service_maintenance") || id.hasPrefix("_node_maintenance") }

        /// Why the instance gets no pushes by this check; nil when it passes.
        var fault: String? {
            guard status != "passing" else { return nil }
            if isMaintenance {
                let what = id.hasPrefix("_node") ? "its node" : "it"
                return "\(what) is in maintenance in Consul" + (notes.map { $0.isEmpty ? "" : ": \($0)" } ?? "")
            }
            let line = output?.split(whereSeparator: \.isNewline).first.map { ": \($0.prefix(200))" } ?? ""
            return "its check \(id) in Consul is \(status)\(line)"
        }
    }

    var node: Node
    var service: Service
    var checks: [Check]?

    /// Whether it is left on purpose, and would pass otherwise.
    var isMaintained: Bool {
        let failing = (checks ?? []).filter { $0.status != "passing" }
        return !failing.isEmpty && failing.allSatisfy(\.isMaintenance)
    }

    enum CodingKeys: String, CodingKey {
        case node = "Node"
        case service = "Service"
        case checks = "Checks"
    }

    /// Why it gets no pushes: the first check that does not pass, maintenance before others.
    var fault: String? {
        let faults = (checks ?? []).sorted { $0.id < $1.id }.compactMap(\.fault)
        return faults.first { $0.contains("maintenance") } ?? faults.first
    }
}

/// What an answer names.
struct HealthyInstances: Equatable, Sendable {
    /// Those that have a registration all of whose checks pass: ascending, none twice.
    var shards: [ShardAddress] = []
    /// The others, each with what is wrong.
    var faults: [ShardAddress: String] = [:]
    /// Those of the others that somebody has put into maintenance: they are there, and are to be left.
    var maintained: Set<ShardAddress> = []
    /// All registrations of those, in the order of the answer: an address may have several, at different agents.
    var registrations: [CatalogRegistration] = []
    /// Instances that no push can be sent to: without a port, or with an address that is none.
    var unusable: [String] = []

    /// Nobody.
    init() {}

    /// What the body of an answer names; nil when it is not what it should be.
    init?(decoding body: [UInt8]) {
        guard let entries = try? JSONDecoder().decode([HealthEntry].self, from: Data(body)) else { return nil }
        var found = Set<ShardAddress>()
        var faults: [ShardAddress: String] = [:]
        for entry in entries {
            // A service without an address of its own is at its node's.
            let host = entry.service.address.isEmpty ? entry.node.address : entry.service.address
            let isLiteral = host.contains(":") && !host.hasPrefix("[")
            let text = isLiteral ? "[\(host)]:\(entry.service.port)" : "\(host):\(entry.service.port)"
            guard let shard = ShardAddress(parsing: text) else {
                unusable.append(text)
                continue
            }
            registrations.append(CatalogRegistration(entry, shard))
            if let fault = entry.fault { faults[shard] = fault } else { found.insert(shard) }
            if entry.isMaintained { maintained.insert(shard) }
        }
        shards = found.sorted()
        self.faults = faults.filter { !found.contains($0.key) }
    }
}

/// One registration of a shard, as the catalogue has it.
struct CatalogRegistration: Equatable, Sendable {
    let shard: ShardAddress
    /// The name and address of the node whose agent has it.
    let node: String
    let nodeAddress: String
    let id: String
    /// Whether the node's agent is there, as far as the others know.
    let isNodeAlive: Bool
    /// Whether a replica of shardd has made it, from its file.
    let isOfShardd: Bool
    let isPassing: Bool

    fileprivate init(_ entry: HealthEntry, _ shard: ShardAddress) {
        self.shard = shard
        node = entry.node.name ?? ""
        nodeAddress = entry.node.address
        id = entry.service.id ?? registrationID(shard)
        isNodeAlive = entry.checks?.contains { $0.id == "serfHealth" && $0.status != "passing" } != true
        isOfShardd = entry.service.meta?[Registrar.markName] != nil
        isPassing = entry.fault == nil
    }

    /// Whether this one stays where the shard has another one too: somebody else's, or else the one at the node whose name
    /// comes first. All replicas decide so, each of its own agent alone, and so exactly one stays.
    func outlasts(_ other: CatalogRegistration) -> Bool {
        if isOfShardd != other.isOfShardd { return !isOfShardd }
        return node < other.node
    }
}

/// An agent, as it tells of itself.
struct ConsulAgent: Decodable {
    struct Member: Decodable {
        /// The node's name.
        var name: String

        enum CodingKeys: String, CodingKey {
            case name = "Name"
        }
    }

    var member: Member

    enum CodingKeys: String, CodingKey {
        case member = "Member"
    }
}

/// A service as an agent has it.
struct RegisteredService: Decodable, Equatable {
    var id: String
    var name: String
    var address: String
    var port: Int
    var tags: [String]?
    var meta: [String: String]?

    enum CodingKeys: String, CodingKey {
        case id = "ID"
        case name = "Service"
        case address = "Address"
        case port = "Port"
        case tags = "Tags"
        case meta = "Meta"
    }
}

/// A check as an agent, or the health endpoint of a node, has it. What it asks is not told: an agent leaves `Definition` empty.
struct RegisteredCheck: Decodable {
    var node: String
    var id: String
    var status: String
    var notes: String?
    /// Empty for a check of the whole node.
    var serviceID: String

    enum CodingKeys: String, CodingKey {
        case node = "Node"
        case id = "CheckID"
        case status = "Status"
        case notes = "Notes"
        case serviceID = "ServiceID"
    }

    var isPassing: Bool { status == "passing" }

    /// Whether it stands for maintenance mode, rather than asking anybody.
    var isMaintenance: Bool { id.hasPrefix("_service_maintenance") || id.hasPrefix("_node_maintenance") }
}
