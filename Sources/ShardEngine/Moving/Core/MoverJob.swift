// One piece of the mover's work on many slots at once: the register is written, the replicas follow, stores are listed,
// pushes are made, processes are checked, and the register is written again. `Mover` picks a job and gives it what comes.
//
// A job that cannot go on just ends. What it leaves, a fence or a copy, the register tells, and the next job sees to it.

/// What a job is for.
enum JobKind: Equatable, Sendable {
    /// Takes fences away that a stopped mover has left.
    case lift
    /// Wipes void copies on stand-ins, for which requests wait.
    case clean
    /// Names returned or restarted stores in the register.
    case note(StoreID, StartTime)
    /// Finds the slots in which what a new store holds counts.
    case adopt(Stray)
    /// Deletes void copies on a store.
    case wipe(Stray)
    /// Announces slots, and lists them outside the fence.
    case announce
    /// Hands announced slots over.
    case handOver
    /// Wipes backups.
    case endOverlap
    /// Lists a store whose scrape fails, outside the fence.
    case ail(StoreID)
    /// Rewrites the groups there for which it fails.
    case heal(StoreID)
    /// Forgets what is at rest.
    case tidy

    /// Whether requests on the job's slots wait for it.
    var isFenced: Bool {
        switch self {
        case .handOver, .endOverlap, .heal: true
        case .lift, .clean, .note, .adopt, .wipe, .announce, .ail, .tidy: false
        }
    }

    /// Which store is healed.
    var patient: StoreID? {
        switch self {
        case .ail(let store), .heal(let store): store
        case .lift, .clean, .note, .adopt, .wipe, .announce, .handOver, .endOverlap, .tidy: nil
        }
    }
}

/// A job under way.
struct MoverJob: Sendable {
    let kind: JobKind
    let number: Int
    /// The slots of the job, each with the rev that it must have.
    private(set) var slots: [Slot: Epoch]
    /// Slots to lift in whose fence nothing was pushed.
    var unused: Set<Slot> = []
    /// By when a fence has to be lifted; nil before it is up.
    private(set) var fencedUntil: Milliseconds?
    var phase = Phase.opening
    /// What was listed for it.
    var listings: [StoreID: Listing] = [:]
    /// Which processes stores have told since.
    var starts: [StoreID: StartTime] = [:]
    /// Which epoch has to be followed before stores are listed.
    private(set) var epoch: Epoch

    enum Phase: Sendable {
        /// The register has yet to be written, if the job needs that.
        case opening
        /// The register is being written, with this epoch: the job begins.
        case writing(Epoch)
        /// The replicas have yet to follow.
        case following(until: Milliseconds)
        /// Stores are being listed, and others asked for their processes.
        case listing(lists: Set<StoreID>, starts: Set<StoreID>)
        /// The register is being written, with this epoch: backups are void.
        case voiding(Epoch)
        /// A wave of pushes is under way; `next` is the first push of it that has not been sent.
        case sending(waves: [[Send]], next: Int, outstanding: Int)
        /// Stores are asked for their processes again.
        case checking(awaited: Set<StoreID>)
        /// The register is being written: the job ends.
        case closing
    }

    init(_ kind: JobKind, number: Int, slots: [Slot], view: Register) {
        self.kind = kind
        self.number = number
        self.slots = Dictionary(uniqueKeysWithValues: slots.map { ($0, view.entry($0).rev) })
        epoch = view.epoch
        if case .wipe(let stray) = kind { epoch = stray.since }
        if case .adopt(let stray) = kind { epoch = stray.since }
        if case .clean = kind { epoch = slots.map { view.entry($0).changed }.max() ?? 0 }
    }

    /// Whether pushes may have been made.
    var hasPushed: Bool {
        switch phase {
        case .opening, .writing, .following, .listing, .voiding: false
        case .sending, .checking, .closing: true
        }
    }

    var sortedSlots: [Slot] { slots.keys.sorted() }

    /// The rule by which a mover goes on: every slot has the rev that the job knows, by the newest view.
    func isValid(_ view: Register) -> Bool {
        switch phase {
        case .writing, .voiding, .closing: return true  // The write tells.
        case .opening, .following, .listing, .sending, .checking: break
        }
        switch kind {
        case .wipe(let stray): return view.dirty.contains(stray) && !view.isDown(stray.store)
        case .adopt(let stray): return view.adopting.contains(stray) && !view.isDown(stray.store)
        case .ail(let store), .heal(let store): if view.isDown(store) { return false }
        case .lift, .clean, .note, .announce, .handOver, .endOverlap, .tidy: break
        }
        return slots.allSatisfy { slot, rev in
            let entry = view.entry(slot)
            return entry.rev == rev && (kind == .lift || !view.isDown(entry.own))
        }
    }

    /// The job's first write is made; nothing of it is known by older epochs.
    mutating func opened(_ written: Epoch, fencedUntil: Milliseconds?) {
        for slot in slots.keys { slots[slot] = written }
        epoch = written
        self.fencedUntil = fencedUntil
    }

    /// Leaves out the slots that somebody has touched since they were listed, unless there are no others: then they are listed again.
    mutating func leaveOutTouched(_ following: Following) {
        let untouched = slots.filter { !following.isTouched($0.key.range) }
        if untouched.isEmpty { listings = [:] } else { slots = untouched }
    }

    // MARK: What the kinds differ in

    /// The register with which the job begins; nil where it begins without a write.
    func opening(_ following: Following) -> Register? {
        let view = following.view
        switch kind {
        case .lift: return view.lifting(sortedSlots, unused: unused)
        case .note(let store, let start):
            return view.isDown(store)
                ? view.bringingBack(store, start: start, rings: following.rings) : view.restarted(store, start: start)
        case .announce:
            return view.announcing(
                sortedSlots.compactMap { slot in view.destination(slot, following.rings).map { (slot, $0) } }
            )
        case .handOver, .endOverlap: return view.fencing(sortedSlots)
        case .ail: return view.ailing(sortedSlots)
        case .heal: return view.healing(sortedSlots)
        case .tidy: return view.tidied(following.rings)
        case .clean, .adopt, .wipe: return nil
        }
    }

    /// Whether the job has to do with planned steps, which wait for replicas that are cut off.
    var isPlanned: Bool {
        switch kind {
        case .lift, .clean, .note: false
        case .adopt, .wipe, .announce, .handOver, .endOverlap, .ail, .heal, .tidy: true
        }
    }

    /// Whether the job has ended with its first write.
    var endsOpened: Bool {
        switch kind {
        case .lift, .note, .tidy: true
        case .clean, .adopt, .wipe, .announce, .handOver, .endOverlap, .ail, .heal: false
        }
    }

    /// Whether the replicas that have to follow do, and have ended what they had sent before.
    func isFollowed(_ following: Following) -> Bool {
        switch kind {
        case .wipe, .adopt: following.isFollowed(since: epoch, by: .members)
        default:
            slots.keys.allSatisfy { following.isFollowed($0.range, since: epoch, by: isPlanned ? .members : .live) }
        }
    }

    /// Which stores have to be listed, given what was listed of them before the fence.
    func storesToList(_ following: Following, early: [StoreID: Listing]) -> Set<StoreID> {
        var stores: Set<StoreID> = []
        for slot in slots.keys {
            let entry = following.view.entry(slot)
            switch (kind, entry.step) {
            case (.announce, .announced(let to)): stores.formUnion([entry.own, to])
            case (.handOver, .copying(let to)):
                let isTouched = following.isTouched(slot.range)
                stores.formUnion([entry.own, to].filter { isTouched && $0 == entry.own || early[$0] == nil })
            case (.endOverlap, .ending(let backup, _)): stores.insert(backup)
            case (.clean, _): stores.insert(entry.own)
            default: break
            }
        }
        switch kind {
        case .wipe(let stray), .adopt(let stray): stores.insert(stray.store)
        case .ail(let store), .heal(let store): if listings[store] == nil { stores.insert(store) }
        default: break
        }
        return stores
    }

    /// Whose processes have to be the ones that the overlap began with, before their backups are wiped.
    func storesToAsk(_ following: Following) -> Set<StoreID> {
        kind == .endOverlap ? Set(slots.keys.map { following.view.entry($0).own }) : []
    }

    /// Whether an authoritative store has lost, by a restart, what its backup has: that must not be wiped.
    func needsBackup(_ following: Following) -> Bool {
        slots.keys.contains { slot in
            let entry = following.view.entry(slot)
            guard case .ending(_, let processes) = entry.step else { return false }
            return starts[entry.own] != processes.own
        }
    }

    /// The pushes, in waves.
    func waves(_ following: Following) -> [[Send]] {
        let (view, rings) = (following.view, following.rings)
        var waves: [[Send]] = [[], [], []]
        if case .wipe(let stray) = kind, let listing = listings[stray.store] {
            return [
                listing.removals(at: stray.store) { hash in
                    let slot = rings.slot(of: hash)
                    return view.isVoid(slot, at: stray.store) ? slot : nil
                }
            ]
        }
        if case .heal(let store) = kind, let listing = listings[store] {
            return [
                listing.remedies.compactMap { remedy in
                    let slot = rings.slot(of: remedy.key.hash)
                    guard slots[slot] != nil else { return nil }
                    let what: Send.What =
                        remedy.isPost ? .post(remedy.key, remedy.families) : .put(remedy.key, remedy.families)
                    return Send(store: store, what: what, slot: slot)
                }
            ]
        }
        let pairs = Dictionary(grouping: sortedSlots) { slot in
            let entry = view.entry(slot)
            return [entry.own.value, entry.step.other?.value ?? 0]
                + entry.predecessors.flatMap { [$0.store.value, $0.since] }
        }
        for slots in pairs.values.sorted(by: { $0[0] < $1[0] }) {
            let entry = view.entry(slots[0])
            let ours = Set(slots)
            let slot = { (hash: UInt32) -> Slot? in
                let slot = rings.slot(of: hash)
                return ours.contains(slot) ? slot : nil
            }
            switch (kind, entry.step) {
            case (.handOver, .copying(let to)):
                let equalizing = Equalizing(entry, target: to, adopting: view.adopting)
                let sends = equalizing.sends(listings[entry.own]!, listings[to]!, slot: slot)
                for index in waves.indices { waves[index] += sends[index] }
            case (.endOverlap, .wiping(let backup)):
                waves[0] += listings[backup]!.removals(at: backup, slot: slot)
            case (.clean, .unclean): waves[0] += listings[entry.own]!.removals(at: entry.own, slot: slot)
            default: break
            }
        }
        return waves.filter { !$0.isEmpty }
    }

    /// The register with which the job ends; nil where it ends without a write, or has failed.
    func closing(_ following: Following) -> Register? {
        switch kind {
        case .clean: return following.view.cleaning(sortedSlots)
        case .adopt(let stray):
            let found = Set(listings[stray.store]!.groups.keys.map { following.rings.slot(of: $0.hash) })
            let counting = found.filter { slot in
                // Of a store that has become dirty since, a slot that has changed hands may be dirt.
                let isPlain = !following.view.isDirty(stray.store) || following.view.entry(slot).changed <= stray.since
                return isPlain && !following.view.hasPart(slot, stray.store)
                    && following.view.entry(slot).own != stray.store
            }
            guard counting.allSatisfy({ following.view.entry($0).step.mayPrecede }) else { return nil }
            return following.view.adopted(stray, in: counting.sorted(), rings: following.rings)
        case .wipe(let stray):
            // What was not deleted because its authoritative store is down is still to go.
            let isWiped = listings[stray.store]!.groups.keys.allSatisfy { key in
                let slot = following.rings.slot(of: key.hash)
                return following.view.hasPart(slot, stray.store) || following.view.isVoid(slot, at: stray.store)
            }
            return isWiped ? following.view.wiped(stray) : nil
        case .handOver: return following.view.flipping(sortedSlots, starts: starts, rings: following.rings)
        case .endOverlap: return following.view.finishing(sortedSlots)
        case .heal: return following.view.healed(sortedSlots)
        case .lift, .note, .announce, .ail, .tidy: return nil
        }
    }
}

extension Register {
    /// Where a settled slot has to be handed over to now; nil where it stays, or waits for a predecessor.
    func destination(_ slot: Slot, _ rings: Rings) -> StoreID? {
        let entry = entry(slot)
        guard entry.step == .settled, !isDown(entry.own) else { return nil }
        if let newest = entry.predecessors.last?.store { return isDown(newest) ? nil : newest }
        guard let target = target(slot, rings), target != entry.own else { return nil }
        return isAdopting(target) || isDirty(target) ? nil : target
    }
}
