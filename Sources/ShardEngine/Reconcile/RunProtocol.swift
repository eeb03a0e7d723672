// The steps of a run, in their order, and who hears of them: all replicas that route pushes. The reconciler's thread takes
// them, and `shardd reconcile` and `shardd drain` do.

/// Performs runs one at a time; confined to the thread of its session.
final class RunProtocol {
    /// What a run is for.
    struct Order {
        var ring: Ring
        /// Shards that own nothing but may hold something.
        var others: [ShardAddress]
        /// Rings by which those may have been owners.
        var otherRings: [StoredRing] = []
        /// Whether replicas may be in the middle of a handover, so that every step has to be taken.
        var isDue: Bool
        /// How far apart replicas may be.
        var hold: TimeSpan
        var groupsPerSecond: Int
        var check: Configuration.Check
        /// Shards that have yet to be told what they have missed, as far as this replica knows by now.
        var untold: () -> Set<ShardAddress> = { [] }
        /// Whether this replica's rings have changed since.
        var isOutdated: () -> Bool = { false }
        /// When a shard was absent, or is, as far as this replica knows by now.
        var absences: (ShardAddress) -> [Absence] = { _ in [] }
        /// Of `others`, those that are being emptied.
        var draining: [ShardAddress] = []

        /// Sees to what shards hold by these rings, too.
        fileprivate mutating func add(_ rings: some Collection<StoredRing>) {
            otherRings += rings
            others = Set(others + rings.flatMap(\.holding)).subtracting(ring.shards).sorted()
        }
    }

    /// How an attempt at a run has ended.
    enum Ending {
        case ended(RunOutcome)
        /// Somebody else is at it.
        case taken
        case failed(String)
    }

    private let session: HTTPSession
    private let lock: ConsulLock?
    private let onState: (RunState) -> Void
    /// Whether what is under way is to be brought to an early end.
    var isInterrupted = false
    private var restarts = Restarts()
    /// The stored rings that the run sees to.
    private var ringsAtStart: [RingEntry] = []
    /// Without Consul, runs are counted here alone.
    private var state = RunState()
    private var versions = VersionBook()
    /// Without Consul, what versions owners have been given is known here alone.
    private var pages: [VersionBook.PageKey: VersionBook.Page] = [:]

    /// - Parameters:
    ///   - lock: nil without Consul.
    ///   - onState: is called at each step.
    init(session: HTTPSession, lock: ConsulLock?, onState: @escaping (RunState) -> Void) {
        self.session = session
        self.lock = lock
        self.onState = onState
    }

    /// How far the latest run has come, whoever's it is.
    func latestState() -> Result<RunState, RunFailure> {
        let latest = lock?.read() ?? .success(state)
        if case .success(let state) = latest { onState(state) }
        return latest
    }

    /// What would be done.
    func plan(_ order: Order) -> (strays: [Stray], problems: [String]) {
        var order = order
        let stored = lock.map { $0.storedRings() } ?? []
        order.add((stored ?? []).map(\.ring))
        let run = ReconcileRun(session: session, settings: settings(order))
        if stored == nil { run.problem("Consul does not tell by which rings groups may lie") }
        return (run.plan().strays, run.result.problems)
    }

    /// Whether replicas may give a shard copies, by a ring that is not settled, or that cannot be told.
    func isRemembered(_ shard: ShardAddress) -> Bool {
        guard let lock else { return false }
        return lock.storedRings()?.contains { $0.ring.shards.contains(shard) } ?? true
    }

    /// Performs a run, if nobody else is at one.
    func perform(_ order: Order, onPlan: ([Stray]) -> Void = { _ in }) -> Ending {
        var order = order
        switch lock?.read() ?? .success(state) {
        case .failure(let failure): return .failed(failure.reason)
        case .success(let latest): state = latest
        }
        state.run += 1
        state.phase = .copying
        state.startedAt = wallClock()
        state.ring = order.ring.shards.map(\.text)
        state.vnodes = order.ring.vnodes
        state.draining = order.draining.map(\.text)
        // Before anybody can know of the run: what is stored from now on may be an objection to it.
        guard let stored = lock.map({ $0.storedRings() }) ?? [] else {
            return .failed("Consul does not tell by which rings groups may lie")
        }
        switch lock?.acquire(state) ?? .acquired {
        case .taken: return .taken
        case .failed(let reason): return .failed(reason)
        case .acquired: break
        }
        onState(state)
        defer {
            lock?.release(state)
            versions = VersionBook()
        }
        ringsAtStart = stored
        order.add(stored.map(\.ring))
        let own = StoredRing(order.ring)
        if !stored.contains(where: { $0.ring == own }) { lock?.store(own) }
        if lock != nil, order.isDue {
            awaitObjections(order)
            if let objection = objection(order) { return .ended(RunOutcome(problems: [objection])) }
        }
        switch readVersions(order).flatMap({ lock?.readJournals() ?? .success([]) }) {
        case .failure(let failure): return .failed(failure.reason)
        case .success(let journals):
            let recoveries = journals.map { recover($0, order) }
            let unrecovered = recoveries.reduce(into: Set()) { $0.formUnion($1.inDoubt) }
            let run = ReconcileRun(session: session, settings: settings(order), unrecovered: unrecovered)
            for reason in recoveries.flatMap(\.result.problems) { run.problem(reason) }
            carryOut(run, order, onPlan)
            return .ended(run.result)
        }
    }

    private func readVersions(_ order: Order) -> Result<Void, RunFailure> {
        (lock?.readVersions() ?? .success(Array(pages.values))).map { pages in
            versions = VersionBook(pages, rings: Array(Set(order.otherRings + state.storedAwayRings))) {
                [unowned self] page, key in
                guard let lock else {
                    self.pages[key] = page
                    return true
                }
                return lock.write(page, key)
            }
        }
    }

    private func recover(_ journal: CopyJournal, _ order: Order) -> ReconcileRun {
        let recovery = ReconcileRun(session: session, settings: settings(order), owners: journal.owners)
        recovery.recover(journal)
        return recovery
    }

    private func settings(_ order: Order) -> RunSettings {
        RunSettings(
            ring: order.ring,
            others: order.others,
            draining: order.draining,
            groupsPerSecond: order.groupsPerSecond,
            check: order.check,
            untold: { [unowned self] in
                guard let stored = lock.map({ $0.untoldShards() }) ?? [] else { return nil }
                return stored.union(order.untold())
            },
            isTrusted: { [unowned self] shard, startTime in
                let grace = TimeSpan(nanoseconds: order.hold.nanoseconds + RunProtocol.tellingTime.nanoseconds)
                let wasAway = state.unreached[shard.text] != nil
                let isYoung = order.isDue && order.draining.isEmpty && isYounger(startTime, than: grace)
                return restarts.isTrusted(shard, startTime: startTime, wasAway: wasAway || isYoung, grace: grace)
            },
            versions: versions,
            absences: order.absences,
            journal: { [unowned self] in lock?.write($0, from: $1) ?? true },
            mayGoOn: { [unowned self] in !isInterrupted && lock?.isHeld != false },
            objection: { [unowned self] in objection(order) },
            othersSweepAfter: lock == nil ? order.hold : nil
        )
    }

    /// Whether a process was started so short a time ago that replicas may still have to tell it what it has missed.
    private func isYounger(_ startTime: String?, than grace: TimeSpan) -> Bool {
        guard let startTime, let startedAt = nanoseconds(rfc3339: startTime) else { return false }
        return wallClockNanoseconds() - startedAt < Int64(grace.nanoseconds)
    }

    private func carryOut(_ run: ReconcileRun, _ order: Order, _ onPlan: ([Stray]) -> Void) {
        var strays = run.plan().strays
        if lock != nil, !order.isDue, !strays.isEmpty {
            awaitObjections(order)
            strays = run.plan().strays
        }
        if let objection = objection(order) { return run.problem(objection, passes: true) }
        onPlan(strays)
        // What a shard holds that cannot be listed yet may be newer than a copy that is pushed now, and would look older then.
        guard order.ring.shards.allSatisfy({ run.listings[$0] != nil }) else { return }
        run.copy(strays)
        guard run.mayGoOn else { return run.problem("the run was broken off") }
        if let objection = objection(order) { return run.problem(objection, passes: true) }
        let needsSteps = order.isDue || !strays.isEmpty
        // While an owner lacks what it might be given yet, nobody may take copies for superfluous.
        let isAllCopied = !run.isObstructed && run.inDoubt.isEmpty
        if needsSteps, isAllCopied, !enter(.copied, run, order) { return run.problem("the lock was lost") }
        if needsSteps {
            session.pause(order.hold)
            // A shard that hangs may have held this up for long.
            let strays = run.plan().strays
            if let objection = objection(order) { return run.problem(objection, passes: true) }
            run.sweep(strays)
        }
        guard run.mayGoOn else { return run.problem("the run was broken off") }
        // Where something could not be looked at or deleted, copies are left that requests still have to remove.
        let isSwept = isAllCopied && !run.isObstructed
        guard isSwept else { return }
        if enter(.settled, run, order) { run.didSettle() } else { run.problem("the lock was lost") }
    }

    /// Gives replicas that go by another ring the time to say so.
    private func awaitObjections(_ order: Order) {
        session.pause(order.hold)
    }

    /// Why the run may not go on; nil when it may: whether this replica's rings have changed, or others have stored theirs,
    /// since it began.
    private func objection(_ order: Order) -> String? {
        if order.isOutdated() { return RunProtocol.outdated }
        guard let lock else { return nil }
        guard let stored = lock.storedRings() else { return "Consul does not tell by which rings replicas go" }
        let known = Dictionary(ringsAtStart.map { ($0.key, $0.modifyIndex) }) { first, _ in first }
        let others = stored.filter { $0.ring != StoredRing(order.ring) && known[$0.key] != $0.modifyIndex }
        return others.isEmpty ? nil : RunProtocol.outdated
    }

    private func enter(_ phase: RunState.Phase, _ run: ReconcileRun, _ order: Order) -> Bool {
        let before = state
        state.phase = phase
        state.kept = run.kept.map(run.places.hash)
        let since = state.unreached
        let now = wallClock()
        state.unreached = Dictionary(
            uniqueKeysWithValues: run.result.unreached.map { ($0.text, since[$0.text] ?? now) }
        )
        .filter { now - $0.value < RunProtocol.memory.seconds }
        state.cleared = order.others.map(\.text).filter { state.unreached[$0] == nil }
        if phase == .settled {
            state.shards = order.ring.shards.map(\.text)
            state.settledAt = wallClock()
            let others = order.otherRings.map { RunState.AwayRing(shards: $0.shards.map(\.text), vnodes: $0.vnodes) }
            state.awayRings = (others + state.awayRings).reduce(into: []) { kept, ring in
                let isOfUse = ring.shards.contains { state.unreached[$0] != nil } && !kept.contains(ring)
                if isOfUse, kept.count < RunProtocol.awayRingLimit { kept.append(ring) }
            }
            // First, or a replica would find them again when it has just let go of them.
            lock?.removeRings(ringsAtStart.filter { $0.ring != StoredRing(order.ring) })
        }
        guard lock?.update(state) ?? true else {
            state = before
            return false
        }
        onState(state)
        // By then all that any shard holds has been compared.
        if phase == .settled, state.unreached.isEmpty { versions.forget() }
        return true
    }

    private static let outdated = "replicas go by different rings yet, or have just changed theirs"
    private static let awayRingLimit = 8
    /// After how long a shard that is away is taken to be gone for good.
    private static let memory = TimeSpan.seconds(7 * 86400)
    /// How long replicas may take to see that a shard is back, and to tell it what it has missed.
    private static let tellingTime = TimeSpan.seconds(2)
}
