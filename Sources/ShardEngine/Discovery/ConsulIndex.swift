// The index of Consul's blocking queries, by its rules:
// https://developer.hashicorp.com/consul/api-docs/features/blocking
// The Consul poller sends it with each query.

/// Which state of the catalogue the last answer showed.
struct ConsulIndex: Equatable {
    /// What to send as `index`; 0 asks for an answer at once.
    private(set) var value: UInt64 = 0

    /// Takes in the X-Consul-Index of an answer.
    ///
    /// An index that goes backwards means that Consul has lost its state: the next query must not wait for the old one.
    /// One that is missing or zero would make each query return at once, so 1 stands in.
    mutating func update(_ header: String?) {
        let index = max(1, header.flatMap(UInt64.init) ?? 0)
        value = index < value ? 0 : index
    }

    /// Begins anew.
    mutating func reset() {
        value = 0
    }
}
