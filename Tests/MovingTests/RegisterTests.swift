import MovingCore
import Testing

private let a = StoreID(0xa)
private let b = StoreID(0xb)
private let c = StoreID(0xc)
private let d = StoreID(0xd)

private func store(_ id: StoreID) -> Store { Store(id: id, address: "10.0.0.\(id.value):9091", start: id.value * 100) }

/// Rings of one arc for each store, in their order, over equal parts of the keys.
private func map(_ stores: [StoreID]) -> RingMap {
    RingMap(stores.enumerated().map { (lastKey: UInt32((UInt64($0 + 1) << 32) / UInt64(stores.count) - 1), owner: $1) })
}

/// What is true of any register; the simulator sees to the rest.
@Suite struct RegisterTests {
    private let rings = Rings(before: map([a, b, c]))

    private var adopted: Register {
        var register = Register(stores: [a, b, c].map(store), vnodes: 500)
        for stray in register.adopting { register = register.adopted(stray, in: [], rings: rings) }
        return register
    }

    @Test func aFirstRegisterAdoptsWhatStoresHold() {
        let register = Register(stores: [a, b].map(store), vnodes: 500)
        #expect(register.adopting.map(\.store) == [a, b])
        #expect(!register.isSettled)
        #expect(register.markScope(register.entry(rings.slots[0])) == 1, "a DELETE voids what is not adopted yet")
    }

    @Test func marksOfAnOlderRegisterSayNothing() {
        let register = Register(stores: [a, b].map(store), vnodes: 500, oldMarks: 57)
        #expect(register.adopting.allSatisfy { $0.since > 57 })
        let failed = register.failingOver(a, rings: Rings(before: map([a, b])), backupStarts: [:])
        #expect(failed.entries.values.allSatisfy { $0.predecessors.allSatisfy { $0.since > 57 } })
    }

    @Test func aLineOfRegistersHasOneBirth() {
        let register = Register(stores: [a, b, c].map(store), vnodes: 500, oldMarks: 41)
        #expect(register.birth == 42)
        var failed = register
        for id in [a, b, c] { failed = failed.failingOver(id, rings: rings, backupStarts: [:]) }
        #expect(failed.birth == 42 && failed.epoch > 42)
        #expect(failed.beginningAnew([store(d)], unmarked: [d], vnodes: 500).birth == 42)
    }

    @Test func aStoreIsReachedAtAnotherAddressAndTheRingStays() {
        let moved = adopted.moving([b: "10.0.0.9:9091"])
        #expect(moved.store(b)?.address == "10.0.0.9:9091")
        #expect(moved.ring == adopted.ring && moved.entries == adopted.entries && moved.isSettled)
    }

    @Test func marksAreNeededAsLongAsAPredecessorOfTheirNumberIsAbsent() {
        let failed = adopted.failingOver(b, rings: rings, backupStarts: [:])
        let both = failed.failingOver(c, rings: rings, backupStarts: [:])
        #expect(Following(view: both, rings: rings).leastNeededMark == failed.epoch)
        #expect(Following(view: adopted, rings: rings).leastNeededMark == adopted.epoch + 1)
        let following = Following(view: both, rings: rings)
        for (isLive, epoch) in [(false, both.epoch), (true, both.epoch - 1)] {
            let peer = Peer(id: 2, isLive: isLive, note: Note(epoch: epoch))
            following.follow(both, rings: rings, peers: [peer])
            #expect(following.leastNeededMark == nil, "that replica may yet mark by an older number")
        }
    }

    @Test func aPushIsMadeAgainThatWasSentBeforeTheSessionEnded() {
        let slot = rings.slots[0]
        let hash = UInt32(slot.range) << 22
        let following = Following(view: adopted, rings: rings)
        var machine = RequestMachine(id: 1, hash: hash, .put)
        #expect(machine.resume(following) == .send(to: slot.before, .plain))
        // Whatever has become of the slot meanwhile, it looks as before now.
        following.beganSession()
        #expect(machine.ended(.done, following) == .send(to: slot.before, .plain))
        #expect(machine.ended(.done, following) == .answer)
    }

    @Test func aPutThatIsRefusedLeavesNoMark() {
        let hash: UInt32 = 0x8000_0000
        let failed = adopted.failingOver(b, rings: rings, backupStarts: [:])
        let following = Following(view: failed, rings: rings)
        following.hasConsul = false
        let own = failed.entry(rings.slot(of: hash)).own
        for result in [PushResult.done, .rejected] {
            var machine = RequestMachine(id: 1, hash: hash, .put)
            #expect(machine.resume(following) == .send(to: own, .tried))
            let next = machine.ended(result, following)
            #expect(next == (result == .done ? .send(to: own, .marked(failed.epoch)) : .answer))
            if result == .done { #expect(machine.ended(.done, following) == .answer) }
        }
        var delete = RequestMachine(id: 2, hash: hash, .delete)
        #expect(delete.resume(following) == .send(to: own, .marked(failed.epoch)), "no store refuses it")
    }

    @Test func aRegisterBeginsAnewWhenEveryStoreIsGone() {
        var register = adopted
        for store in [a, b, c] { register = register.failingOver(store, rings: rings, backupStarts: [:]) }
        let anew = register.beginningAnew([store(d)], unmarked: [d], vnodes: 500)
        #expect(anew.epoch == register.epoch + 1 && anew.entries.isEmpty && anew.down.isEmpty && anew.next == nil)
        #expect(anew.stores == [store(d)] && anew.adopting.map(\.store) == [d])
    }

    @Test func eachSlotHasOneOwnerAndEachKeyOneSlot() {
        let rings = Rings(before: map([a, b, c]), after: map([a, b, c, d]))
        #expect(Set(rings.slots).count == rings.slots.count)
        for hash in stride(from: UInt32(0), to: .max - 99_991, by: 99_991) {
            let slot = rings.slot(of: hash)
            #expect(rings.slots.contains(slot))
            #expect(slot.before == rings.before.owner(of: hash) && slot.after == rings.after.owner(of: hash))
        }
    }

    @Test func aFailedStoreIsReplacedInEachOfItsSlotsAndComesBack() {
        let failed = adopted.failingOver(b, rings: rings, backupStarts: [:])
        #expect(failed.entries.count == rings.slots.filter { $0.before == b }.count)
        for (slot, entry) in failed.entries {
            #expect(slot.before == b && entry.own != b)
            #expect(entry.predecessors == [Predecessor(store: b, since: failed.epoch)])
            #expect(entry.step == .settled)
            #expect(failed.markScope(entry) == failed.epoch)
            #expect(!failed.isVoid(slot, at: b), "what a predecessor holds counts")
        }
        let back = failed.bringingBack(b, start: 1100, rings: rings)
        #expect(back.down.isEmpty && back.isDirty(b), "it may have done late what it was sent, or read an old file")
    }

    /// Seed 35573216130 of `shuffle`: it did a push late, after what it held had been wiped.
    @Test func aStoreThatFailsAfterAnOverlapMayHoldVoidCopies() throws {
        let slot = try #require(rings.slots.first { $0.before == b })
        let ending = adopted.announcing([(slot, c)]).fencing([slot])
            .flipping([slot], starts: [b: 1100, c: 1200], rings: rings).fencing([slot])
        let ended = ending.voiding([slot]).finishing([slot])
        #expect(!ended.isDirty(b))
        #expect(ended.failingOver(b, rings: rings, backupStarts: [:]).isDirty(b))
    }

    @Test func aDirtyStoreStandsInLastAndIsCleanedFirst() {
        // c has failed and is back with another process, so it may hold void copies; then b fails.
        let dirty = adopted.failingOver(c, rings: rings, backupStarts: [:]).bringingBack(c, start: 1, rings: rings)
        let clean = dirty.failingOver(b, rings: rings, backupStarts: [:])
        for (slot, entry) in clean.entries where slot.before == b { #expect(entry.own == a && entry.step == .settled) }
        let none = clean.failingOver(a, rings: rings, backupStarts: [:])
        for (slot, entry) in none.entries where slot.before == a { #expect(entry.own == c && entry.step == .unclean) }
    }

    /// What one holds that has yet to be adopted may be all that there is of a group: pushes went there while there was no
    /// register. It is not wiped, and does not count before it is known.
    @Test func aStoreStandsInOnceItIsKnownWhatItHolds() throws {
        let slot = try #require(rings.slots.first { $0.before == b })
        let first = Register(stores: [a, b, c].map(store), vnodes: 500)
        let failed = first.failingOver(b, rings: rings, backupStarts: [:])
        #expect(failed.entry(slot).own == b && !failed.isDirty(b), "all that it holds may count")
        let holding = failed.adopted(try #require(failed.adopting.first { $0.store == a }), in: [slot], rings: rings)
        #expect(holding.entry(slot).own == b)
        let stray = try #require(holding.adopting.first { $0.store == c })
        let without = holding.adopted(stray, in: [], rings: rings).entry(slot)
        #expect(without.own == c && without.step == .settled && without.predecessors.map(\.store) == [a, b])
        let with = holding.adopted(stray, in: [slot], rings: rings).entry(slot)
        #expect(with.own == b && with.predecessors.map(\.store) == [a, c], "both hold something: b is awaited")
        let lost = try #require(failed.givingUp(b, rings: rings))
        #expect(lost.entries.values.allSatisfy { $0.step == .settled })
    }

    @Test func aBackupTakesOverOnlyWithTheProcessThatItHad() throws {
        let slot = try #require(rings.slots.first { $0.before == b })
        var overlapping = adopted.announcing([(slot, c)])
        overlapping = overlapping.fencing([slot]).flipping([slot], starts: [b: 1100, c: 1200], rings: rings)
        #expect(overlapping.entry(slot).own == c)
        let same = overlapping.failingOver(c, rings: rings, backupStarts: [b: 1100])
        #expect(same.entry(slot).own == b && same.entry(slot).predecessors.isEmpty)
        let other = overlapping.failingOver(c, rings: rings, backupStarts: [b: 1101])
        #expect(other.entry(slot).predecessors.map(\.store) == [c])
        #expect(other.isDirty(b), "what the backup has is not equal")
    }

    /// The overlap may wait for the adoption: its backup leaves, and has yet to hand other slots over to the store.
    @Test func aStoreIsAdoptedIntoAnOverlap() throws {
        let slot = try #require(rings.slots.first { $0.before == b })
        let overlapping = adopted.announcing([(slot, c)]).fencing([slot])
            .flipping([slot], starts: [b: 1100, c: 1200], rings: rings)
        let looking = overlapping.lookingAtEverything()
        let stray = try #require(looking.adopting.first { $0.store == a })
        let entry = looking.adopted(stray, in: [slot], rings: rings).entry(slot)
        #expect(entry.step.backup == b && entry.predecessors.map(\.store) == [a])
    }

    /// It stood in, and had not been cleaned yet: nothing of it counts, and everything of the one before.
    @Test func whoTakesTheSlotsOfAStoreThatWasGivenUpHasNothingToClean() throws {
        let dirty = adopted.failingOver(c, rings: rings, backupStarts: [:]).bringingBack(c, start: 1201, rings: rings)
        let slot = try #require(rings.slots.first { $0.before == b })
        var failed = dirty.failingOver(a, rings: rings, backupStarts: [:])
        failed = failed.failingOver(b, rings: rings, backupStarts: [:])
        #expect(failed.entry(slot).own == c && failed.entry(slot).step == .unclean)
        failed = failed.failingOver(c, rings: rings, backupStarts: [:]).bringingBack(b, start: 1101, rings: rings)
        let given = try #require(failed.givingUp(c, rings: rings))
        #expect(given.entry(slot).own == b && given.entry(slot).step == .settled)
    }

    @Test func aStoreThatLeavesIsNeededUntilNothingThatItHoldsCounts() {
        let rings = Rings(before: map([a, b, c]), after: map([a, b]))
        var register = adopted.planning([a, b].map(store), unmarked: [], vnodes: 500, rings: rings)
        #expect(register.isNeeded(c, rings) && register.isLeaving(c) && !register.isLeaving(b))
        for slot in rings.slots where slot.before != slot.after {
            #expect(register.isNeeded(c, rings) || slot.before != c, "it has \(slot) still")
            register = register.announcing([(slot, slot.after)]).fencing([slot])
            register = register.flipping([slot], starts: [a: 1000, b: 1100, c: 1200], rings: rings)
        }
        #expect(!register.isNeeded(c, rings), "what it holds are copies")
        #expect(register.isNeeded(a, rings), "it is on the ring")
        let isNeededAgain = register.failingOver(b, rings: rings, backupStarts: [c: 1200]).isNeeded(c, rings)
        #expect(isNeededAgain, "it is authoritative again, for what it was the backup of")
    }

    @Test func copiesOnAStoreThatLeavesStayUntilDiscoveryHasDroppedIt() {
        let rings = Rings(before: map([a, b, c]), after: RingMap([(lastKey: .max / 3, owner: a), (.max, b)]))
        var register = adopted.planning([a, b].map(store), unmarked: [], vnodes: 500, rings: rings)
        let moving = rings.slots.filter { $0.before == c }
        func move(_ slots: some Sequence<Slot>) {
            for slot in slots {
                if register.entry(slot).step == .settled { register = register.announcing([(slot, b)]) }
                register = register.fencing([slot]).flipping([slot], starts: [b: 1100, c: 1200], rings: rings)
            }
        }
        /// Whether the mover begins to end overlaps; what else it writes is written.
        func endsOverlap(_ mover: inout Mover, at now: Milliseconds) -> Bool {
            var actions = mover.handle(.tick, Following(view: register, rings: rings), now: now)
            while case .write(let job, let written)? = actions.first {
                if written.entries.values.contains(where: { if case .ending = $0.step { true } else { false } }) {
                    return true
                }
                register = written
                actions = mover.handle(
                    .wrote(job: job, true),
                    Following(view: register, rings: rings),
                    now: now
                )
            }
            return false
        }
        move(moving.dropLast())
        var settings = MoverSettings()
        settings.overlap = 0
        var hasty = Mover(settings: settings)
        #expect(!endsOverlap(&hasty, at: 0) && hasty.isBusy, "one slot has yet to be moved")
        move(moving.suffix(1))
        settings.overlap = 1000
        var mover = Mover(settings: settings)
        mover.stillNamed = [c]
        #expect(!endsOverlap(&mover, at: 0))
        #expect(!endsOverlap(&mover, at: 2000), "discovery names it still")
        mover.stillNamed = []
        #expect(!endsOverlap(&mover, at: 3000))
        #expect(!endsOverlap(&mover, at: 3999))
        #expect(endsOverlap(&mover, at: 4000))
    }

    @Test func aStoreIsOnTheRingOnceByItsFirstAddress() {
        let found = [
            Member(address: "z:1", store: a), Member(address: "b:1", store: a), Member(address: "c:1", store: b),
        ]
        #expect(RingMembers(vnodes: 1, found: found).members == [found[1], found[2]])
    }

    @Test func aStoreThatWasGivenUpCountsNoMore() throws {
        let failed = adopted.failingOver(b, rings: rings, backupStarts: [:])
        let given = try #require(failed.givingUp(b, rings: rings))
        #expect(given.givingUp(b, rings: rings) == nil, "there is nothing more of it to give up")
        #expect(given.entries.values.allSatisfy { $0.predecessors.isEmpty && $0.own != b })
        #expect(given.isDirty(b), "if it comes back, it is wiped")
    }

    @Test func noStoreIsGivenUpWhileNoneCouldTakeItsPlace() {
        var failed = adopted
        for id in [b, c, a] { failed = failed.failingOver(id, rings: rings, backupStarts: [:]) }
        #expect(failed.givingUp(a, rings: rings) == nil, "it is the last one")
    }
}

/// Impossible transitions trap.
@Suite struct TrapTests {
    @Test func aFenceNeedsAnAnnouncement() async {
        await #expect(processExitsWith: .failure) {
            let slot = Slot(range: 0, before: StoreID(1), after: StoreID(1))
            _ = Register(stores: [Store(id: StoreID(1), address: "a:1", start: 1)], vnodes: 1).fencing([slot])
        }
    }

    @Test func aStoreIsNotTwiceOnARing() async {
        await #expect(processExitsWith: .failure) {
            let twice = [Member(address: "a:1", store: StoreID(1)), Member(address: "b:1", store: StoreID(1))]
            _ = RingMembers(vnodes: 1, members: twice)
        }
    }
}
