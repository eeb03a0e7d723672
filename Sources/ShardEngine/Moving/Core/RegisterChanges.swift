// What changes the register as a whole: a plan for another ring, a store that fails, returns, restarts or is given up,
// and forgetting what is at rest. `Mover` calls these, and `Failure` the first of those about stores.

extension Register {
    /// Whether another ring may be planned now; otherwise a little later.
    package var mayPlan: Bool { next == nil && !entries.values.contains { $0.step.isFence } }

    /// Moves to another ring from now on. One change of the ring at a time: the next waits until this one has ended.
    ///
    /// - Parameters:
    ///   - sightings: the stores of the next ring, each once, with their addresses and processes.
    ///   - unmarked: those of them that had no mark: what they hold was never under this register, and counts. Another
    ///     store that the register does not name has left before, and what it holds is void.
    ///   - rings: made of the ring in force and these stores.
    package func planning(_ sightings: [Store], unmarked: Set<StoreID>, vnodes: Int, rings: Rings) -> Register {
        precondition(mayPlan, "a ring is planned while another is moved to, or inside a fence")
        return changed { register in
            for sighting in sightings {
                if let index = register.stores.firstIndex(where: { $0.id == sighting.id }) {
                    register.stores[index].address = sighting.address
                } else {
                    register.stores.append(sighting)
                    if unmarked.contains(sighting.id) {
                        register.adopting.append(Stray(store: sighting.id, since: register.epoch))
                    } else {
                        register.markDirty(sighting.id)
                    }
                }
            }
            register.stores.sort { $0.id < $1.id }
            register.next = RingMembers(
                vnodes: vnodes,
                members: sightings.map { Member(address: $0.address, store: $0.id) }
            )
            // A slot that is cut in parts by the next ring leaves its entry to each of them.
            let old = register.entries
            register.entries = [:]
            for slot in rings.slots {
                var entry = old[Slot(range: slot.range, before: slot.before, after: slot.before)]
                entry?.rev = register.epoch
                register.entries[slot] = entry
            }
        }
    }

    /// What any store on the ring holds counts where the authoritative store lacks it, as in a first register: somebody has
    /// pushed past shardd, and wants it seen to.
    package func lookingAtEverything() -> Register {
        changed { register in
            for member in register.ring.members where !register.isAdopting(member.store) {
                register.adopting.append(Stray(store: member.store, since: register.epoch))
            }
        }
    }

    /// Begins with other stores, since every one that the register names has failed and has lost its file or is given up: no
    /// copy of anything is left. A ring that was being moved to could not be reached any more.
    ///
    /// - Parameters:
    ///   - sightings: the stores of the ring, each once.
    ///   - unmarked: those of them that had no mark.
    package func beginningAnew(_ sightings: [Store], unmarked: Set<StoreID>, vnodes: Int) -> Register {
        precondition(stores.allSatisfy { isDown($0.id) }, "it begins anew while a store of the register is in use")
        return changed { register in
            let members = sightings.map { Member(address: $0.address, store: $0.id) }
            let birth = register.birth
            register = Register(
                epoch: register.epoch,
                stores: sightings.sorted { $0.id < $1.id },
                ring: RingMembers(vnodes: vnodes, members: members)
            )
            register.birth = birth
            for store in register.stores {
                let stray = Stray(store: store.id, since: register.epoch)
                if unmarked.contains(store.id) { register.adopting.append(stray) } else { register.dirty.append(stray) }
            }
        }
    }

    /// Stores are reached at other addresses from now on; those of the ring stay until another one is planned.
    package func moving(_ addresses: [StoreID: String]) -> Register {
        changed { register in
            for index in register.stores.indices {
                if let address = addresses[register.stores[index].id] { register.stores[index].address = address }
            }
        }
    }

    // MARK: Failure

    /// The store has failed: the next one on the ring stands in for it in each of its slots (rule A4).
    ///
    /// - Parameters:
    ///   - backupStarts: the processes of backups, read just now; a backup with another one does not take over.
    ///   - since: the number that a replica without Consul has marked by, when it tells of its failover later.
    package func failingOver(
        _ store: StoreID,
        rings: Rings,
        backupStarts: [StoreID: StartTime],
        since: Epoch? = nil
    ) -> Register {
        changed { register in
            register.down = (register.down.filter { $0 != store } + [store]).sorted()
            // What it was sent and has not answered it may do late, also in slots that have done without it since.
            // Not where all that it holds may count.
            if !register.isAdopting(store) { register.markDirty(store) }
            for slot in rings.slots {
                let entry = register.entry(slot)
                guard entry.own == store || entry.step.other == store else { continue }
                register.losesOther(slot, store)
                if entry.own == store { register.losesOwn(slot, store, rings, backupStarts, since) }
            }
            // Slots may have waited for this one to be adopted.
            if register.isAdopting(store) { register.findStandIns(rings) }
        }
    }

    /// The slot goes on without the store that it was handed to, or that was its backup.
    private mutating func losesOther(_ slot: Slot, _ store: StoreID) {
        guard entry(slot).step.other == store else { return }
        edit(slot) { entry, _ in entry.step = .settled }
    }

    /// The backup takes over, which has everything; or another store stands in, and this one precedes it.
    private mutating func losesOwn(
        _ slot: Slot,
        _ store: StoreID,
        _ rings: Rings,
        _ backupStarts: [StoreID: StartTime],
        _ since: Epoch?
    ) {
        let entry = entry(slot)
        switch entry.step {
        case .overlapping(let backup, let processes), .ending(let backup, let processes):
            guard backupStarts[backup] == processes.backup else { break }
            return edit(slot) { entry, _ in (entry.own, entry.step) = (backup, .settled) }
        case .settled, .unclean, .announced, .copying, .wiping, .ailing, .healing: break
        }
        let former = entry.predecessors.map(\.store)
        let unequal: StoreID? = if case .announced = entry.step { nil } else { entry.step.other }
        func mayStandIn(_ other: StoreID) -> Bool { !isDown(other) && !former.contains(other) }
        let clean = rings.standIn(slot.range) { other in
            mayStandIn(other) && other != unequal && !isDirty(other) && !isAdopting(other)
        }
        // Of one that has yet to be adopted nobody knows whether it holds anything of the slot that counts: that is awaited.
        let mustWait = clean == nil && rings.standIn(slot.range) { mayStandIn($0) && isAdopting($0) } != nil
        guard !mustWait, let standIn = clean ?? rings.standIn(slot.range, where: mayStandIn) else {
            if case .announced = entry.step { edit(slot) { entry, _ in entry.step = .settled } }
            return
        }
        if let unequal, unequal != standIn, !former.contains(unequal) { markDirty(unequal) }
        // A store that had not been cleaned yet served nothing: what it holds does not count.
        if entry.step == .unclean { markDirty(store) }
        edit(slot) { entry, register in
            if entry.step != .unclean {
                entry.predecessors.append(Predecessor(store: store, since: since ?? register.epoch))
            }
            entry.step = clean == nil ? .unclean : .settled
            entry.own = standIn
        }
    }

    /// Stores stand in for those that have failed, where there has been none until now.
    mutating func findStandIns(_ rings: Rings) {
        for slot in rings.slots where isDown(entry(slot).own) { losesOwn(slot, entry(slot).own, rings, [:], nil) }
    }

    // MARK: Return

    /// The store answers again, and has answered a listing, so that its sockets are empty.
    ///
    /// It also stands in for stores that failed when there was no other.
    package func bringingBack(_ store: StoreID, start: StartTime, rings: Rings) -> Register {
        changed { register in
            precondition(register.isDown(store), "\(store) is brought back without having failed")
            register.down.removeAll { $0 == store }
            register.note(store, start: start)
            register.findStandIns(rings)
        }
    }

    /// The store has another process than the register knows, though nobody saw it fail.
    ///
    /// What it had not written to its file is gone: where a backup has everything, that takes over.
    func restarted(_ store: StoreID, start: StartTime) -> Register {
        changed { register in
            for (slot, entry) in register.entries.sorted(by: { $0.key < $1.key }) {
                guard case .overlapping(let backup, let processes) = entry.step else { continue }
                if entry.own == store, processes.own != start, register.store(backup)?.start == processes.backup {
                    register.edit(slot) { entry, _ in (entry.own, entry.step) = (backup, .settled) }
                } else if entry.own == store && processes.own != start || backup == store && processes.backup != start {
                    register.markDirty(backup)
                    register.edit(slot) { entry, _ in entry.step = .settled }
                }
            }
            register.note(store, start: start)
        }
    }

    /// A file that a process has started with may hold copies that were wiped after it was written.
    private mutating func note(_ store: StoreID, start: StartTime) {
        guard let index = stores.firstIndex(where: { $0.id == store }), stores[index].start != start else { return }
        stores[index].start = start
        markDirty(store)
    }

    /// The store does not come back, or has lost its file: nothing that it held counts any more.
    ///
    /// - Returns: nil where there is nothing to give up, or no store that could take its place.
    package func givingUp(_ store: StoreID, rings: Rings) -> Register? {
        precondition(isDown(store), "\(store) is given up without having failed")
        let result = changed { register in
            for slot in rings.slots {
                let entry = register.entry(slot)
                if entry.own == store, let heir = entry.predecessors.last(where: { !register.isDown($0.store) }) {
                    // What it has counts, whatever was to be done with the slot at the store that is given up.
                    if let other = entry.step.other, other != heir.store { register.markDirty(other) }
                    register.edit(slot) { entry, _ in
                        (entry.own, entry.step) = (heir.store, .settled)
                        entry.predecessors.removeAll { $0.store == heir.store }
                    }
                } else if entry.own == store, let standIn = rings.standIn(slot.range, where: { !register.isDown($0) }) {
                    // Nothing of the slot is left but what predecessors bring back, or what has yet to be adopted.
                    let isDirty = register.isDirty(standIn)
                    register.edit(slot) { entry, _ in
                        (entry.own, entry.step) = (standIn, isDirty ? .unclean : .settled)
                    }
                } else if entry.predecessors.contains(where: { $0.store == store }) {
                    register.edit(slot) { entry, _ in entry.predecessors.removeAll { $0.store == store } }
                }
            }
            register.adopting.removeAll { $0.store == store }
            register.markDirty(store)
        }
        return result.entries == entries && result.adopting == adopting ? nil : result
    }

    // MARK: Forgetting

    /// The register without what is at rest; nil where there is nothing to forget.
    func tidied(_ rings: Rings) -> Register? {
        let result = changed { register in
            while register.next != nil, register.frontier < rings.rangeCount, register.moveFrontier(rings) {}
            for (slot, entry) in register.entries where entry.step == .settled && entry.predecessors.isEmpty {
                if entry.own == register.restingOwner(slot) { register.entries[slot] = nil }
            }
            if register.next != nil, register.frontier == rings.rangeCount { register.finishRing(rings) }
            register.forgetStores(rings)
        }
        var unchanged = result
        unchanged.epoch = epoch
        return unchanged == self ? nil : result
    }

    /// Takes the frontier past one range, if its slots have arrived; whether it did.
    private mutating func moveFrontier(_ rings: Rings) -> Bool {
        let slots = rings.slots.filter { $0.range == frontier }
        guard slots.allSatisfy({ hasArrived($0, rings) }) else { return false }
        // A stand-in for an owner that is down does not rest there by the next ring.
        for slot in slots where entries[slot] == nil && slot.before != slot.after {
            entries[slot] = Entry(own: slot.before, rev: epoch)
        }
        frontier += 1
        return true
    }

    /// Whether the slot rests at its owner by the next ring, or at that one's stand-in.
    private func hasArrived(_ slot: Slot, _ rings: Rings) -> Bool {
        let entry = entry(slot)
        if slot.before == slot.after { return true }
        return entry.own == target(slot, rings) && entry.step == .settled && entry.predecessors.isEmpty
    }

    /// The next ring takes the place of the ring in force, unless slots that become one are not in the same state yet.
    private mutating func finishRing(_ rings: Rings) {
        guard let next else { preconditionFailure("there is no next ring") }
        var merged: [Slot: Entry] = [:]
        for slot in rings.slots {
            let place = Slot(range: slot.range, before: slot.after, after: slot.after)
            var entry = entry(slot)
            guard entry.step == .settled else { return }
            entry.rev = 0
            entry.changed = 0
            if let other = merged[place], other != entry { return }
            merged[place] = entry
        }
        let isResting = { (slot: Slot, entry: Entry) in entry == Entry(own: slot.after) }
        entries = merged.filter { !isResting($0.key, $0.value) }
        for slot in entries.keys { (entries[slot]!.changed, entries[slot]!.rev) = (epoch, epoch) }
        (ring, self.next, frontier) = (next, nil, 0)
    }

    /// Stores that have left the ring and have no part in anything.
    private mutating func forgetStores(_ rings: Rings) {
        var needed = Set((ring.members + (next?.members ?? [])).map(\.store))
        needed.formUnion(adopting.map(\.store))
        for stray in dirty where !isDown(stray.store) { needed.insert(stray.store) }
        for entry in entries.values {
            needed.insert(entry.own)
            needed.formUnion(entry.predecessors.map(\.store))
            if let other = entry.step.other { needed.insert(other) }
        }
        stores.removeAll { !needed.contains($0.id) }
        down.removeAll { !needed.contains($0) }
        dirty.removeAll { !needed.contains($0.store) }
    }
}
