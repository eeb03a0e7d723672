// How a ring is made: points hashed, sorted, and turned into arcs with an index over them.
// Only `Ring.init` calls this. Everything is linear in the number of points.

/// A run of keys that have one owner: it begins after the arc before it and ends at `lastKey`.
///
/// A point owns the keys below its hash, down to the point before it; so its arc ends one key before the hash.
struct Arc: Comparable {
    /// The last key above the owner's index, so that arcs compare as one number.
    private let bits: UInt64

    init(lastKey: UInt32, shard: Int) {
        bits = UInt64(lastKey) << 32 | UInt64(UInt32(shard))
    }

    /// The greatest key of the arc.
    var lastKey: UInt32 { UInt32(truncatingIfNeeded: bits >> 32) }
    /// The owner, as an index into the ring's shards.
    var shard: Int { Int(UInt32(truncatingIfNeeded: bits)) }

    static func < (left: Arc, right: Arc) -> Bool { left.bits < right.bits }
}

/// What one shard has of the ring.
struct Holding {
    /// Points, less those lost to collisions.
    var points = 0
    /// Keys, out of 2^32.
    var keys: UInt64 = 0
}

/// A point on its way into the ring: its hash in the upper half, its shard's index in the lower.
typealias PackedPoint = UInt64

/// The shards in ascending byte order, each once.
func sortedWithoutDuplicates(_ shards: [ShardAddress]) -> [ShardAddress] {
    var result: [ShardAddress] = []
    result.reserveCapacity(shards.count)
    for shard in shards.sorted() where shard != result.last { result.append(shard) }
    return result
}

/// The points of all shards in ascending order of hash; points that collide stay in the order of their shards.
func ringPoints(shards: [ShardAddress], vnodes: Int) -> [PackedPoint] {
    let (count, overflow) = shards.count.multipliedReportingOverflow(by: vnodes)
    precondition(!overflow && count < UInt32.max, "the ring has more points than keys")
    let points = [PackedPoint](unsafeUninitializedCapacity: count) { points, initialized in
        for (index, shard) in shards.enumerated() {
            let own = UnsafeMutableBufferPointer(rebasing: points[index * vnodes..<(index + 1) * vnodes])
            hashPoints(of: shard, index: index, into: own)
        }
        initialized = count
    }
    return sortedByHash(points)
}

/// Writes one shard's points: the hashes of 0, 1, 2 and so on, in decimal, followed by its address.
private func hashPoints(of shard: ShardAddress, index: Int, into points: UnsafeMutableBufferPointer<PackedPoint>) {
    let digitRoom = 20
    var bytes = [UInt8](repeating: 0x30, count: digitRoom)
    bytes.append(contentsOf: shard.text.utf8)
    bytes.withUnsafeMutableBufferPointer { bytes in
        var start = digitRoom - 1
        for position in points.indices {
            let hash = murmur3(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[start...]))
            points.initializeElement(at: position, to: UInt64(hash) << 32 | UInt64(index))
            var digit = digitRoom - 1
            while bytes[digit] == 0x39 {
                bytes[digit] = 0x30
                digit -= 1
            }
            bytes[digit] += 1
            start = min(start, digit)
        }
    }
}

/// Sorts points by hash and keeps equal hashes in their order: a radix sort by 11, 11 and 10 bits.
private func sortedByHash(_ points: [PackedPoint]) -> [PackedPoint] {
    let shifts: [UInt64] = [32, 43, 54]
    let radix = 1 << 11
    func digit(_ point: PackedPoint, _ shift: UInt64) -> Int { Int(truncatingIfNeeded: point &>> shift) & (radix - 1) }

    var positions = [Int](repeating: 0, count: shifts.count * radix)
    for point in points {
        for (pass, shift) in shifts.enumerated() { positions[pass * radix + digit(point, shift)] += 1 }
    }
    var source = points
    for (pass, shift) in shifts.enumerated() {
        var next = 0
        for slot in pass * radix..<(pass + 1) * radix {
            let count = positions[slot]
            positions[slot] = next
            next += count
        }
        source = [PackedPoint](unsafeUninitializedCapacity: points.count) { target, initialized in
            for point in source {
                let slot = pass * radix + digit(point, shift)
                target.initializeElement(at: positions[slot], to: point)
                positions[slot] += 1
            }
            initialized = points.count
        }
    }
    return source
}

/// Turns sorted points into the arcs that they own, and counts what each shard has.
func arcsAndHoldings(points: [PackedPoint], shardCount: Int) -> ([Arc], [Holding]) {
    var holdings = [Holding](repeating: Holding(), count: shardCount)
    var arcs: [Arc] = []
    guard !points.isEmpty else { return (arcs, holdings) }
    arcs.reserveCapacity(points.count + 1)

    var firstKey: UInt64 = 0
    func close(before end: UInt64, shard: Int) {
        guard end > firstKey else { return }
        arcs.append(Arc(lastKey: UInt32(end - 1), shard: shard))
        holdings[shard].keys += end - firstKey
        firstKey = end
    }
    var lowest: Int?
    for (index, point) in points.enumerated() {
        let hash = point >> 32
        if index + 1 < points.count, points[index + 1] >> 32 == hash { continue }
        let shard = Int(point & 0xFFFF_FFFF)
        lowest = lowest ?? shard
        holdings[shard].points += 1
        close(before: hash, shard: shard)
    }
    if let lowest { close(before: 1 << 32, shard: lowest) }
    return (arcs, holdings)
}

/// The index over arcs: for each value of a key's leading bits the first arc with such a key or a greater one, and
/// the shift that leaves those bits.
///
/// Four values an arc let most lookups begin at the arc they seek; of a ring too large for a core's cache, one value
/// an arc is less to fetch.
func bucketIndex(over arcs: [Arc]) -> ([UInt32], shift: UInt32) {
    let generousLimit = 1 << 16
    let wanted = min(4 * arcs.count, max(arcs.count, generousLimit))
    var bits: UInt32 = 1
    while 1 << bits < wanted { bits += 1 }
    let shift = 32 - bits
    var firstArcs: [UInt32] = []
    firstArcs.reserveCapacity(1 << bits)
    for (index, arc) in arcs.enumerated() {
        let buckets = Int(arc.lastKey >> shift) + 1
        while firstArcs.count < buckets { firstArcs.append(UInt32(index)) }
    }
    return (firstArcs, shift)
}
