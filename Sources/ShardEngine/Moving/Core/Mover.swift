// What the one replica that moves groups does: it picks a job, takes it through its phases, and picks the next.
//
// The shell makes one when it gets the lock, tells it what happens, carries out the actions that it returns in the same
// turn, and drops it with the lock. It goes by the view of the replica's `Following`, and checks that right before each push.

/// A time of one replica's monotonic clock, in milliseconds.
package typealias Milliseconds = Int64

/// What the mover goes by.
package struct MoverSettings: Sendable {
    /// How long slots are written and scraped at two stores; longer than any store takes to write its file.
    package var overlap: Milliseconds = 150_000
    /// How long after the fence is up pushes have to have begun; with a batch of them it makes up the two seconds of I6.
    package var fence: Milliseconds = 1500
    /// How long a store that failed has to answer before it is used again; doubled each time it fails again soon.
    package var returnDelay: Milliseconds = 1000
    /// How long a job that failed waits before it is tried again.
    package var retryDelay: Milliseconds = 500
    /// Groups that are handed over in one fence, at most, unless one slot has more.
    package var groupsAtOnce = 200
    /// Groups that are handed over in a second, at most.
    package var groupsPerSecond = 1000
    /// How long a slot with a group that its new store refuses waits before it is tried again.
    package var stuckDelay: Milliseconds = 30_000
    /// Pushes under way, at most.
    package var pushesAtOnce = 32
    /// Slots that are on their way to another owner at a time, at most, for the sake of the register's size.
    package var slotsAtOnce = 4000

    package init() {}
}

/// What the shell tells the mover. Answers name the job that asked.
package enum MoverEvent: Sendable {
    /// The view or the peers' notes have changed, or the time has come that `wake` named.
    case tick
    /// A store has told its process to a probe; nil when it did not answer.
    case probed(StoreID, StartTime?)
    case listed(job: Int, StoreID, Listing?)
    /// The store answers, and does not list what it holds.
    case unlistable(job: Int, StoreID)
    case started(job: Int, StoreID, StartTime?)
    case pushed(job: Int, Send, PushResult)
    /// The register was written, and the view is the written one; or another replica was first, or Consul did not answer.
    case wrote(job: Int, Bool)
}

/// What the shell does for the mover.
package enum MoverAction: Sendable {
    /// List the store: all that it had answered before must be in it; to heal it, also its remedies.
    case list(job: Int, StoreID, toHeal: Bool)
    /// Ask the store for its start time.
    case readStart(job: Int, StoreID)
    /// Push to the store, now. Every push ends within a second, by an answer or by being given up.
    case push(job: Int, Send)
    /// The same, of a remedy.
    case rewrite(job: Int, Send)
    /// Write the register, if Consul still has the view's.
    case write(job: Int, Register)
    /// Have the store failed over: it did not answer.
    case failOver(StoreID)
    /// Tick again at this time, if nothing else comes before.
    case wake(at: Milliseconds)
}

/// The mover.
package struct Mover: Sendable {
    package var settings: MoverSettings
    /// Stores on their way out that discovery names though the register does not need them any more: Prometheus may find them
    /// there, so their copies stay.
    package var stillNamed: Set<StoreID> = []
    /// Stores whose scrape fails, and the hashes of the groups that have to be rewritten there: once, as it may be in vain.
    package var ailing: [StoreID: Set<UInt32>] = [:]
    /// What has to be rewritten where, by a listing of these slots that ail since these revs.
    var diagnosis: (store: StoreID, listing: Listing, slots: [Slot: Epoch])?
    /// Slots with a group that its new store refuses; named to the operator.
    package private(set) var stuck: Set<Slot> = []

    var job: MoverJob?
    var lastNumber = 0
    /// Pushes that have not ended, also of a job that has: nothing begins before.
    private var outstanding = 0
    /// Listings from before the fence, of slots that were announced by these revs, and how many groups each slot has by them.
    var early: (listings: [StoreID: Listing], slots: [Slot: Epoch], groups: [Slot: Int]) = ([:], [:], [:])
    /// When an overlap, by its rev, was first seen.
    var overlapSeen: [Slot: (rev: Epoch, at: Milliseconds)] = [:]
    /// Since when stores answer probes, and with which process.
    var answering: [StoreID: (start: StartTime, since: Milliseconds)] = [:]
    /// Slots, by their revs, in whose fence nothing was pushed before the job failed.
    var unused: [Slot: Epoch] = [:]
    private var knownDown: [StoreID] = []
    /// Stores that did not answer a push and have not been failed over since: they may do it late, so what waits for a fence or
    /// for cleaning there goes on waiting until another store is authoritative.
    private(set) var unanswered: Set<StoreID> = []
    /// How often stores have come back, and when last.
    var returns: [StoreID: (count: Int, at: Milliseconds)] = [:]
    /// Until when nothing is handed over, for the sake of the rate.
    var paced: Milliseconds = 0
    var resting: (slots: [Slot: Milliseconds], stores: [StoreID: Milliseconds]) = ([:], [:])

    package init(settings: MoverSettings) { self.settings = settings }

    /// Whether the store is being healed, or will be next.
    package func isHealing(_ store: StoreID) -> Bool {
        ailing[store] != nil || diagnosis?.store == store || job?.kind.patient == store
    }

    /// Whether a job is under way.
    package var isBusy: Bool { job != nil || outstanding > 0 }

    /// Takes what has happened, and goes as far as it can.
    package mutating func handle(_ event: MoverEvent, _ following: Following, now: Milliseconds) -> [MoverAction] {
        var actions: [MoverAction] = []
        // What a store answered before it failed says nothing about its return.
        for store in following.view.down where !knownDown.contains(store) { answering[store] = nil }
        knownDown = following.view.down
        unanswered = unanswered.filter { following.view.store($0) != nil && !following.view.isDown($0) }
        stuck = stuck.filter { following.view.isOnItsWay($0, following.rings) }
        switch event {
        case .tick: break
        case .probed(let store, let start): note(store, start, now)
        case .listed(job?.number, let store, let listing): listed(store, listing, following, now, &actions)
        case .started(job?.number, let store, let start): started(store, start, following, now, &actions)
        case .pushed(let number, let send, let result):
            outstanding -= 1
            pushed(send, result, isCurrent: number == job?.number, following, now, &actions)
        case .wrote(job?.number, let isWritten): wrote(isWritten, following, now)
        case .unlistable(job?.number, let store): leaveAlone(store, now)
        case .listed, .unlistable, .started, .wrote: break
        }
        if let job, !job.isValid(following.view) { fail(now) }
        if let job, let until = job.fencedUntil, now >= until, !job.hasPushed { fail(now) }
        while advance(following, now, &actions) {}
        return actions
    }

    // MARK: Phases

    /// Takes the job one phase on, or picks one; whether it may go on.
    private mutating func advance(_ following: Following, _ now: Milliseconds, _ actions: inout [MoverAction]) -> Bool {
        guard let job else {
            guard outstanding == 0, following.hasConsul, let picked = pick(following, now, &actions) else {
                return false
            }
            self.job = picked
            return true
        }
        switch job.phase {
        case .writing, .voiding, .closing, .listing, .checking: return false
        case .opening:
            guard let register = job.opening(following) else {
                self.job?.phase = .following(until: now + settings.fence)
                return true
            }
            self.job?.phase = .writing(register.epoch)
            actions.append(.write(job: job.number, register))
            return false
        case .following(let until):
            if !job.isFollowed(following) {
                if now >= until { fail(now) } else { actions.append(.wake(at: until)) }
                return now >= until
            }
            return beginListing(job, following, now, &actions)
        case .sending(let waves, let next, let underWay):
            return send(waves, next, underWay, following, now, &actions)
        }
    }

    private mutating func beginListing(
        _ job: MoverJob,
        _ following: Following,
        _ now: Milliseconds,
        _ actions: inout [MoverAction]
    ) -> Bool {
        if case .heal = job.kind { return beginHealing(job, following, now, &actions) }
        let isEarly = job.kind == .handOver && job.slots.keys.allSatisfy { early.slots[$0] != nil }
        let known = isEarly ? early.listings : [:]
        let lists = job.storesToList(following, early: known)
        let asked = job.storesToAsk(following)
        let needed = job.storesToList(following, early: [:])
        self.job?.listings = known.filter { needed.contains($0.key) && !lists.contains($0.key) }
        self.job?.phase = .listing(lists: lists, starts: asked)
        actions += lists.sorted().map { .list(job: job.number, $0, toHeal: job.kind.patient == $0) }
        actions += asked.sorted().map { .readStart(job: job.number, $0) }
        if let until = job.fencedUntil { actions.append(.wake(at: until)) }
        return listingEnded(following, now, &actions)
    }

    private mutating func beginHealing(
        _ present: MoverJob,
        _ following: Following,
        _ now: Milliseconds,
        _ actions: inout [MoverAction]
    ) -> Bool {
        var job = present
        job.leaveOutTouched(following)
        let lists = job.storesToList(following, early: [:])
        job.phase = .listing(lists: lists, starts: [])
        self.job = job
        actions += lists.map { .list(job: job.number, $0, toHeal: true) }
        if let until = job.fencedUntil { actions.append(.wake(at: until)) }
        return listingEnded(following, now, &actions)
    }

    private mutating func listed(
        _ store: StoreID,
        _ listing: Listing?,
        _ following: Following,
        _ now: Milliseconds,
        _ actions: inout [MoverAction]
    ) {
        guard case .listing(var lists, let starts) = job?.phase, lists.remove(store) != nil else { return }
        guard let listing else { return failedAt(store, now, &actions) }
        job?.listings[store] = listing
        job?.phase = .listing(lists: lists, starts: starts)
        _ = listingEnded(following, now, &actions)
    }

    private mutating func started(
        _ store: StoreID,
        _ start: StartTime?,
        _ following: Following,
        _ now: Milliseconds,
        _ actions: inout [MoverAction]
    ) {
        guard let start else { return failedAt(store, now, &actions) }
        note(store, start, now)
        job?.starts[store] = start
        switch job?.phase {
        case .listing(let lists, var starts):
            starts.remove(store)
            job?.phase = .listing(lists: lists, starts: starts)
            _ = listingEnded(following, now, &actions)
        case .checking(var awaited):
            awaited.remove(store)
            job?.phase = .checking(awaited: awaited)
            if awaited.isEmpty { close(following, now, &actions) }
        default: break
        }
    }

    /// Everything is listed: the pushes follow, or the job has ended. Whether it may go on.
    private mutating func listingEnded(
        _ following: Following,
        _ now: Milliseconds,
        _ actions: inout [MoverAction]
    ) -> Bool {
        guard let job, case .listing(let lists, let starts) = job.phase, lists.isEmpty, starts.isEmpty else {
            return false
        }
        if !job.isValid(following.view) { return false }
        if job.kind == .announce {
            early = (job.listings, job.slots, [:])
            for key in job.listings.values.flatMap({ $0.groups.keys }) {
                early.groups[following.rings.slot(of: key.hash), default: 0] += 1
            }
            self.job = nil
            return true
        }
        if case .ail(let store) = job.kind {
            diagnosis = job.listings[store].map { (store, $0, job.slots) }
            self.job = nil
            return true
        }
        if job.needsBackup(following) {
            self.job?.phase = .closing
            actions.append(.write(job: job.number, following.view.lifting(job.sortedSlots, unused: [])))
            return false
        }
        if job.kind == .endOverlap {
            let register = following.view.voiding(job.sortedSlots)
            self.job?.phase = .voiding(register.epoch)
            actions.append(.write(job: job.number, register))
            return false
        }
        self.job?.phase = .sending(waves: job.waves(following), next: 0, outstanding: 0)
        return true
    }

    /// Sends as many pushes of the wave as may be under way, each checked against the view right now.
    private mutating func send(
        _ waves: [[Send]],
        _ next: Int,
        _ underWay: Int,
        _ following: Following,
        _ now: Milliseconds,
        _ actions: inout [MoverAction]
    ) -> Bool {
        guard let job, let wave = waves.first else {
            let awaited = Set(self.job?.listings.keys.map { $0 } ?? [])
            self.job?.phase = .checking(awaited: awaited)
            actions += awaited.sorted().map { .readStart(job: self.job!.number, $0) }
            if awaited.isEmpty { close(following, now, &actions) }
            return false
        }
        if next == wave.count, underWay == 0 {
            self.job?.phase = .sending(waves: Array(waves.dropFirst()), next: 0, outstanding: 0)
            return true
        }
        let count = min(wave.count - next, settings.pushesAtOnce - underWay)
        guard count > 0 else { return false }
        let pushes = wave[next..<next + count]
        if case .wipe(let stray) = job.kind,
            pushes.contains(where: { !following.view.isVoid($0.slot, at: stray.store) })
        {
            // A slot has changed since the listing: what the store holds of it may count by now.
            fail(now)
            return true
        }
        for push in pushes {
            if case .delete = push.what { checkDeletion(push, following.view) }
            let isRemedy = job.kind.patient != nil
            actions.append(isRemedy ? .rewrite(job: job.number, push) : .push(job: job.number, push))
        }
        if job.kind == .handOver {
            paced = max(paced, now) + Milliseconds(1000 * count / max(1, settings.groupsPerSecond))
        }
        outstanding += count
        self.job?.phase = .sending(waves: waves, next: next + count, outstanding: underWay + count)
        return false
    }

    /// I4 and rule A8: nothing is deleted but void copies.
    private func checkDeletion(_ push: Send, _ view: Register) {
        let entry = view.entry(push.slot)
        let isTarget = entry.step == .copying(to: push.store)
        precondition(isTarget || view.isVoid(push.slot, at: push.store), "I4: \(push) deletes what counts: \(entry)")
    }

    private mutating func pushed(
        _ send: Send,
        _ result: PushResult,
        isCurrent: Bool,
        _ following: Following,
        _ now: Milliseconds,
        _ actions: inout [MoverAction]
    ) {
        if result == .refused || result == .late {
            unanswered.insert(send.store)
            failedAt(send.store, now, &actions)
        } else if isCurrent, result == .rejected {
            stuck.insert(send.slot)
            resting.slots[send.slot] = now + settings.stuckDelay
            fail(now)
        } else if isCurrent, case .sending(let waves, let next, let underWay) = job?.phase {
            job?.phase = .sending(waves: waves, next: next, outstanding: underWay - 1)
        }
    }

    /// All is pushed, and the processes have told their starts: they are those that were listed, or the job has failed.
    private mutating func close(_ following: Following, _ now: Milliseconds, _ actions: inout [MoverAction]) {
        guard let job, job.isValid(following.view), job.listings.allSatisfy({ job.starts[$0.key] == $0.value.start }),
            let register = job.closing(following)
        else { return fail(now) }
        self.job?.phase = .closing
        actions.append(.write(job: job.number, register))
    }

    private mutating func wrote(_ isWritten: Bool, _ following: Following, _ now: Milliseconds) {
        guard isWritten, let job else { return fail(now) }
        switch job.phase {
        case .writing(let epoch) where !job.endsOpened:
            self.job?.opened(epoch, fencedUntil: job.kind.isFenced ? now + settings.fence : nil)
            self.job?.phase = .following(until: now + settings.fence)
        case .voiding(let epoch):
            self.job?.opened(epoch, fencedUntil: job.fencedUntil)
            let waves = job.waves(following)
            self.job?.phase = .sending(waves: waves, next: 0, outstanding: 0)
        case .closing:
            stuck.subtract(job.slots.keys)
            // What could not be listed as a whole, as the store's scrape failed, may be moved now.
            if case .heal = job.kind { resting.slots = [:] }
            self.job = nil
        case .writing: self.job = nil
        case .opening, .following, .listing, .sending, .checking: preconditionFailure("a write in \(job.phase)")
        }
    }

    /// The job ends; what it leaves, the next one sees to.
    private mutating func fail(_ now: Milliseconds) {
        guard let job else { return }
        for slot in job.slots.keys { resting.slots[slot] = max(now + settings.retryDelay, resting.slots[slot] ?? 0) }
        switch job.kind {
        case .wipe(let stray), .adopt(let stray): resting.stores[stray.store] = now + 4 * settings.retryDelay
        default: break
        }
        if job.kind.isFenced, !job.hasPushed { unused = job.slots }
        if job.kind == .announce || job.kind == .handOver && job.hasPushed { early = ([:], [:], [:]) }
        // What was listed early of other slots still holds where a fence has run out, and it spares their fences the time.
        if job.kind == .handOver { for slot in job.slots.keys { early.slots[slot] = nil } }
        self.job = nil
    }

    /// Nothing can be moved to or from the store for now: it has its keys, and is tried again later.
    private mutating func leaveAlone(_ store: StoreID, _ now: Milliseconds) {
        let slots = job.map { Array($0.slots.keys) } ?? []
        fail(now)
        resting.stores[store] = now + settings.stuckDelay
        for slot in slots { resting.slots[slot] = now + settings.stuckDelay }
    }

    private mutating func failedAt(_ store: StoreID, _ now: Milliseconds, _ actions: inout [MoverAction]) {
        answering[store] = nil
        // It may do late what was sent, so its dirt is left alone until its failure is in the register.
        resting.stores[store] = now + 2 * settings.fence
        actions.append(.failOver(store))
        fail(now)
    }
}
