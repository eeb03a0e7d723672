// One run: lists all shards, gives every owner what others hold of its groups, and then deletes what others hold. The
// reconciler makes one at a time; the command line does too.
//
// Nothing is deleted that the owner has not acknowledged. While a handover is under way every request is written to the
// copy before its owner has it (VisitRound), so that a second look at the copy tells whether what was pushed to the owner
// has overwritten something newer: then it is pushed again, as it is now.

/// What a run has done.
public struct RunOutcome: Equatable, Sendable {
    /// Groups of which copies were pushed to their owners.
    public var moved = 0
    /// Copies that were deleted.
    public var deleted = 0
    /// Groups that several shards hold, by the latest look; nil when nobody has looked.
    public var duplicates: Int?
    /// What could not be done.
    public var problems: [String] = []
    /// Whether any of that does not pass by itself, as what comes of a shard that has just returned does.
    public var needsSomebody = false
    /// Shards off the ring, and not being emptied, that could not be taken at their word: they did not answer, had just come
    /// back, or had yet to be told what they had missed.
    public var unreached: [ShardAddress] = []
    /// What was wrong with each of those.
    public var doubts: [String] = []
    /// Whether replicas have been told that nothing is left to be moved: they make no more copies.
    public var isSettled = false
    /// How many groups each shard held, by the latest look.
    var groups: [ShardAddress: Int] = [:]
    /// Shards whose stores had no mark.
    var unmarked: Set<ShardAddress> = []
}

/// A run; confined to the thread of its session.
final class ReconcileRun {
    private let session: HTTPSession
    private let settings: RunSettings
    private var outcome = RunOutcome()
    let client: ShardClient
    let places: GroupPlaces
    /// Families of each shard that have native histograms, as far as anybody has asked since the plan.
    private var nativeHistograms: [ShardAddress: Set<String>] = [:]
    /// The latest listing of each shard that could be listed.
    var listings: [ShardAddress: ShardListing] = [:]
    /// When the process of each shard was started, as it told before it was listed.
    private var processes: [ShardAddress: String] = [:]
    var ledger = RunLedger()
    /// Shards of whose copies something was pushed that has yet to be looked after.
    private(set) var inDoubt: Set<ShardAddress> = []
    /// Groups that cannot be moved, as people have been told.
    private(set) var kept: Set<GroupLabels> = []
    /// Whether anything else could not be done: then nobody may take copies for superfluous.
    private(set) var isObstructed = false
    /// Those that an earlier run has left so: nothing else may be done with their copies before.
    private let unrecovered: Set<ShardAddress>
    /// Shards of which no copy may be deleted, and groups of which none may: the next run would take a copy that is gone for
    /// one that was deleted, and delete what was pushed of it, where the journal has it or may have it.
    private var unsweepable: Set<ShardAddress>
    private var unsweepableGroups: Set<GroupLabels> = []

    /// - Parameters:
    ///   - unrecovered: shards of whose copies an earlier run has pushed something that has yet to be looked after.
    ///   - owners: of groups that go by something else than the ring.
    init(
        session: HTTPSession,
        settings: RunSettings,
        unrecovered: Set<ShardAddress> = [],
        owners: [GroupLabels: ShardAddress] = [:]
    ) {
        self.session = session
        self.settings = settings
        client = ShardClient(session: session, check: settings.check) { [mayGoOn = settings.mayGoOn] in
            !session.isOver && mayGoOn()
        }
        places = GroupPlaces(settings.ring, owners: owners)
        self.unrecovered = unrecovered
        inDoubt = unrecovered
        unsweepable = unrecovered
    }

    /// Lists the shards and finds what is not where it belongs.
    func plan() -> ReconcilePlan {
        listings = [:]
        nativeHistograms = [:]
        (outcome.unreached, outcome.doubts) = ([], [])
        let untold = settings.untold()
        if untold == nil { problem("Consul does not tell which shards have missed something") }
        var names: [String: ShardAddress] = [:]
        for shard in settings.ring.shards + settings.others {
            let startTime = client.startTime(of: shard)
            processes[shard] = startTime
            if let first = startTime.flatMap({ names[$0] }) {
                // Its copies are the other one's: were they taken for copies, each group would be deleted where it is.
                if settings.ring.shards.contains(shard) { problem("\(first) and \(shard) are one Pushgateway") }
                continue
            }
            if let startTime { names[startTime] = shard }
            let isTrusted = settings.isTrusted(shard, startTime)
            if startTime == nil {
                distrusted(shard, .silent(client.fault))
                continue
            }
            guard let untold, isTrusted, !untold.contains(shard) else {
                distrusted(shard, untold == nil ? .unknown : isTrusted ? .untold : .back)
                continue
            }
            switch look(at: shard) {
            case .success(let listing):
                listings[shard] = listing
                if listing.unreadable > 0 {
                    problem("shard \(shard): \(listing.unreadable) groups have a family in place of their labels")
                }
            case .failure(let failure):
                problem(failure.reason)
            }
        }
        let plan = ReconcilePlan(listings, places)
        outcome.duplicates = plan.duplicateCount
        return plan
    }

    private func distrusted(_ shard: ShardAddress, _ doubt: Doubt) {
        let reason = RunFailure.distrusted(shard, doubt).reason
        if (settings.ring.shards + settings.draining).contains(shard) {
            problem(reason, passes: true)
        } else {
            outcome.unreached.append(shard)
            outcome.doubts.append(reason)
        }
    }

    /// Replicas have been told that nothing is left to be moved.
    func didSettle() { outcome.isSettled = true }

    /// What has been done so far.
    var result: RunOutcome {
        var result = outcome
        result.groups = listings.mapValues(\.groups.count)
        result.unmarked = Set(listings.filter(\.value.marks.isEmpty).keys)
        return result
    }

    /// Whether another run may have deleted a copy whose owner had nothing of it at this time.
    func mayBeSwept(since time: MonotonicTime) -> Bool {
        settings.othersSweepAfter.map { MonotonicTime.now().since(time) >= $0 } ?? false
    }

    /// Looks after what an earlier run has pushed and could not look after itself. Its owners are this run's, though the
    /// ring may be another one by now.
    func recover(_ journal: CopyJournal) {
        guard let named = ShardAddress(parsing: journal.from) else { return }
        // What it holds can be told when it is back.
        if settings.others.contains(named), client.startTime(of: named) == nil { return }
        _ = plan()
        let from = listedName(of: named)
        if lookAfter(journal, from) {
            if from != named { _ = write(nil, from: named) }
            return
        }
        inDoubt.insert(from)
        problem("what an earlier run has pushed from \(from) has yet to be looked after")
    }

    /// Returns whether nothing of it is left to be looked after.
    private func lookAfter(_ journal: CopyJournal, _ from: ShardAddress) -> Bool {
        let wanted = Set(journal.owners.values.map(listedName)).union([from])
        let missing = (settings.ring.shards + settings.others).filter { wanted.contains($0) && listings[$0] == nil }
        // What shards that are away hold, or lack, they are told when they are back.
        guard missing.allSatisfy(outcome.unreached.contains) else { return false }
        guard listings[from] != nil else { return outcome.unreached.contains(from) || write(nil, from: from) }
        let answering = journal.pushes.filter { listings[places.owner(of: $0.key)] != nil }
        guard noteVersions(answering.map { ($0.key, $0.value) }, from: from) else { return false }
        var pass = CopyPass(from: from, after: journal, run: self)
        return pass.carryOut()
    }

    /// Writes down, or forgets, what is about to be pushed of a shard's copies; false when it cannot.
    func write(_ journal: CopyJournal?, from shard: ShardAddress) -> Bool { settings.journal(journal, shard) }

    /// Groups have to be looked after by the next run.
    ///
    /// - Parameter areWrittenDown: whether the journal has these, and no others; otherwise no copy of the shard is deleted.
    func leave(_ groups: Set<GroupLabels>, on shard: ShardAddress, areWrittenDown: Bool) {
        unsweepableGroups.formUnion(groups)
        if !areWrittenDown { unsweepable.insert(shard) }
    }

    /// Gives owners, all of which are listed, what strays hold, the copies of each shard together.
    func copy(_ strays: [Stray]) {
        for (from, strays) in Dictionary(grouping: strays, by: \.from).sorted(by: { $0.key < $1.key }) {
            guard !unrecovered.contains(from) else { continue }
            var pass = CopyPass(from: from, strays.map(\.labels), run: self)
            if !pass.carryOut() { inDoubt.insert(from) }
        }
        outcome.moved = ledger.confirmedCount
    }

    /// Deletes what owners have got, after another look.
    func sweep(_ strays: [Stray]) {
        for (from, strays) in Dictionary(grouping: strays, by: \.from).sorted(by: { $0.key < $1.key }) {
            guard !unsweepable.contains(from) else { continue }
            let batchSize = RunSettings.batch(of: strays.count)
            var left = strays.map(\.labels)[...]
            var looksInVain = 0
            while !left.isEmpty, mayGoOn {
                // What owners have, they have had since the plan; the copy may have changed a moment ago.
                guard let now = latest(from) else { break }
                let end = MonotonicTime.now().advanced(by: RunSettings.lookLasts)
                listings[from] = now
                let batch = left.prefix(batchSize)
                let covered = batch.filter { isCovered($0, on: from) }
                guard let count = deleteWhileOwnersLast(covered, on: from, until: end) else { break }
                for group in Set(batch).subtracting(covered).subtracting(kept) where isThere(group, on: from) {
                    problem("\(places.text(of: group)) on \(from) has something that its owner may lack")
                }
                left = covered.dropFirst(count) + left.dropFirst(batch.count)
                looksInVain = count == 0 && !covered.isEmpty ? looksInVain + 1 : 0
                guard looksInVain < RunSettings.lookLimit else {
                    problem("owners of what \(from) holds are too slow for it to be deleted")
                    break
                }
                pace(batch.count - covered.count + count)
            }
        }
        outcome.duplicates = ReconcilePlan(listings, places).duplicateCount
    }

    /// Deletes copies, some at a time: pushes of an owner that has just died may go to the shard that holds the copy.
    ///
    /// - Parameter end: after which what is known of the copies is too old.
    /// - Returns: how many of them it has seen to; nil when owners have not lasted, or replicas go by other rings.
    private func deleteWhileOwnersLast(
        _ groups: [GroupLabels],
        on shard: ShardAddress,
        until end: MonotonicTime
    ) -> Int? {
        var left = groups[...]
        while !left.isEmpty {
            let some = left.prefix(RunSettings.deletionsAtOnce)
            guard mayBelieve(Set(some.map(places.owner(of:))).union([shard])) else { return nil }
            if let objection = settings.objection() {
                problem(objection, passes: true)
                return nil
            }
            guard MonotonicTime.now() < end else { break }
            left = left.dropFirst(some.count)
            deleteCopies(Array(some), on: shard)
        }
        return groups.count - left.count
    }

    /// Whether shards can still be taken at their word: of one that has been restarted meanwhile, or was too slow for a
    /// request, a part of what it holds may be void, or with another shard.
    func mayBelieve(_ shards: Set<ShardAddress>) -> Bool {
        let changed = shards.filter { shard in client.startTime(of: shard).map { $0 != processes[shard] } ?? true }
        // Afterwards: what has failed over from a shard that answered just now, it is known to have missed.
        let doubted = settings.untold().map { changed.union($0.intersection(shards)) } ?? shards
        for shard in doubted.sorted() {
            let reason = changed.contains(shard) ? "was restarted during the run" : "has not received what it missed"
            problem("shard \(shard) \(reason)", passes: true)
        }
        return doubted.isEmpty
    }

    private func isThere(_ group: GroupLabels, on shard: ShardAddress) -> Bool {
        listings[shard]?.groups[group] != nil
    }

    /// Whether a copy, as it is now, is on its owner as a whole.
    private func isCovered(_ group: GroupLabels, on from: ShardAddress) -> Bool {
        guard let copy = listings[from]?.groups[group], !unsweepableGroups.contains(group) else { return false }
        guard let held = listings[places.owner(of: group)]?.groups[group], !ledger.isUnconfirmed(group) else {
            return false
        }
        return copy.families.allSatisfy { name, family in
            guard let owned = held.families[name] else { return false }
            return owned.version >= family.version || ledger.hasAcknowledged(group, name, version: family.version)
        }
    }

    /// The address by which a store was listed that this one leads to as well.
    private func listedName(of shard: ShardAddress) -> ShardAddress {
        guard listings[shard] == nil, let process = processes[shard] else { return shard }
        return listings.keys.filter { processes[$0] == process }.min() ?? shard
    }

    /// Deletes copies of groups whose owners, other stores than this one, have them.
    private func deleteCopies(_ groups: [GroupLabels], on shard: ShardAddress) {
        for group in groups {
            let owner = places.owner(of: group)
            guard let one = processes[shard], let other = processes[owner] else {
                preconditionFailure("a copy on \(shard) is deleted, and whose store that is is not known")
            }
            precondition(one != other, "a copy on \(shard) is deleted, and \(owner) is the same store")
            precondition(listings[owner]?.groups[group] != nil, "a copy on \(shard) is deleted, and \(owner) lacks it")
        }
        delete(groups, on: shard)
    }

    /// Returns whether all of them are gone.
    @discardableResult
    private func delete(_ groups: [GroupLabels], on shard: ShardAddress) -> Bool {
        var areGone = true
        let orders = groups.map { ShardClient.Order(shard: shard, method: .delete, path: places.path(of: $0)) }
        for (group, answer) in zip(groups, client.carryOut(orders)) {
            switch answer {
            case .done:
                outcome.deleted += 1
                listings[shard]?.groups[group] = nil
            case .refused(let reason, _), .failed(let reason):
                areGone = false
                problem("\(places.text(of: group)) cannot be deleted on \(shard): \(reason)")
            }
        }
        return areGone
    }

    // MARK: What the passes need

    /// A DELETE may have reached the copy and its owner before what was read of the copy reached the owner: then the owner
    /// holds that and nothing else, and no copy is left.
    ///
    /// - Returns: the groups of which owners hold that beside what was pushed since; nil when it cannot be taken from them.
    func removeResurrected(_ groups: Set<GroupLabels>) -> Set<GroupLabels>? {
        var leftovers: Set<GroupLabels> = []
        for (owner, groups) in Dictionary(grouping: groups, by: { places.owner(of: $0) }) {
            // Of other groups, what was read before anything was pushed is what tells what they lack.
            guard let now = latest(owner) else { return nil }
            var unchanged: [GroupLabels] = []
            for group in groups {
                let held = now.groups[group]
                let foreign = held.map { ledger.foreignFamilies(of: $0) } ?? [:]
                listings[owner]?.groups[group] = foreign.isEmpty ? nil : held
                listings[owner]?.groups[group]?.families = foreign
                ledger.didReplace(group)
                guard let held else { continue }
                if foreign.isEmpty {
                    unchanged.append(group)
                } else if foreign.count < held.families.count {
                    leftovers.insert(group)
                }
            }
            guard delete(unchanged, on: owner) else { return nil }
        }
        return leftovers
    }

    /// Lists a shard: what it holds of others' groups as a whole, of its own the times only.
    func look(at shard: ShardAddress, alsoWanted: Set<GroupLabels> = []) -> Result<ShardListing, RunFailure> {
        let look = client.list(shard) { [places] labels in
            places.owner(of: labels) == shard && !alsoWanted.contains(labels) ? .times : .content
        }
        return look.map { listing in
            var listing = listing
            listing.correct(by: settings.absences(shard), process: processes[shard])
            settings.versions.correct(&listing, of: shard)
            markNativeHistograms(&listing, of: shard)
            return listing
        }
    }

    /// What a listing does not tell is left where it is.
    private func markNativeHistograms(_ listing: inout ShardListing, of shard: ShardAddress) {
        let histograms = listing.groups.mapValues { copy in
            copy.families.filter { $0.value.content?.kind == .histogram }.keys
        }
        .filter { !$0.value.isEmpty }
        guard !histograms.isEmpty else { return }
        let native = nativeHistograms[shard] ?? client.nativeHistograms(of: shard)
        nativeHistograms[shard] = native
        for (group, names) in histograms {
            guard let name = names.first(where: { native?.contains($0) ?? true }) else { continue }
            listing.groups[group]?.obstacle = "the listing does not tell the native buckets of \(name)"
        }
    }

    /// Writes down which versions of families owners have been given of a shard's copies, where a shard that cannot be listed
    /// may have newer ones.
    ///
    /// - Returns: whether that could be done.
    func noteVersions(_ given: [(group: GroupLabels, names: Set<String>)], from: ShardAddress) -> Bool {
        let away = settings.others.filter { listings[$0] == nil }
        let passed = away.isEmpty ? [] : given.filter { settings.versions.mayHold($0.group, away) }
        for (owner, given) in Dictionary(grouping: passed, by: { places.owner(of: $0.group) }) {
            guard let now = latest(owner, alsoWanted: Set(given.map(\.group))) else { return false }
            for (group, names) in given {
                let copy = listings[from]?.groups[group]
                settings.versions.note(names, of: copy, held: now.groups[group], on: owner)
            }
        }
        guard settings.versions.save() else {
            problem("Consul does not take down what shards that are away may have newer")
            return false
        }
        if settings.versions.isFull { tell("too much is moved past shards that are away to take it all down") }
        return true
    }

    /// Whether another stray copy has a newer version of the family than this shard, which is then the one to be pushed.
    func hasNewer(_ group: GroupLabels, _ name: String, than family: FamilyCopy, on shard: ShardAddress) -> Bool {
        listings.contains { other, listing in
            other != shard && (listing.groups[group]?.families[name]?.version ?? .min) > family.version
        }
    }

    /// What a shard holds now; nil when it cannot be listed.
    func latest(_ shard: ShardAddress, alsoWanted: Set<GroupLabels> = []) -> ShardListing? {
        switch look(at: shard, alsoWanted: alsoWanted) {
        case .success(let listing): return listing
        case .failure(let failure):
            problem(failure.reason)
            return nil
        }
    }

    /// Whether the run may still change anything: it is not to stop, and nobody else may be at it.
    var mayGoOn: Bool { client.mayGoOn() }

    /// A group cannot be moved, for a reason of its own.
    func keep(_ group: GroupLabels, _ reason: String) {
        kept.insert(group)
        outcome.needsSomebody = true
        tell(reason)
        if kept.count > RunSettings.keptLimit { isObstructed = true }
    }

    /// Something cannot be done.
    ///
    /// - Parameter passes: whether a later run can be expected to do it, with nobody's help.
    func problem(_ reason: String, passes: Bool = false) {
        isObstructed = true
        if !passes { outcome.needsSomebody = true }
        tell(reason)
    }

    private func tell(_ reason: String) {
        let isTold = outcome.problems.count == RunSettings.problemLimit || outcome.problems.contains(reason)
        if !isTold { outcome.problems.append(reason) }
    }

    /// Takes the time that so many groups may take at least.
    func pace(_ count: Int) {
        wait(TimeSpan(nanoseconds: UInt64(count) * 1_000_000_000 / UInt64(settings.groupsPerSecond)))
    }

    /// Waits.
    func wait(_ time: TimeSpan) {
        session.pause(time)
    }
}
