// Where a push with a given path goes, as the API tells it, worked out by the code that serves pushes.

/// A push's path, looked up.
struct LocatedPath {
    let path: String
    let groupingKey: String
    let hash: UInt32
    /// The owner; nil while the ring is empty.
    let shard: ShardAddress?
    /// Where the push goes when the owner cannot be reached; nil without another shard.
    let nextShard: ShardAddress?

    /// Whether the path is a push's.
    static func isPush(_ path: String) -> Bool {
        withPath(path) { GroupingKeyParser(key: .group).isPushPath($0) }
    }

    /// Looks the path of a push up on the server's ring.
    init(_ path: String, _ status: ServerStatus) {
        let parser = GroupingKeyParser(key: status.key)
        let ring = status.ring
        let (groupingKey, hash) = LocatedPath.withPath(path) { bytes in
            let hash = parser.hash(path: bytes)
            return (String(decoding: parser.text, as: UTF8.self), hash)
        }
        self.path = path
        self.groupingKey = groupingKey
        self.hash = hash
        let owner = ring.isEmpty ? nil : ring.owner(of: hash)
        shard = owner.map { ring.shards[$0] }
        nextShard = ring.standIn(for: hash, movesGroups: status.movesGroups).map { ring.shards[$0] }
    }

    /// Calls `body` with the path without its query.
    private static func withPath<Result>(_ path: String, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        Array(path.utf8.prefix { $0 != 0x3F }).withUnsafeBytes(body)
    }
}
