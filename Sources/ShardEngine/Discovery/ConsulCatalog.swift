// Consul's answers, decoded: the healthy instances of a service, and what an agent has registered.
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

/// The shards that an answer names, ascending, none twice; nil when it is not what it should be.
func decodeHealthyShards(_ body: [UInt8]) -> [ShardAddress]? {
    guard let entries = try? JSONDecoder().decode([HealthEntry].self, from: Data(body)) else { return nil }
    var shards = Set<ShardAddress>()
    for entry in entries {
        // A service without an address of its own is at its node's.
        let host = entry.service.address.isEmpty ? entry.node.address : entry.service.address
        let isLiteral = host.contains(":") && !host.hasPrefix("[")
        let text = isLiteral ? "[\(host)]:\(entry.service.port)" : "\(host):\(entry.service.port)"
        guard let shard = ShardAddress(parsing: text) else { return nil }
        shards.insert(shard)
    }
    return shards.sorted()
}

/// A service as an agent has it.
struct RegisteredService: Decodable, Equatable {
    var id: String
    var name: String
    var address: String
    var port: Int

    enum CodingKeys: String, CodingKey {
        case id = "ID"
        case name = "Service"
        case address = "Address"
        case port = "Port"
    }
}

/// A check as an agent has it.
struct RegisteredCheck: Decodable {
    struct Definition: Decodable {
        var url: String?
        var interval: String?
        var timeout: String?
        var deregisterAfter: String?

        enum CodingKeys: String, CodingKey {
            case url = "HTTP"
            case interval = "Interval"
            case timeout = "Timeout"
            case deregisterAfter = "DeregisterCriticalServiceAfter"
        }
    }

    var serviceID: String
    var definition: Definition?

    enum CodingKeys: String, CodingKey {
        case serviceID = "ServiceID"
        case definition = "Definition"
    }
}
