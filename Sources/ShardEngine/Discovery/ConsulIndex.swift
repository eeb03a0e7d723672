// The index of Consul's blocking queries, by its rules:
// https://developer.hashicorp.com/consul/api-docs/features/blocking
// The Consul poller sends it with each query.

extension HTTPOutcome {
    /// Consul's index, of an answer that tells it.
    var consulIndex: UInt64? {
        guard case .response(let response) = self else { return nil }
        return response.header("X-Consul-Index").flatMap { UInt64($0) }
    }
}

/// Which state of the catalogue the last answer showed.
struct ConsulIndex: Equatable {
    /// What to send as `index`; 0 asks for an answer at once.
    private(set) var value: UInt64 = 0
    /// That of the last answer that had one: unlike `value`, it outlasts failures.
    private var seen: UInt64 = 0

    /// Takes in the X-Consul-Index of an answer.
    ///
    /// An index that goes backwards means that Consul has lost its state: the next query must not wait for the old one.
    /// One that is missing or zero would make each query return at once, so 1 stands in.
    ///
    /// - Returns: whether Consul has lost its state. An answer without an index is not Consul's own, and tells nothing.
    mutating func update(_ header: String?) -> Bool {
        guard let header, let index = UInt64(header) else {
            value = 1
            return false
        }
        let isBackwards = index < seen
        seen = max(1, index)
        value = isBackwards ? 0 : seen
        return isBackwards
    }

    /// Has the next query answered at once.
    mutating func restart() {
        value = 0
    }
}
