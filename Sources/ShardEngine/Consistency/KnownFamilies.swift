// What the groups of all shards hold, as far as Pushgateway's consistency check asks: of each family its kind and which labels
// its series have. All workers share one. It decides the push that cannot clash with anything; for any other, FamilyLookup lists
// the shards, and it decides by that.
//
// Nothing is known of single groups or series. So a family may be known in a kind that no group has any more: that is found out
// when somebody pushes it in another. What was pushed through another replica, or past all of them, is learned when shards are
// listed again.
import Synchronization

/// A push as the check sees it.
struct CheckedPush: Sendable {
    var families: [PushedFamily]
    /// What tells its group from others.
    var group: Int
    /// Whether the group keeps the families that the push does not have.
    var isPost: Bool
}

/// The families of a tier; any thread may ask.
final class KnownFamilies: Sendable {
    /// What becomes of a push.
    enum Decision {
        case take(TakenPush)
        case refuse(PushRefusal)
        /// It may clash with what a group holds: the shards have to be listed.
        case lookUp
        /// It cannot be decided before then, by a listing that begins later still.
        case wait(until: MonotonicTime)
    }

    private let state = Mutex(State())

    /// Decides by what is known, or sees that this is not enough.
    func decide(_ push: CheckedPush, at now: MonotonicTime) -> Decision {
        if let refusal = refusalByOwn(push) { return .refuse(refusal) }
        let isTaken = state.withLock { state in
            guard state.isComplete, push.families.allSatisfy({ state.cannotClash($0) }) else { return false }
            state.take(push, at: now)
            return true
        }
        return isTaken ? .take(TakenPush(push, self)) : .lookUp
    }

    /// Decides by a listing that began after the push had come.
    ///
    /// - Parameters:
    ///   - isAgain: whether a listing before has left it undecided.
    ///   - isLast: whether there will be no other listing for it.
    func decide(
        _ push: CheckedPush,
        by listing: TierListing,
        isAgain: Bool = false,
        isLast: Bool,
        at now: MonotonicTime
    ) -> Decision {
        if let refusal = refusalByOwn(push) { return .refuse(refusal) }
        let found = state.withLock { state in
            let found = state.decide(push, by: listing, isAgain: isAgain, isLast: isLast)
            if case .taken = found { state.take(push, at: now) }
            return found
        }
        switch found {
        case .taken: return .take(TakenPush(push, self))
        case .conflict(let line): return .refuse(PushRefusal(reason: .inconsistent, line: line))
        case .early(let time): return .wait(until: time)
        }
    }

    /// The families of Pushgateways themselves, as far as they are known.
    var own: [PushedFamily] {
        state.withLock { state in
            state.families.filter(\.value.isOwn).map { name, known in
                PushedFamily(name: name, kind: known.kind, help: known.help, series: [])
            }
        }
    }

    private func refusalByOwn(_ push: CheckedPush) -> PushRefusal? {
        state.withLock { state in
            for family in push.families {
                if let refusal = state.refusalByOwn(family) { return refusal }
            }
            return nil
        }
    }

    /// Learns what shards hold.
    ///
    /// - Parameter isWhole: whether the listing is of all that all shards hold.
    func learn(_ listing: TierListing, isWhole: Bool = false) {
        state.withLock { $0.learn(listing, isWhole: isWhole) }
    }

    /// Learns the families of Pushgateways themselves.
    func learn(own families: [PushedFamily]) {
        state.withLock { state in
            for family in families where state.families[family.name]?.isOwn != true {
                state.families[family.name] = Known(family, isOwn: true)
            }
        }
    }

    /// Whether all shards have been listed that can be.
    var isComplete: Bool {
        get { state.withLock { $0.isComplete } }
        set { state.withLock { $0.isComplete = newValue } }
    }

    /// Forgets all.
    func clear() {
        state.withLock { $0 = State() }
    }

    fileprivate func ended(_ push: CheckedPush, at now: MonotonicTime) {
        state.withLock { state in
            state.writes.note(push.group, at: now)
            for family in push.families { state.families[family.name]?.ended(push.group, at: now) }
        }
    }
}

/// A push that was taken; it has ended when this is let go of.
final class TakenPush: Sendable {
    private let push: CheckedPush
    private let known: KnownFamilies

    fileprivate init(_ push: CheckedPush, _ known: KnownFamilies) {
        self.push = push
        self.known = known
    }

    deinit {
        known.ended(push, at: .now())
    }
}

/// How long after its answer a push is in the shard's listings at the latest: a Pushgateway without its check answers first and
/// stores then.
let storeDelay = TimeSpan.seconds(1)

/// What is known of a family.
private struct Known {
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

    init(_ family: PushedFamily, isOwn: Bool = false) {
        kind = family.kind
        shapes = []
        self.isOwn = isOwn
        help = isOwn ? family.help : nil
        add(family.series)
    }

    mutating func add(_ series: [PushedSeries]) {
        for one in series {
            guard var known = shapes else { return }
            if known.contains(one.shape) { continue }
            known.append(one.shape)
            shapes = known.count > Known.mostShapes ? nil : known
        }
    }

    /// Whether a group with another set of labels in its key may hold one of the series.
    func mayClash(_ series: [PushedSeries]) -> Bool {
        guard let shapes else { return true }
        return series.contains { one in
            shapes.contains { $0.allNames == one.shape.allNames && $0.keyNames != one.shape.keyNames }
        }
    }

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
        taker == group ? othersTakenAt : max(takenAt, othersTakenAt)
    }

    private static let mostShapes = 64
}

/// When groups were last written. Groups that share a place only make others wait in vain.
private struct Writes {
    private var times = [MonotonicTime](repeating: MonotonicTime(nanoseconds: 0), count: 4096)

    mutating func note(_ group: Int, at now: MonotonicTime) { times[group & 4095] = now }

    func last(_ group: Int) -> MonotonicTime { times[group & 4095] }
}

private struct State {
    enum Finding {
        case taken
        case conflict(String)
        case early(MonotonicTime)
    }

    var families: [[UInt8]: Known] = [:]
    var writes = Writes()
    var isComplete = false

    // MARK: By what is known

    func refusalByOwn(_ family: PushedFamily) -> PushRefusal? {
        func refusal(_ why: String) -> PushRefusal {
            PushRefusal(reason: .inconsistent, line: "family \"\(printable(family.name))\" \(why)")
        }
        if let own = families[family.name], own.isOwn {
            if own.kind != family.kind {
                return refusal(
                    "is a \(family.kind.word), and a Pushgateway has its own of that name, a \(own.kind.word)"
                )
            }
            if OwnFamilies.mayBecomeOne(family.name), (own.help ?? []) != (family.help ?? []) {
                return refusal("has another HELP than that of a Pushgateway's own")
            }
        }
        for name in FamilyKin.names(of: family.name, family.kind) {
            guard let own = families[name], own.isOwn,
                FamilyKin.areKin((family.name, family.kind), (name, own.kind))
            else { continue }
            return refusal("does not go with a Pushgateway's own \(own.kind.word) \"\(printable(name))\"")
        }
        return nil
    }

    func cannotClash(_ family: PushedFamily) -> Bool {
        // Of a name that is new here others may hold something that was pushed through another replica.
        guard let known = families[family.name] else { return false }
        return known.kind == family.kind && !known.isDisputed && !known.mayClash(family.series)
            && (known.isOwn || !OwnFamilies.mayBecomeOne(family.name))
    }

    /// Known families that a group may not have beside this one.
    private func kin(of family: PushedFamily) -> [[UInt8]] {
        FamilyKin.names(of: family.name, family.kind).filter { name in
            families[name].map { FamilyKin.areKin((family.name, family.kind), (name, $0.kind)) } ?? false
        }
    }

    mutating func take(_ push: CheckedPush, at now: MonotonicTime) {
        writes.note(push.group, at: now)
        for family in push.families {
            if families[family.name] == nil, families.count < State.mostFamilies {
                families[family.name] = Known(family)
            }
            families[family.name]?.add(family.series)
            families[family.name]?.taken(push.group, at: now)
        }
    }

    // MARK: By a listing

    mutating func decide(_ push: CheckedPush, by listing: TierListing, isAgain: Bool, isLast: Bool) -> Finding {
        var early: MonotonicTime?
        for family in push.families {
            for clash in listing.clashes(family, of: push) {
                guard !isLast, let time = mayBeOver(clash, listing) else {
                    return .conflict(clash.line(family))
                }
                early = max(early ?? time, time)
            }
        }
        for family in push.families {
            if let time = mayBeHidden(family, push, listing, isAgain: isAgain) { early = max(early ?? time, time) }
        }
        if let early {
            // What others push all the time is not for this one to change.
            return isLast ? .conflict("other pushes under way do not go with this one: try again") : .early(early)
        }
        for family in push.families { settle(family, listing) }
        return .taken
    }

    /// Until when the holder may have been replaced without the listing telling it; nil where it holds what it holds.
    private func mayBeOver(_ clash: TierListing.Clash, _ listing: TierListing) -> MonotonicTime? {
        let written = writes.last(clash.holder.group)
        let time = written.advanced(by: storeDelay)
        if time <= listing.begun { return nil }
        // Its last write was of this very family.
        if let known = families[clash.name], known.taker == clash.holder.group, known.takenAt >= written,
            known.kind == clash.holder.kind
        {
            return nil
        }
        return time
    }

    /// Until when a push that clashes may be stored without the listing telling it.
    ///
    /// For the same series in two groups that is asked once: where many push a family with such labels all the time, it would never end.
    private func mayBeHidden(
        _ family: PushedFamily,
        _ push: CheckedPush,
        _ listing: TierListing,
        isAgain: Bool
    ) -> MonotonicTime? {
        var doubtful = kin(of: family)
        if let known = families[family.name] {
            let mayClash = !isAgain && known.mayClash(family.series)
            if known.kind != family.kind || mayClash { doubtful.append(family.name) }
        }
        let times = doubtful.compactMap { name -> MonotonicTime? in
            guard let known = families[name] else { return nil }
            if known.underWay > 0 { return MonotonicTime.now().advanced(by: State.pause) }
            let time = known.takenAt(besides: push.group).advanced(by: storeDelay)
            return time > listing.begun ? time : nil
        }
        return times.max()
    }

    /// No other group holds anything that clashes: what was known otherwise is over.
    private mutating func settle(_ family: PushedFamily, _ listing: TierListing) {
        for name in kin(of: family) where families[name]?.isOwn == false { families[name] = nil }
        guard families[family.name]?.isOwn != true else { return }
        var known = Known(family)
        if let former = families[family.name] {
            (known.taker, known.takenAt, known.othersTakenAt) = (former.taker, former.takenAt, former.othersTakenAt)
            known.underWay = former.underWay
        }
        for holder in listing.holders[family.name] ?? [] { known.add(holder.series) }
        families[family.name] = known
    }

    /// - Parameter isWhole: whether it is of all that all shards hold: what none of them does is forgotten.
    mutating func learn(_ listing: TierListing, isWhole: Bool) {
        if isWhole {
            families = families.filter { name, known in
                let latest = max(known.takenAt, known.othersTakenAt).advanced(by: storeDelay)
                return known.isOwn || known.underWay > 0 || latest > listing.begun || listing.holders[name] != nil
            }
            for (name, known) in families where known.isDisputed { families[name]?.isDisputed = false }
        }
        for (name, holders) in listing.holders {
            for holder in holders {
                let family = PushedFamily(name: name, kind: holder.kind, help: nil, series: holder.series)
                if families[name] == nil { families[name] = Known(family) }
                if families[name]?.isOwn == true { continue }
                families[name]?.add(holder.series)
                // Series that may clash are looked up anyway.
                if families[name]?.kind != holder.kind || !kin(of: family).isEmpty { families[name]?.isDisputed = true }
            }
        }
    }

    /// Names beyond these are looked up each time.
    private static let mostFamilies = 200_000
    /// Until pushes under way are looked at again.
    private static let pause = TimeSpan.milliseconds(20)
}

/// Which families may not be beside each other: a summary or histogram is told in a scrape by names that are its own with these
/// endings.
enum FamilyKin {
    private static let endings: [[UInt8]] = ["_count", "_sum", "_bucket"].map { Array($0.utf8) }

    private static func endings(of kind: FamilyKind) -> ArraySlice<[UInt8]> {
        switch kind {
        case .summary: endings[..<2]
        case .histogram: endings[...]
        case .counter, .gauge, .untyped: []
        }
    }

    /// Names that may not be beside a family, whatever is known of them.
    static func names(of name: [UInt8], _ kind: FamilyKind) -> [[UInt8]] {
        let stem = endings.first { name.count > $0.count && name.suffix($0.count).elementsEqual($0) }
        return endings(of: kind).map { name + $0 } + (stem.map { [Array(name.dropLast($0.count))] } ?? [])
    }

    /// Whether one is told by the other's name.
    static func areKin(_ one: (name: [UInt8], kind: FamilyKind), _ other: (name: [UInt8], kind: FamilyKind)) -> Bool {
        endings(of: one.kind).contains { other.name == one.name + $0 }
            || endings(of: other.kind).contains { one.name == other.name + $0 }
    }
}
