// What is known of one family; FamilyState has one for each.

/// Which labels a family's series have. One shape, as most have, takes no memory of its own.
enum KnownShapes {
    case none
    case one(SeriesShape)
    case several([SeriesShape])
    /// There are too many to tell.
    case any

    init(_ shapes: [SeriesShape]?) {
        self = shapes == nil ? .any : .none
        for shape in shapes ?? [] { add(shape) }
    }

    /// All of them; nil where there are too many to tell.
    var all: [SeriesShape]? {
        switch self {
        case .none: []
        case .one(let shape): [shape]
        case .several(let shapes): shapes
        case .any: nil
        }
    }

    mutating func add(_ shape: SeriesShape) {
        switch self {
        case .none: self = .one(shape)
        case .one(let known): if known != shape { self = .several([known, shape]) }
        case .several(var shapes):
            if shapes.contains(shape) { return }
            self = .none
            shapes.append(shape)
            self = shapes.count > KnownShapes.mostKept ? .any : .several(shapes)
        case .any: break
        }
    }

    func contains(_ shape: SeriesShape) -> Bool {
        switch self {
        case .none: false
        case .one(let known): known == shape
        case .several(let shapes): shapes.contains(shape)
        case .any: true
        }
    }

    /// Whether a series of this shape may be one of a group with another set of labels in its key.
    @inline(__always)
    func mayClash(_ shape: SeriesShape) -> Bool {
        switch self {
        case .none: false
        case .one(let known): KnownShapes.areAlike(known, shape)
        case .several(let shapes): shapes.contains { KnownShapes.areAlike($0, shape) }
        case .any: true
        }
    }

    @inline(__always)
    private static func areAlike(_ one: SeriesShape, _ other: SeriesShape) -> Bool {
        one.allNames == other.allNames && one.keyNames != other.keyNames
    }

    static let mostKept = 64
}

/// What is known of a family; there may be a hundred thousand, so it is kept small.
struct KnownFamily {
    var shapes: KnownShapes
    var kind: FamilyKind
    /// Whether it is a Pushgateway's own.
    let isOwn: Bool
    /// Whether groups hold it in a way that the check would have refused.
    var isDisputed = false
    /// Pushes of it that have no answer yet.
    private(set) var underWay: UInt32 = 0
    /// How many families Pushgateways had of their own when this one was last found to go with them.
    var goesWithOwn: Int32 = -1
    /// The group that has pushed it last.
    var taker = 0
    var takenAt = MonotonicTime(nanoseconds: 0)
    /// When another group than that last pushed it.
    var othersTakenAt = MonotonicTime(nanoseconds: 0)
    /// Until when a push that another replica has claimed may be stored without a listing telling it.
    var claimedUntil = MonotonicTime(nanoseconds: 0)
    /// Until when this replica's own pushes, which do not go with a claim, may be stored so.
    var changedUntil = MonotonicTime(nanoseconds: 0)

    init(_ family: PushedFamily, isOwn: Bool = false) {
        (kind, shapes, self.isOwn) = (family.kind, .none, isOwn)
        add(family.series)
    }

    init(_ claim: FamilyClaim) {
        (kind, shapes, isOwn) = (claim.kind, KnownShapes(claim.shapes), false)
    }

    mutating func add(_ series: [PushedSeries]) {
        for one in series { shapes.add(one.shape) }
    }

    func knows(_ series: [PushedSeries]) -> Bool {
        series.allSatisfy { shapes.contains($0.shape) }
    }

    /// Whether a group with another set of labels in its key may hold one of the series.
    func mayClash(_ series: [PushedSeries]) -> Bool {
        if case .any = shapes { return true }
        return series.contains { shapes.mayClash($0.shape) }
    }

    /// Whether a push with such a family clashes with nothing: it is of the same kind, and no group with another set of labels in its
    /// key may hold one of its series. A new shape is added where there is time for that.
    @inline(__always)
    func cannotClash(_ draft: FamilyDraft, of push: BodyFamilies, ownFamilies: Int32) -> Bool {
        guard goesWithOwn == ownFamilies, kind == draft.kind, !isDisputed else { return false }
        return push.allShapes(draft) { !shapes.mayClash($0) && shapes.contains($0) }
    }

    /// Goes on from what was known of it before.
    mutating func follow(_ former: KnownFamily) {
        (taker, takenAt, othersTakenAt) = (former.taker, former.takenAt, former.othersTakenAt)
        underWay = former.underWay
        (claimedUntil, changedUntil) = (former.claimedUntil, former.changedUntil)
    }

    @inline(__always)
    mutating func taken(_ group: Int, at now: MonotonicTime) {
        if taker != group { othersTakenAt = takenAt }
        (taker, takenAt) = (group, now)
        underWay += 1
    }

    mutating func ended(_ group: Int, at now: MonotonicTime) {
        underWay -= underWay > 0 ? 1 : 0
        if taker == group { takenAt = now } else { othersTakenAt = now }
    }

    /// When another group last pushed it.
    func takenAt(besides group: Int) -> MonotonicTime {
        taker == group ? othersTakenAt : lastTaken
    }

    /// When any group last pushed it.
    var lastTaken: MonotonicTime { max(takenAt, othersTakenAt) }
}
