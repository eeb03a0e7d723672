// A ring as replicas tell each other of it, by way of Consul. Handover makes it of the rings that it uses, and those of what
// the ring store tells.
import FoundationEssentials

/// A ring as replicas tell each other of it.
struct StoredRing: Hashable, Sendable {
    /// What it is made of; not empty.
    var shards: [ShardAddress]
    /// How many points each of them has.
    var vnodes: Int
    /// Of those shards the ones that may hold something by it; nil for all.
    var holders: Set<ShardAddress>?

    init(_ ring: Ring) {
        shards = ring.shards
        vnodes = ring.vnodes
    }

    init(_ other: OtherRing) {
        shards = other.ring.shards
        vnodes = other.ring.vnodes
        holders = other.shards
    }

    /// - Parameters:
    ///   - shards: each as `host:port`; nil is made when there is none.
    ///   - holders: the same.
    init?(shards: [String], vnodes: Int, holders: [String]?) {
        self.shards = shards.compactMap { ShardAddress(parsing: $0) }
        self.vnodes = vnodes
        self.holders = holders.map { Set($0.compactMap { ShardAddress(parsing: $0) }) }
        if self.shards.isEmpty || vnodes < 1 { return nil }
    }

    /// The shards that may hold something by it.
    var holding: [ShardAddress] { holders.map { $0.sorted() } ?? shards }

    /// Whether whoever sees to this one need not think of the other.
    func covers(_ other: StoredRing) -> Bool {
        isSame(as: other) && Set(holding).isSuperset(of: other.holding)
    }

    /// Whether the other one gives every group to the same shard.
    func isSame(as other: StoredRing) -> Bool { shards == other.shards && vnodes == other.vnodes }
}

extension RingBuilder {
    /// Builds the rings, all of them.
    func build(_ stored: [StoredRing], visit: Visit, _ done: @escaping ([OtherRing]) -> Void) {
        var built: [OtherRing] = []
        if stored.isEmpty { return done([]) }
        for one in stored {
            build(shards: one.shards, vnodes: one.vnodes) { ring in
                built.append(OtherRing(ring: ring, visit: visit, shards: one.holders))
                if built.count == stored.count { done(built) }
            }
        }
    }
}

extension OtherRing {
    /// Whether whoever sees to this one need not think of the other.
    func covers(_ other: OtherRing) -> Bool { StoredRing(self).covers(StoredRing(other)) }
}

/// A stored ring, as it was read.
struct RingEntry {
    var key: String
    var ring: StoredRing
    /// Whether requests are given to its shards already: they stand in for others.
    var isInUse: Bool
    /// Another one as soon as some replica has stored the ring again.
    var modifyIndex: UInt64

    /// What is stored: JSON.
    struct Document: Codable {
        var shards: [String]
        var vnodes: Int
        var holders: [String]?
        var isInUse: Bool
        /// In nanoseconds since 1970. Consul takes the same value for no write at all, and a run that has settled the ring
        /// as it was before would remove it.
        var storedAt: Int64
    }
}

extension RingEntry {
    init?(_ entry: KeyValueEntry) {
        guard let document = try? JSONDecoder().decode(Document.self, from: entry.value),
            let ring = StoredRing(shards: document.shards, vnodes: document.vnodes, holders: document.holders)
        else { return nil }
        key = entry.key
        self.ring = ring
        isInUse = document.isInUse
        modifyIndex = entry.modifyIndex
    }
}
