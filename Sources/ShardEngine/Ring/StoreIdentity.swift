// What tells one Pushgateway from another. An address does not: two may lead to one Pushgateway, and one may come to lead
// to another. The store book makes identities of what Pushgateways answer; what is remembered of a shard goes by them.

/// Who is behind an address.
struct StoreIdentity: Hashable, Sendable {
    /// When the process was started, to the nanosecond, as `/api/v1/status` tells it: two addresses that tell the same lead
    /// to one process.
    var process: String
    /// The mark that the store carries from process to process, in its file; nil where none was read or written yet.
    var mark: String?
    /// Whether the mark was read from this process; otherwise it is that of the process before, whose store this one has
    /// unless its file is another.
    var isMarkRead = false
    /// Of which lines of registers the store has been a member, by their births: what it holds that such a register does not
    /// know of is void.
    var tiers: Set<String> = []
    /// How often the process writes its file; nil where it has none.
    var fileInterval: TimeSpan?
}

/// What one question to an address has found.
enum StoreFinding: Equatable, Sendable {
    /// A Pushgateway, whose process was started then.
    case process(String)
    /// shardd itself, or another replica: pushes sent there would come back.
    case shardd
    /// Something that answers and does not tell who it is: the reason.
    case unidentified(String)
    /// Nobody answers: the reason.
    case unreachable(String)

    /// Whether something answers that may be a shard.
    var isOfSomebody: Bool {
        switch self {
        case .process, .unidentified: true
        case .shardd, .unreachable: false
        }
    }
}

/// Which store is behind each address, as far as is known; immutable.
struct StoreMap: Equatable, Sendable {
    var identities: [ShardAddress: StoreIdentity] = [:]
    /// For each address those that lead to the same store.
    var sameStore: [ShardAddress: Set<ShardAddress>] = [:]

    /// The store behind an address; nil while it is not known.
    func identity(of shard: ShardAddress) -> StoreIdentity? { identities[shard] }

    /// The addresses that lead to the store of this one, perhaps itself among them.
    func otherAddresses(of shard: ShardAddress) -> Set<ShardAddress> { sameStore[shard] ?? [] }

    /// Whether both addresses are known to lead to one store.
    func areSame(_ one: ShardAddress, _ other: ShardAddress) -> Bool {
        if one == other || sameStore[one]?.contains(other) == true { return true }
        guard let process = identities[one]?.process else { return false }
        return process == identities[other]?.process
    }
}
