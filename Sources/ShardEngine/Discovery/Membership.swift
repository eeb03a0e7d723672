// Which shards there are, and who says so. Discovery makes it; the server builds the ring from it.

/// The shards that take pushes.
public struct Membership: Equatable, Sendable {
    /// Who has named the shards.
    public enum Source: String, Sendable {
        /// Consul's health endpoint.
        case consul
        /// The file without Consul: its servers, less those that shardd's own probes find unhealthy.
        case `static`
        /// The file, before Consul has answered.
        case config
    }

    /// In ascending byte order, none twice.
    public var shards: [ShardAddress]
    /// Who has named them.
    public var source: Source

    /// Sorts the shards and drops those that stand twice.
    public init(shards: some Sequence<ShardAddress>, source: Source) {
        self.shards = Set(shards).sorted()
        self.source = source
    }

    /// What a start begins with: the servers of the file.
    init(servers configuration: Configuration) {
        self.init(shards: configuration.servers, source: configuration.consul == nil ? .static : .config)
    }
}
