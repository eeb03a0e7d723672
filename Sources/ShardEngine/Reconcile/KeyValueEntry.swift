// What a listing of Consul's key-value store tells. Both stores read theirs by it.
// https://developer.hashicorp.com/consul/api-docs/kv#read-key
import FoundationEssentials

/// A key and its value.
struct KeyValueEntry: Decodable {
    var key: String
    /// Changes with each write of another value.
    var modifyIndex: UInt64
    private var encodedValue: Data?

    /// Empty where there is none.
    var value: Data { encodedValue ?? Data() }

    enum CodingKeys: String, CodingKey {
        case key = "Key"
        case modifyIndex = "ModifyIndex"
        case encodedValue = "Value"
    }

    /// The entries of an answer; none when it is something else, or nothing is stored.
    static func list(_ outcome: HTTPOutcome) -> [KeyValueEntry] {
        guard case .response(let response) = outcome, response.status == 200 else { return [] }
        return (try? JSONDecoder().decode([KeyValueEntry].self, from: Data(response.body))) ?? []
    }
}
