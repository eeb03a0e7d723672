// What is known of one family; FamilyState has one for each.

/// What is known of a family.
struct KnownFamily {
    var kind: FamilyKind
    /// Which labels its series have; nil where there are too many to tell.
    var shapes: [SeriesShape]?
    /// Whether it is a Pushgateway's own.
    let isOwn: Bool
    /// HELP of a Pushgateway's own.
    let help: [UInt8]?
    /// Whether groups hold it in a way that the check would have refused.
    var isDisputed = false
    /// The group that has pushed it last.
    var taker = 0
    var takenAt = MonotonicTime(nanoseconds: 0)
    /// When another group than that last pushed it.
    var othersTakenAt = MonotonicTime(nanoseconds: 0)
    /// Pushes of it that have no answer yet.
    var underWay = 0
    /// How many families Pushgateways had of their own when this one was last found to go with them.
    var goesWithOwn = -1
    /// Until when a push that another replica has claimed may be stored without a listing telling it.
    var claimedUntil = MonotonicTime(nanoseconds: 0)
    /// Until when this replica's own pushes, which do not go with a claim, may be stored so.
    var changedUntil = MonotonicTime(nanoseconds: 0)

    init(_ family: PushedFamily, isOwn: Bool = false) {
        kind = family.kind
        shapes = []
        self.isOwn = isOwn
        help = isOwn ? family.help : nil
        add(family.series)
    }

    init(_ claim: FamilyClaim) {
        (kind, shapes, isOwn, help) = (claim.kind, claim.shapes, false, nil)
    }

    mutating func add(_ series: [PushedSeries]) {
        for one in series { add(one.shape) }
    }

    mutating func add(_ shape: SeriesShape) {
        guard var known = shapes, !known.contains(shape) else { return }
        known.append(shape)
        shapes = known.count > KnownFamily.mostShapes ? nil : known
    }

    func knows(_ series: [PushedSeries]) -> Bool {
        series.allSatisfy { shapes?.contains($0.shape) ?? true }
    }

    /// Whether a group with another set of labels in its key may hold one of the series.
    func mayClash(_ series: some Sequence<SeriesShape>) -> Bool {
        guard let shapes else { return true }
        return series.contains { one in
            shapes.contains { $0.allNames == one.allNames && $0.keyNames != one.keyNames }
        }
    }

    /// Whether a push with such a family clashes with nothing: it is of the same kind, and no group with another set of labels in its
    /// key may hold one of its series.
    @inline(__always)
    func cannotClash(_ draft: FamilyDraft, of push: BodyFamilies, ownFamilies: Int) -> Bool {
        guard goesWithOwn == ownFamilies, kind == draft.kind, !isDisputed, let shapes else { return false }
        return push.allShapes(draft) { shape in
            var isKnown = false
            for known in shapes where known.allNames == shape.allNames {
                guard known.keyNames == shape.keyNames else { return false }
                isKnown = true
            }
            // A new one is added where there is time for that.
            return isKnown
        }
    }

    @inline(__always)
    mutating func taken(_ group: Int, at now: MonotonicTime) {
        if taker != group { othersTakenAt = takenAt }
        (taker, takenAt) = (group, now)
        underWay += 1
    }

    mutating func ended(_ group: Int, at now: MonotonicTime) {
        underWay = max(0, underWay - 1)
        if taker == group { takenAt = now } else { othersTakenAt = now }
    }

    /// When another group last pushed it.
    func takenAt(besides group: Int) -> MonotonicTime {
        taker == group ? othersTakenAt : lastTaken
    }

    /// When any group last pushed it.
    var lastTaken: MonotonicTime { max(takenAt, othersTakenAt) }

    static let mostShapes = 64
}
