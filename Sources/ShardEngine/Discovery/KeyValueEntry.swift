// Where things are in Consul's key-value store, and what a listing of it tells. The stores and the lock go by it.
// https://developer.hashicorp.com/consul/api-docs/kv#read-key
import FoundationEssentials

/// A key and its value.
struct KeyValueEntry: Decodable {
    var key: String
    /// Changes with each write of another value.
    var modifyIndex: UInt64
    /// The session that holds the key; nil where none does.
    var session: String?
    private var encodedValue: Data?

    /// Empty where there is none.
    var value: Data { encodedValue ?? Data() }

    enum CodingKeys: String, CodingKey {
        case key = "Key"
        case modifyIndex = "ModifyIndex"
        case session = "Session"
        case encodedValue = "Value"
    }

    /// The entries of an answer; none when it is something else, or nothing is stored.
    static func list(_ outcome: HTTPOutcome) -> [KeyValueEntry] {
        guard case .response(let response) = outcome, response.status == 200 else { return [] }
        return (try? JSONDecoder().decode([KeyValueEntry].self, from: Data(response.body))) ?? []
    }
}

extension ConsulClient {
    /// Where a key of this service is, below `shardd/NAME/`; with an empty last part, a folder.
    func keyTarget(_ parts: [String], _ parameters: String...) -> String {
        keyTarget(["shardd", settings.serviceName] + parts, parameters)
    }

    /// Where a key is, as a listing names it.
    func keyTarget(listed key: String, _ parameters: String...) -> String {
        keyTarget(key.split(separator: "/").map(String.init), parameters)
    }

    private func keyTarget(_ parts: [String], _ parameters: [String]) -> String {
        let target = "/v1/kv/" + parts.map(escaped).joined(separator: "/") + datacenterQuery
        return parameters.reduce(target) { $0 + ($0.contains("?") ? "&" : "?") + $1 }
    }
}
