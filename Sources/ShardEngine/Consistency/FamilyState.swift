// The families of a tier as one replica knows them, and how a push is decided by them, or by a listing. KnownFamilies owns it.

/// How long after its answer a push is in the shard's listings at the latest: a Pushgateway without its check answers first and
/// stores then.
let storeDelay = TimeSpan.seconds(1)
/// How long after a claim all other replicas have heard of it, and what they took before is in listings, at the latest.
let noticeTime = TimeSpan.milliseconds(250)

/// What is known of all families, and which groups were written lately.
struct FamilyState: ~Copyable {
    enum Finding {
        case taken
        case news([FamilyClaim])
        case conflict(String)
        case early(MonotonicTime)
    }

    private var families = FamilyTable<KnownFamily>()
    private var writes = GroupWrites()
    var isComplete = false
    var isShared = false
    /// How many families Pushgateways have of their own.
    private var ownFamilies: Int32 = 0
    /// HELP of these, where they have one.
    private var ownHelps: [[UInt8]: [UInt8]] = [:]
    /// Those pushes that have been taken at once.
    private var pushes = CountedPushes()

    mutating func clear() {
        families.keep { _, _ in false }
        (writes, isComplete) = (GroupWrites(), false)
    }

    // MARK: At once

    mutating func takeAtOnce(_ lent: LentFamilies, at now: MonotonicTime) -> Int? {
        guard isComplete else { return nil }
        let push = lent.families
        let number = pushes.begin(push.key.group)
        for draft in push.drafts.elements where push.isStored(draft) {
            guard let slot = families.slot(ofHash: draft.hash),
                families.update(slot, { $0.cannotClash(draft, of: push, ownFamilies: ownFamilies) }) == true
            else {
                pushes.end(number) { _ in }
                return nil
            }
            pushes.add(families.reference(to: slot), to: number)
        }
        writes.note(push.key.group, at: now)
        pushes.forEachFamily(of: number) { family in families.update(family) { $0.taken(push.key.group, at: now) } }
        return number
    }

    mutating func ended(_ number: Int, at now: MonotonicTime) {
        let group = pushes.group(of: number)
        writes.note(group, at: now)
        pushes.end(number) { family in families.update(family) { $0.ended(group, at: now) } }
    }

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
            if OwnFamilies.mayBecomeOne(family.name), (ownHelps[family.name] ?? []) != (family.help ?? []) {
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
            && (!isShared || known.knows(family.series)) && (known.isOwn || !OwnFamilies.mayBecomeOne(family.name))
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
            if families[family.name] == nil, families.count < FamilyState.mostFamilies {
                families[family.name] = KnownFamily(family)
            }
            families[family.name]?.add(family.series)
            families[family.name]?.taken(push.group, at: now)
            // HELP of these counts, for which `takeAtOnce` does not ask.
            guard !OwnFamilies.mayBecomeOne(family.name), refusalByOwn(family) == nil else { continue }
            families[family.name]?.goesWithOwn = ownFamilies
        }
    }

    mutating func ended(_ push: CheckedPush, at now: MonotonicTime) {
        writes.note(push.group, at: now)
        for family in push.families { families[family.name]?.ended(push.group, at: now) }
    }

    // MARK: By a listing

    mutating func decide(
        _ push: CheckedPush,
        by listing: TierListing,
        isAgain: Bool,
        isLast: Bool,
        claimed: [FamilyClaim]?,
        at now: MonotonicTime
    ) -> Finding {
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
            if let time = mayBeHidden(family, push, listing, isAgain: isAgain, at: now) {
                early = max(early ?? time, time)
            }
        }
        if let early {
            // What others push all the time is not for this one to change.
            return isLast ? .conflict("other pushes under way do not go with this one: try again") : .early(early)
        }
        if isShared {
            let news = push.families.filter { isNews($0) }
            let isTold = news.allSatisfy { one in
                claimed?.contains { $0.name == one.name && $0.kind == one.kind } ?? false
            }
            if !isTold { return .news(news.map { claim($0) }) }
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
        isAgain: Bool,
        at now: MonotonicTime
    ) -> MonotonicTime? {
        var doubtful = kin(of: family)
        if let known = families[family.name] {
            if known.changedUntil > listing.begun { return known.changedUntil }
            let mayClash = !isAgain && known.mayClash(family.series)
            if known.kind != family.kind || mayClash { doubtful.append(family.name) }
        }
        let times = doubtful.compactMap { name -> MonotonicTime? in
            guard let known = families[name] else { return nil }
            if known.underWay > 0 { return now.advanced(by: FamilyState.pause) }
            // What its own group has of others' names, a POST leaves there.
            let taken = name == family.name || !push.isPost ? known.takenAt(besides: push.group) : known.lastTaken
            let time = max(taken.advanced(by: storeDelay), known.claimedUntil)
            return time > listing.begun ? time : nil
        }
        return times.max()
    }

    /// No other group holds anything that clashes: what was known otherwise is over.
    private mutating func settle(_ family: PushedFamily, _ listing: TierListing) {
        for name in kin(of: family) where families[name]?.isOwn == false { families[name] = nil }
        guard families[family.name]?.isOwn != true else { return }
        var known = KnownFamily(family)
        if let former = families[family.name] { known.follow(former) }
        for holder in listing.holders[family.name] ?? [] { known.add(holder.series) }
        families[family.name] = known
    }

    /// - Parameter isWhole: whether it is of all that all shards hold: what none of them does is forgotten.
    mutating func learn(_ listing: TierListing, isWhole: Bool) {
        if isWhole {
            families.keep { name, known in
                let taken = known.lastTaken.advanced(by: storeDelay)
                return known.isOwn || known.underWay > 0 || max(taken, known.claimedUntil) > listing.begun
                    || listing.holders[name] != nil
            }
            families.updateAll { if $0.claimedUntil <= listing.begun { $0.isDisputed = false } }
        }
        for (name, holders) in listing.holders {
            for holder in holders {
                let family = PushedFamily(name: name, kind: holder.kind, help: nil, series: holder.series)
                if families[name] == nil { families[name] = KnownFamily(family) }
                if families[name]?.isOwn == true { continue }
                families[name]?.add(holder.series)
                // Series that may clash are looked up anyway.
                if families[name]?.kind != holder.kind || !kin(of: family).isEmpty { families[name]?.isDisputed = true }
            }
        }
    }

    /// The families of Pushgateways themselves.
    var own: [PushedFamily] {
        families.values { $0.isOwn }.map { name, known in
            PushedFamily(name: name, kind: known.kind, help: ownHelps[name], series: [])
        }
    }

    mutating func learn(own new: [PushedFamily]) {
        for family in new where families[family.name]?.isOwn != true {
            families[family.name] = KnownFamily(family, isOwn: true)
            ownHelps[family.name] = family.help
            // What goes with the others may not go with this one.
            ownFamilies += 1
        }
    }

    // MARK: What replicas tell each other

    /// Whether other replicas may not know the family so. Of a family that is always looked up they need not hear.
    private func isNews(_ family: PushedFamily) -> Bool {
        guard family.name.count <= FamilyState.longestName else { return false }
        guard let known = families[family.name] else { return families.count < FamilyState.mostFamilies }
        return known.kind != family.kind || !known.knows(family.series) || !kin(of: family).isEmpty
    }

    private func claim(_ family: PushedFamily) -> FamilyClaim {
        var known = families[family.name] ?? KnownFamily(family)
        let former = known.kind == family.kind ? known.shapes.all ?? [] : []
        known.add(family.series)
        let shapes = Set(family.series.map(\.shape)).subtracting(former)
        let isTold = known.shapes.all != nil && shapes.count <= KnownShapes.mostKept
        // In one order, so that equal claims are seen to be.
        let sorted = shapes.sorted { ($0.keyNames, $0.allNames) < ($1.keyNames, $1.allNames) }
        return FamilyClaim(name: family.name, kind: family.kind, shapes: isTold ? sorted : nil)
    }

    mutating func hear(_ claim: FamilyClaim, at now: MonotonicTime) {
        guard var known = families[claim.name] ?? (families.count < FamilyState.mostFamilies ? KnownFamily(claim) : nil)
        else { return }
        let family = PushedFamily(name: claim.name, kind: claim.kind, help: nil, series: [])
        let kin = kin(of: family)
        var isChange = !kin.isEmpty || claim.shapes.map { $0.contains { known.shapes.mayClash($0) } } ?? true
        if !known.isOwn, known.kind != claim.kind {
            isChange = true
            known.kind = claim.kind
            // Either of two claims may be stored yet.
            known.changedUntil = max(known.changedUntil, known.claimedUntil)
        }
        if let shapes = claim.shapes {
            for shape in shapes { known.shapes.add(shape) }
        } else {
            known.shapes = .any
        }
        if isChange {
            known.isDisputed = true
            known.changedUntil = max(known.changedUntil, now.advanced(by: noticeTime))
            for name in kin {
                families[name]?.isDisputed = true
                let changedUntil = families[name]?.changedUntil ?? now
                families[name]?.changedUntil = max(changedUntil, now.advanced(by: noticeTime))
                families[name]?.claimedUntil = now.advanced(by: FamilyState.claimTime)
            }
        }
        known.claimedUntil = now.advanced(by: FamilyState.claimTime)
        families[claim.name] = known
    }

    mutating func doubtAll() {
        families.updateAll { if !$0.isOwn { $0.isDisputed = true } }
    }

    /// Within this time after it was claimed a push is stored, unless listings take seconds.
    private static let claimTime = TimeSpan.seconds(4)
    /// Nobody hears of families with longer names.
    private static let longestName = 1024
    /// Names beyond these are looked up each time.
    private static let mostFamilies = 200_000
    /// Until pushes under way are looked at again.
    private static let pause = TimeSpan.milliseconds(20)
}

/// The families of a push while the lock is held; they stay the caller's.
struct LentFamilies: @unchecked Sendable {
    unowned(unsafe) let families: BodyFamilies
}

/// When groups were last written. Groups that share a place only make others wait in vain.
private struct GroupWrites {
    private var times = [MonotonicTime](repeating: MonotonicTime(nanoseconds: 0), count: 4096)

    mutating func note(_ group: Int, at now: MonotonicTime) { times[group & 4095] = now }

    func last(_ group: Int) -> MonotonicTime { times[group & 4095] }
}
