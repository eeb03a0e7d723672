// What replicas tell each other of families, in one key of Consul's: a replica that takes a family of which others may not know, or
// not so, claims it there first, by a write that fails where another one has claimed anything meanwhile. So all claims have one
// order, and who claims has heard of all before. ClaimKeeper writes it; KnownFamilies goes by it.

/// A family that a replica is about to take.
struct FamilyClaim: Equatable, Sendable {
    var name: [UInt8]
    var kind: FamilyKind
    /// Those of its series that others may not know; nil where there are too many to tell.
    var shapes: [SeriesShape]?
}

/// The latest claims of all replicas, in their order.
struct ClaimLog: Equatable, Sendable {
    /// Another one in each log, so that one that was begun anew is told from the one before.
    private(set) var id: UInt64
    /// The number of the first claim that is kept; they are numbered from 0 on.
    private(set) var first: UInt64 = 0
    private(set) var claims: [FamilyClaim] = []

    /// The number of the claim that will be next.
    var next: UInt64 { first + UInt64(claims.count) }

    /// An empty one.
    init(id: UInt64) {
        self.id = id
    }

    /// What has come since.
    ///
    /// - Returns: nil where some of it is there no more, or where `former` is another log.
    func claims(since former: ClaimLog?) -> ArraySlice<FamilyClaim>? {
        guard let former else { return nil }
        // Where there was none yet, each replica has begun one of its own.
        if former.next == 0, first == 0 { return claims[...] }
        guard former.id == id, former.next >= first, former.next <= next else { return nil }
        return claims[Int(former.next - first)...]
    }

    /// Adds some at the end, and drops those at the beginning for which there is no room.
    mutating func append(_ new: [FamilyClaim]) {
        claims += new
        var size = claims.reduce(0) { $0 + $1.size }
        var dropped = 0
        while size > ClaimLog.limit {
            size -= claims[dropped].size
            dropped += 1
        }
        claims.removeFirst(dropped)
        first += UInt64(dropped)
    }

    /// In bytes: each replica reads all of it whenever there is a claim, and Consul keeps 512 KiB under a key.
    private static let limit = 1 << 18
}

extension FamilyClaim {
    /// In a log, in bytes.
    fileprivate var size: Int { 4 + name.count + 16 * (shapes?.count ?? 0) }
}

// MARK: As Consul keeps it

// A byte for the version of the format, ID and number of the first claim; then of each claim its kind, the number of its shapes,
// the length of its name, the name, and the shapes. Numbers have their lowest byte first.
extension ClaimLog {
    private static let version: UInt8 = 1
    private static let anyShapes: UInt8 = 255

    var encoded: [UInt8] {
        var bytes = [ClaimLog.version]
        func add(_ number: some FixedWidthInteger) { withUnsafeBytes(of: number.littleEndian) { bytes += $0 } }
        add(id)
        add(first)
        for claim in claims {
            add(claim.kind.rawValue)
            add(claim.shapes.map { UInt8($0.count) } ?? ClaimLog.anyShapes)
            add(UInt16(claim.name.count))
            bytes += claim.name
            for shape in claim.shapes ?? [] {
                add(shape.keyNames)
                add(shape.allNames)
            }
        }
        return bytes
    }

    /// - Returns: nil where it is none, or of another version.
    init?(decoding bytes: [UInt8]) {
        var rest = bytes[...]
        func number<Number: FixedWidthInteger>(_: Number.Type) -> Number? {
            let size = MemoryLayout<Number>.size
            guard rest.count >= size else { return nil }
            defer { rest = rest.dropFirst(size) }
            return rest.prefix(size).reversed().reduce(Number(0)) { $0 << 8 | Number($1) }
        }
        guard number(UInt8.self) == ClaimLog.version, let id = number(UInt64.self), let first = number(UInt64.self)
        else { return nil }
        (self.id, self.first) = (id, first)
        while !rest.isEmpty {
            guard let kind = number(UInt8.self).flatMap(FamilyKind.init), let count = number(UInt8.self),
                let length = number(UInt16.self), rest.count >= Int(length)
            else { return nil }
            let name = Array(rest.prefix(Int(length)))
            rest = rest.dropFirst(Int(length))
            var shapes: [SeriesShape] = []
            for _ in 0..<(count == ClaimLog.anyShapes ? 0 : count) {
                guard let keyNames = number(UInt64.self), let allNames = number(UInt64.self) else { return nil }
                shapes.append(SeriesShape(keyNames: keyNames, allNames: allNames))
            }
            claims.append(FamilyClaim(name: name, kind: kind, shapes: count == ClaimLog.anyShapes ? nil : shapes))
        }
    }
}
