// Hashes of bytes that clients send, and tables that are looked up by them. Each process has seeds of its own, so that no client
// can find bytes whose hashes are equal, or whose places in a table are. Whoever reads what pushes have in them asks.

/// A hash of 64 bits by multiplication and folding, as wyhash does it: https://github.com/wangyi-fudan/wyhash
struct KeyedHash {
    private let seed: UInt64
    private let multiplier: UInt64
    private let finisher: UInt64

    /// The one of this process.
    static let ofProcess = KeyedHash()

    private init() {
        seed = .random(in: .min ... .max)
        multiplier = .random(in: .min ... .max) | 1
        finisher = .random(in: .min ... .max) | 1
    }

    /// - Parameter start: a hash of what comes before.
    @inline(__always)
    func hash(_ bytes: UnsafeRawBufferPointer, after start: UInt64 = 0) -> UInt64 {
        let count = bytes.count
        var state = start ^ seed
        var (first, second): (UInt64, UInt64) = (0, 0)
        if let base = bytes.baseAddress, count > 0 {
            if count > 16 {
                var offset = 0
                while offset &+ 16 < count {
                    state = KeyedHash.fold(
                        KeyedHash.load(base, offset) ^ multiplier,
                        KeyedHash.load(base, offset &+ 8) ^ state
                    )
                    offset &+= 16
                }
                first = KeyedHash.load(base, count &- 16)
                second = KeyedHash.load(base, count &- 8)
            } else if count >= 8 {
                first = KeyedHash.load(base, 0)
                second = KeyedHash.load(base, count &- 8)
            } else if count >= 4 {
                first = UInt64(base.loadUnaligned(as: UInt32.self))
                second = UInt64(base.loadUnaligned(fromByteOffset: count &- 4, as: UInt32.self))
            } else {
                first = UInt64(base.load(as: UInt8.self))
                second =
                    UInt64(base.load(fromByteOffset: count >> 1, as: UInt8.self)) << 8
                    | UInt64(base.load(fromByteOffset: count &- 1, as: UInt8.self))
            }
        }
        let folded = KeyedHash.fold(first ^ multiplier, second ^ state)
        return KeyedHash.fold(folded ^ UInt64(truncatingIfNeeded: count), finisher)
    }

    @inline(__always)
    private static func load(_ base: UnsafeRawPointer, _ offset: Int) -> UInt64 {
        base.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
    }

    @inline(__always)
    private static func fold(_ one: UInt64, _ other: UInt64) -> UInt64 {
        let product = one.multipliedFullWidth(by: other)
        return product.high ^ product.low
    }
}

/// Numbers by hashes. It is emptied at once, whatever it holds, and keeps its memory.
struct HashTable: ~Copyable {
    private struct Place {
        var hash: UInt64
        var number: UInt32
        /// The place is taken where this is the table's.
        var round: UInt32
    }

    private var places: UnsafeMutablePointer<Place>
    private var mask: Int
    private var round: UInt32 = 1
    private var count = 0

    private static let usualCapacity = 256
    private static let keptCapacity = 1 << 14

    init() {
        places = HashTable.allocate(HashTable.usualCapacity)
        mask = HashTable.usualCapacity - 1
    }

    deinit {
        places.deallocate()
    }

    /// The first number of that hash, of those that the caller wants; nil where there is none.
    @inline(__always)
    func number(_ hash: UInt64, where isWanted: (Int) -> Bool) -> Int? {
        var place = Int(truncatingIfNeeded: hash) & mask
        while places[place].round == round {
            if places[place].hash == hash, isWanted(Int(places[place].number)) { return Int(places[place].number) }
            place = (place &+ 1) & mask
        }
        return nil
    }

    /// Adds a number, beside those of that hash.
    @inline(__always)
    mutating func add(_ hash: UInt64, _ number: Int) {
        if 2 &* count > mask { grow() }
        var place = Int(truncatingIfNeeded: hash) & mask
        while places[place].round == round { place = (place &+ 1) & mask }
        places[place] = Place(hash: hash, number: UInt32(truncatingIfNeeded: number), round: round)
        count &+= 1
    }

    /// - Returns: whether the hash has not been there.
    @inline(__always)
    mutating func insert(_ hash: UInt64) -> Bool {
        if 2 &* count > mask { grow() }
        var place = Int(truncatingIfNeeded: hash) & mask
        while places[place].round == round {
            if places[place].hash == hash { return false }
            place = (place &+ 1) & mask
        }
        places[place] = Place(hash: hash, number: 0, round: round)
        count &+= 1
        return true
    }

    @inline(__always)
    mutating func removeAll() {
        guard count > 0 else { return }
        count = 0
        round &+= 1
        if round == 0 || mask >= HashTable.keptCapacity { renew() }
    }

    private static func allocate(_ capacity: Int) -> UnsafeMutablePointer<Place> {
        let places = UnsafeMutablePointer<Place>.allocate(capacity: capacity)
        places.initialize(repeating: Place(hash: 0, number: 0, round: 0), count: capacity)
        return places
    }

    @inline(never)
    private mutating func renew() {
        places.deallocate()
        places = HashTable.allocate(HashTable.usualCapacity)
        mask = HashTable.usualCapacity - 1
        round = 1
    }

    @inline(never)
    private mutating func grow() {
        let (former, capacity) = (places, mask + 1)
        places = HashTable.allocate(2 * capacity)
        mask = 2 * capacity - 1
        for index in 0..<capacity where former[index].round == round {
            var place = Int(truncatingIfNeeded: former[index].hash) & mask
            while places[place].round == round { place = (place &+ 1) & mask }
            places[place] = former[index]
        }
        former.deallocate()
    }
}

/// Whether so many bytes are the same.
@inline(__always)
func areSame(_ one: UnsafeRawPointer, _ other: UnsafeRawPointer, _ count: Int) -> Bool {
    if count >= 8 {
        var offset = 0
        while offset &+ 8 <= count {
            if one.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
                != other.loadUnaligned(fromByteOffset: offset, as: UInt64.self)
            {
                return false
            }
            offset &+= 8
        }
        // The last eight, some of which have been compared.
        return one.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
            == other.loadUnaligned(fromByteOffset: count &- 8, as: UInt64.self)
    }
    if count >= 4 {
        return one.loadUnaligned(as: UInt32.self) == other.loadUnaligned(as: UInt32.self)
            && one.loadUnaligned(fromByteOffset: count &- 4, as: UInt32.self)
                == other.loadUnaligned(fromByteOffset: count &- 4, as: UInt32.self)
    }
    var offset = 0
    while offset < count {
        if one.load(fromByteOffset: offset, as: UInt8.self) != other.load(fromByteOffset: offset, as: UInt8.self) {
            return false
        }
        offset &+= 1
    }
    return true
}
