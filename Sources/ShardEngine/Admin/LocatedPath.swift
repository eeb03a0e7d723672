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

    /// - Returns: nil when the path is not a push's.
    init?(_ path: String, _ status: ServerStatus, _ forwarder: Forwarder) {
        let parser = GroupingKeyParser(key: status.key)
        let ring = forwarder.routes.ring
        var bytes = Array(path.utf8)
        if let mark = bytes.firstIndex(of: 0x3F) { bytes.removeSubrange(mark...) }
        let found = bytes.withUnsafeBytes { raw -> (String, UInt32)? in
            guard parser.isPushPath(raw) else { return nil }
            let hash = parser.hash(path: raw)
            return (String(decoding: parser.text, as: UTF8.self), hash)
        }
        guard let (groupingKey, hash) = found else { return nil }
        self.path = path
        self.groupingKey = groupingKey
        self.hash = hash
        let owner = ring.isEmpty ? nil : ring.owner(of: hash)
        shard = owner.map { ring.shards[$0] }
        nextShard = ring.isEmpty ? nil : ring.nextShard(after: hash) { $0 != owner }.map { ring.shards[$0] }
    }
}
