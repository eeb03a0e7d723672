// The consistent-hash ring: which shard a grouping key belongs to.
// RingBuilder makes one off the loop whenever the shards change; routing looks up an owner for every push,
// failover asks for the next shard, metrics and the admin API read the shares.

/// A consistent-hash ring over shards; it never changes once made, so any thread may use it.
///
/// Every shard has `vnodes` points: MurmurHash3 of the decimal index and the shard's `host:port`. A key belongs to
/// the first point whose hash is strictly greater than the key's, wrapping round. Where two points collide, the one
/// of the shard that is later in ascending byte order counts. That is how dynamic-sharding places its keys.
public final class Ring: Sendable {
    /// The shards, in ascending byte order, without duplicates.
    public let shards: [ShardAddress]
    /// How many points each shard was given.
    public let vnodes: Int

    /// Runs of keys that have one owner, in ascending order; the last one ends at the greatest key of all.
    private let arcs: [Arc]
    /// For each value of a key's leading bits, the arc that the least such key lies in.
    private let firstArcs: [UInt32]
    /// How far to shift a key right to be left with those leading bits.
    private let bucketShift: UInt32
    /// For each shard, how many points are its own, and how many keys.
    private let holdings: [Holding]

    /// Makes the ring of some shards, given in any order, perhaps more than once, perhaps none at all.
    ///
    /// Takes tens of milliseconds for 1,000 shards of 500 points: large rings are made off the event loop.
    ///
    /// - Parameter vnodes: points for each shard, 1 or more.
    public init(shards: [ShardAddress], vnodes: Int) {
        precondition(vnodes > 0, "a shard has at least one point")
        self.shards = sortedWithoutDuplicates(shards)
        self.vnodes = vnodes
        let points = ringPoints(shards: self.shards, vnodes: vnodes)
        (arcs, holdings) = arcsAndHoldings(points: points, shardCount: self.shards.count)
        (firstArcs, bucketShift) = bucketIndex(over: arcs)
    }

    /// Whether there is no shard, and so no owner for any key.
    public var isEmpty: Bool { shards.isEmpty }

    /// Whether each key has the same owner on the other ring: it is made of the same.
    func isSame(as other: Ring) -> Bool { shards == other.shards && vnodes == other.vnodes }

    /// 48 bits of a hash of all that decides where a key belongs: equal on replicas that agree. The bits are few enough for
    /// a metric's value, which is a floating-point number, to hold them all.
    func fingerprint(key: HashKey) -> UInt64 {
        let texts = ["\(vnodes)", key.rawValue] + shards.map(\.text)
        // FNV-1a of 64 bits, whose upper bits depend on all that is hashed: http://www.isthe.com/chongo/tech/comp/fnv/
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for text in texts {
            for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
            hash = (hash ^ 0x0A) &* 0x100_0000_01B3
        }
        return ((hash ^ (hash >> 32)) &* 0x9E37_79B9_7F4A_7C15) >> 16
    }

    /// The shard that a key belongs to, as an index into `shards`; the ring must not be empty.
    public func owner(of hash: UInt32) -> Int {
        arcs[arcIndex(of: hash)].shard
    }

    /// The first shard that is wanted, going clockwise from the key and beginning with its owner.
    ///
    /// - Parameter isWanted: is asked about each shard, an index into `shards`, at most once.
    /// - Returns: nil when none is wanted, or the ring is empty.
    public func nextShard(after hash: UInt32, where isWanted: (Int) -> Bool) -> Int? {
        guard !isEmpty else { return nil }
        let start = arcIndex(of: hash)
        let owner = arcs[start].shard
        if isWanted(owner) { return owner }
        return withUnsafeTemporaryAllocation(of: Bool.self, capacity: shards.count) { asked in
            asked.initialize(repeating: false)
            asked[owner] = true
            var left = shards.count - 1
            var position = start
            for _ in 1..<arcs.count where left > 0 {
                position = position + 1 == arcs.count ? 0 : position + 1
                let shard = arcs[position].shard
                if asked[shard] { continue }
                if isWanted(shard) { return shard }
                asked[shard] = true
                left -= 1
            }
            return nil
        }
    }

    /// The shard that gets a key's pushes while its owner has failed, as an index into `shards`; nil without another one.
    ///
    /// - Parameter movesGroups: if not, it is the key's owner on a ring without the one that failed. If so, it is the first other
    ///   one going clockwise from the beginning of the key's range, one of 1,024, so that it is the same for all keys of the
    ///   range that have one owner; but one that has not been searched yet is passed over.
    func standIn(for hash: UInt32, movesGroups: Bool) -> Int? {
        guard !isEmpty else { return nil }
        let owner = owner(of: hash)
        return nextShard(after: movesGroups ? hash & 0xFFC0_0000 : hash) { $0 != owner }
    }

    /// How many points a shard, given as an index into `shards`, has on the ring: `vnodes` less lost collisions.
    public func pointCount(of shard: Int) -> Int {
        holdings[shard].points
    }

    /// The part of all possible keys that belongs to a shard, given as an index into `shards`: 0...1.
    public func share(of shard: Int) -> Double {
        Double(holdings[shard].keys) / 0x1p32
    }

    /// Runs of keys that have one owner, in ascending order: the last key of each, and the owner as an index into `shards`.
    var spans: [(lastKey: UInt32, shard: Int)] { arcs.map { ($0.lastKey, $0.shard) } }

    /// The arc that a key lies in.
    @inline(__always)
    private func arcIndex(of hash: UInt32) -> Int {
        let key = Arc(lastKey: hash, shard: 0)
        var index = Int(firstArcs[Int(hash &>> bucketShift)])
        while arcs[index] < key { index &+= 1 }
        return index
    }
}
