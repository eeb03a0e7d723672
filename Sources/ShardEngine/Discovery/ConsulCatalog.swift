// Consul's answers, decoded: the healthy instances of a service, what an agent has registered, and the agent itself.
// https://developer.hashicorp.com/consul/api-docs/health and .../agent/service
import FoundationEssentials

/// One healthy instance, as `/v1/health/service/NAME` lists it.
private struct HealthEntry: Decodable {
    struct Node: Decodable {
        var address: String

        enum CodingKeys: String, CodingKey {
            case address = "Address"
        }
    }

    struct Service: Decodable {
        var address: String
        var port: Int

        enum CodingKeys: String, CodingKey {
            case address = "Address"
            case port = "Port"
        }
    }

    var node: Node
    var service: Service

    enum CodingKeys: String, CodingKey {
        case node = "Node"
        case service = "Service"
    }
}

/// What an answer names.
struct HealthyInstances: Equatable, Sendable {
    /// Ascending, none twice.
    var shards: [ShardAddress] = []
    /// Instances that no push can be sent to: without a port, or with an address that is none.
    var unusable: [String] = []

    /// Nobody.
    init() {}

    /// What the body of an answer names; nil when it is not what it should be.
    init?(decoding body: [UInt8]) {
        guard let entries = try? JSONDecoder().decode([HealthEntry].self, from: Data(body)) else { return nil }
        var found = Set<ShardAddress>()
        for entry in entries {
            // A service without an address of its own is at its node's.
            let host = entry.service.address.isEmpty ? entry.node.address : entry.service.address
            let isLiteral = host.contains(":") && !host.hasPrefix("[")
            let text = isLiteral ? "[\(host)]:\(entry.service.port)" : "\(host):\(entry.service.port)"
            if let shard = ShardAddress(parsing: text) { found.insert(shard) } else { unusable.append(text) }
        }
        shards = found.sorted()
    }
}

/// An agent, as it tells of itself.
struct ConsulAgent: Decodable {
    struct Member: Decodable {
        /// Where a service is that has no address of its own.
        var address: String

        enum CodingKeys: String, CodingKey {
            case address = "Addr"
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

/// A check as an agent has it. What it asks is not told: an agent leaves `Definition` empty.
struct RegisteredCheck: Decodable {
    var id: String
    var status: String
    /// Empty for a check of the whole node.
    var serviceID: String

    enum CodingKeys: String, CodingKey {
        case id = "CheckID"
        case status = "Status"
        case serviceID = "ServiceID"
    }

    /// Whether it stands for maintenance mode, rather than asking anybody.
    var isMaintenance: Bool { id.hasPrefix("_service_maintenance") || id.hasPrefix("_node_maintenance") }
}
