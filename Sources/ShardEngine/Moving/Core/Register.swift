// The register: the one value that says which store is authoritative for every key, and what is being done about it.
//
// It is kept in Consul under one key and written by check-and-set alone, or in the memory of the only replica. Replicas
// read it through `Following`; `Mover` and `Failure` propose new values, which `RegisterChanges` and `RegisterSteps` make.
// At rest it has no entries.
//
// The invariants, by the names that the code, the simulator and the documents use:
//   I1  No acknowledged push is lost.
//   I2  What a PUT or DELETE removed does not come back.
//   I3  At rest each group is on one store, its owner.
//   I4  Every slot has exactly one authoritative store in every epoch, and nothing is deleted but void copies.
//   I5  While no shard is failing, the shards together show each live series, and never an older value after a newer one.
//   I6  A request waits for a mover only inside a fence, two seconds at most.
//   I7  Each step is safe beside the step before and after it on other replicas.
//   I8  At rest no shard is listed, and nothing is written to Consul but renewals of sessions.

/// What a store is known by: the id in its mark, which lives in its file. An address has no identity.
package struct StoreID: Hashable, Comparable, Sendable {
    package var value: UInt64

    package init(_ value: UInt64) { self.value = value }

    package static func < (left: StoreID, right: StoreID) -> Bool { left.value < right.value }
}

/// A number of the register; each change makes the next one.
package typealias Epoch = UInt64

/// When a Pushgateway's process started, as it tells it; compared for equality alone, so its clock does not matter.
package typealias StartTime = UInt64

/// The keys of one range of the hash that have the same owner on the ring in force and the same owner on the next ring.
package struct Slot: Hashable, Comparable, Sendable {
    package var range: UInt16
    package var before: StoreID
    package var after: StoreID

    package init(range: UInt16, before: StoreID, after: StoreID) {
        (self.range, self.before, self.after) = (range, before, after)
    }

    package static func < (left: Slot, right: Slot) -> Bool {
        (left.range, left.before, left.after) < (right.range, right.before, right.after)
    }
}

/// A store that was authoritative until it failed: what it holds counts only where the authoritative store lacks it. Or one
/// that held something that no register knew of: of that counts, too, what was pushed later than what the authoritative store has.
package struct Predecessor: Equatable, Sendable {
    package var store: StoreID
    /// Marks of this number or a greater one void what the store holds.
    package var since: Epoch
    /// Whether no register knew of what it holds.
    package var isAdopted: Bool

    package init(store: StoreID, since: Epoch, isAdopted: Bool = false) {
        (self.store, self.since, self.isAdopted) = (store, since, isAdopted)
    }
}

/// The processes of the authoritative store and of its backup when the backup was last known to be equal.
package struct Processes: Equatable, Sendable {
    package var own: StartTime
    package var backup: StartTime
}

/// What is being done with a slot.
package enum Step: Equatable, Sendable {
    /// Requests go to `own` alone.
    case settled
    /// `own` stands in for a failed store and may hold void copies: requests wait until they are wiped.
    case unclean
    /// The slot will be handed over; requests go to `own`, and each replica remembers what it touches from here on.
    case announced(to: StoreID)
    /// A fence: requests wait while `to` is given exactly what `own` has.
    case copying(to: StoreID)
    /// Requests go to `own`, then to the backup, which is kept equal, so that Prometheus may scrape either.
    case overlapping(backup: StoreID, Processes)
    /// A fence: requests wait until it is known that `own` still has everything; the backup still counts.
    case ending(backup: StoreID, Processes)
    /// A fence: requests wait while what the former backup holds, which is void, is wiped.
    case wiping(StoreID)
    /// Groups will be rewritten, on whichever store, as they fail the scrape of it; requests go to `own`, and each replica remembers
    /// what it touches from here on.
    case ailing
    /// A fence: requests wait while that is done.
    case healing

    /// Whether requests wait for the mover.
    package var isFence: Bool {
        switch self {
        case .copying, .ending, .wiping, .healing: true
        case .settled, .unclean, .announced, .overlapping, .ailing: false
        }
    }

    /// Whether a store that is adopted may come to precede the slot. An overlap may last until that has been: a store on its way
    /// out keeps its copies until it has handed over everything, to the store that is being adopted as well.
    var mayPrecede: Bool {
        switch self {
        case .settled, .overlapping: true
        case .unclean, .announced, .copying, .ending, .wiping, .ailing, .healing: false
        }
    }

    /// Whether groups of the slot may be rewritten next.
    var mayHeal: Bool {
        switch self {
        case .settled, .announced, .overlapping: true
        case .unclean, .copying, .ending, .wiping, .ailing, .healing: false
        }
    }

    /// The store that has all that `own` has.
    package var backup: StoreID? {
        switch self {
        case .overlapping(let store, _), .ending(let store, _): store
        case .settled, .unclean, .announced, .copying, .wiping, .ailing, .healing: nil
        }
    }

    /// The store beside `own` that may hold a copy because of this step.
    package var other: StoreID? {
        switch self {
        case .settled, .unclean, .ailing, .healing: nil
        case .announced(let store), .copying(let store), .wiping(let store): store
        case .overlapping(let store, _), .ending(let store, _): store
        }
    }
}

/// A slot that is not at rest.
package struct Entry: Equatable, Sendable {
    /// The authoritative store: only its answer acknowledges a push, and any other copy is void.
    package var own: StoreID
    /// The newest last.
    package var predecessors: [Predecessor] = []
    package var step = Step.settled
    /// The epoch of the last change of `own`, of the predecessors, or of whether `own` is clean.
    package var changed: Epoch = 0
    /// The epoch of the last change of anything; a mover goes by it, never by the content.
    package var rev: Epoch = 0
}

/// A store that may hold copies of slots in which it has no part.
package struct Stray: Equatable, Sendable {
    package var store: StoreID
    /// Since which epoch; what is found by an older epoch does not settle it.
    package var since: Epoch
}

/// A store, where it is, and which of its processes the register knows.
package struct Store: Equatable, Sendable {
    package var id: StoreID
    package var address: String
    package var start: StartTime

    package init(id: StoreID, address: String, start: StartTime) {
        self.id = id
        self.address = address
        self.start = start
    }
}

/// An address on a ring, and the store that it leads to. The ring hashes addresses; everything else goes by stores.
package struct Member: Hashable, Sendable {
    package var address: String
    package var store: StoreID

    package init(address: String, store: StoreID) { (self.address, self.store) = (address, store) }
}

/// What a ring is made from; `Rings` is made of it outside the core, by the hash of addresses.
package struct RingMembers: Hashable, Sendable {
    package var vnodes: Int
    /// Each store once, in ascending order of addresses.
    package var members: [Member]

    package init(vnodes: Int, members: [Member]) {
        precondition(Set(members.map(\.store)).count == members.count, "I4: a store is on the ring twice")
        self.vnodes = vnodes
        self.members = members.sorted { $0.address < $1.address }
    }

    /// The members by what discovery names: a store that is found at several addresses is on the ring once, by the first
    /// of them (rule A7).
    package init(vnodes: Int, found: [Member]) {
        var known: Set<StoreID> = []
        let first = found.sorted { $0.address < $1.address }.filter { known.insert($0.store).inserted }
        self.init(vnodes: vnodes, members: first)
    }
}

/// Who is authoritative for every key.
package struct Register: Equatable, Sendable {
    package internal(set) var epoch: Epoch
    /// The epoch of the first register of this line: another one has been lost, and what it knew with it.
    package internal(set) var birth: Epoch
    /// Every store that has a part in anything, in ascending order of ids.
    package internal(set) var stores: [Store]
    package internal(set) var ring: RingMembers
    /// The ring that is being moved to.
    package internal(set) var next: RingMembers?
    /// Slots of ranges below this one rest at their owner by the next ring, the others at that by the ring in force.
    package internal(set) var frontier: UInt16 = 0
    /// Stores that have failed, in ascending order.
    package internal(set) var down: [StoreID] = []
    /// Stores that were not on a ring before: what they hold counts where the authoritative store lacks it.
    package internal(set) var adopting: [Stray] = []
    /// Stores that may hold void copies.
    package internal(set) var dirty: [Stray] = []
    package internal(set) var entries: [Slot: Entry] = [:]

    /// The first register of a tier: what any store holds counts, wherever it is.
    ///
    /// - Parameter oldMarks: the greatest number of marks that the stores hold, left by a register that is gone. What they say
    ///   is about other failures, so the numbers of this one are greater.
    package init(stores: [Store], vnodes: Int, oldMarks: Epoch = 0) {
        (epoch, birth) = (oldMarks + 1, oldMarks + 1)
        self.stores = stores.sorted { $0.id < $1.id }
        ring = RingMembers(vnodes: vnodes, members: stores.map { Member(address: $0.address, store: $0.id) })
        adopting = self.stores.map { Stray(store: $0.id, since: oldMarks + 1) }
    }

    /// A register for a replica that moves nothing: whatever stores hold stays where it is.
    ///
    /// - Parameter absent: those of the stores that take nothing now: they are not on the ring, unless they are all.
    package init(resting stores: [Store], without absent: Set<StoreID> = [], vnodes: Int, epoch: Epoch) {
        let present = stores.filter { !absent.contains($0.id) }
        down = present.isEmpty ? stores.map(\.id).sorted() : []
        (self.epoch, birth) = (epoch, epoch)
        self.stores = stores.sorted { $0.id < $1.id }
        let members = present.isEmpty ? stores : present
        ring = RingMembers(vnodes: vnodes, members: members.map { Member(address: $0.address, store: $0.id) })
    }

    init(epoch: Epoch, stores: [Store], ring: RingMembers) {
        (self.epoch, birth, self.stores, self.ring) = (epoch, epoch, stores, ring)
    }
}

extension Register {
    /// Whether every request goes to its owner on the ring and nowhere else: all that the hot path asks.
    package var isSettled: Bool { entries.isEmpty && next == nil && down.isEmpty && adopting.isEmpty }

    /// Whether there is nothing to do for a mover.
    package var isAtRest: Bool { isSettled && dirty.isEmpty }

    /// How much of the register is not at rest: less means that a mover gets on.
    package var openCount: Int { entries.count + adopting.count + dirty.count + down.count + (next == nil ? 0 : 1) }

    /// The slot's entry, or what holds for a slot without one.
    package func entry(_ slot: Slot) -> Entry {
        entries[slot] ?? Entry(own: restingOwner(slot))
    }

    /// Who is authoritative for a slot without an entry.
    func restingOwner(_ slot: Slot) -> StoreID { slot.range < frontier ? slot.after : slot.before }

    package func isDown(_ store: StoreID) -> Bool { down.contains(store) }

    /// Whether the store is one of the register's that have not failed.
    func isInUse(_ id: StoreID) -> Bool { store(id) != nil && !isDown(id) }

    package func isDirty(_ store: StoreID) -> Bool { dirty.contains { $0.store == store } }

    package func isAdopting(_ store: StoreID) -> Bool { adopting.contains { $0.store == store } }

    package func store(_ id: StoreID) -> Store? { stores.first { $0.id == id } }

    /// Which number a PUT or DELETE marks its key with; nil where nothing of any predecessor could come back.
    package func markScope(_ entry: Entry) -> Epoch? {
        (entry.predecessors.map(\.since) + adopting.map(\.since)).max()
    }

    /// No mark with a smaller number voids anything, and none will: failures to come have greater numbers.
    var leastNeededMark: Epoch {
        let since = entries.values.flatMap { $0.predecessors.map(\.since) } + adopting.map(\.since)
        return since.min() ?? epoch + 1
    }

    /// The store that the slot belongs to while some stores are down; nil where all are.
    package func target(_ slot: Slot, _ rings: Rings) -> StoreID? {
        isDown(slot.after) ? rings.standIn(slot.range) { !isDown($0) } : slot.after
    }

    /// Whether the slot is not where it belongs, or another store has a part in it.
    func isOnItsWay(_ slot: Slot, _ rings: Rings) -> Bool {
        if next == nil, slot.before != slot.after { return false }
        let entry = entry(slot)
        return entry.step != .settled || !entry.predecessors.isEmpty || entry.own != target(slot, rings)
    }

    /// Whether anything that the store holds counts, or may count: if its file is lost, it has to be given up.
    package func hasPart(_ store: StoreID) -> Bool {
        isAdopting(store)
            || entries.values.contains { entry in
                entry.own == store || entry.predecessors.contains { $0.store == store }
            }
    }

    /// Whether the store is to stay in the ring, or anything that it holds counts. The copies of one that is on its way out and
    /// is needed no more are kept until nobody scrapes it, so discovery leaves it out from then on.
    package func isNeeded(_ store: StoreID, _ rings: Rings) -> Bool {
        if !isLeaving(store) || hasPart(store) { return true }
        return rings.slots.contains { restingOwner($0) == store && entries[$0] == nil }
    }

    /// Whether the store has no place on the ring that there will be.
    package func isLeaving(_ store: StoreID) -> Bool { !(next ?? ring).members.contains { $0.store == store } }

    /// Whether what the store holds of the slot counts, or may count.
    package func hasPart(_ slot: Slot, _ store: StoreID) -> Bool {
        let entry = entry(slot)
        if entry.predecessors.contains(where: { $0.store == store }) { return true }
        if entry.own == store { return entry.step != .unclean }
        switch entry.step {
        case .settled, .unclean, .announced, .copying, .wiping, .ailing, .healing: return false
        case .overlapping(let other, _), .ending(let other, _): return other == store
        }
    }

    /// Whether what the store holds of the slot may be rewritten there now; what is void there, too: it fails the scrape as well.
    func mayHeal(_ slot: Slot, at store: StoreID) -> Bool {
        let entry = entry(slot)
        return entry.step.mayHeal && !isDown(entry.own) && !isDown(store)
    }

    /// Whether what the store holds of the slot may be deleted there: rule A8, and the half of I4 about deletions.
    package func isVoid(_ slot: Slot, at store: StoreID) -> Bool {
        let entry = entry(slot)
        // What is announced may have been listed already.
        return !hasPart(slot, store) && !isDown(entry.own) && entry.step != .announced(to: store)
    }
}
