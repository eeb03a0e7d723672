// Which job the mover takes up next: what requests wait for first, what may be left for later last.

extension Mover {
    /// A store has told its process to a probe or to a job, or has not answered.
    mutating func note(_ store: StoreID, _ start: StartTime?, _ now: Milliseconds) {
        guard let start else {
            answering[store] = nil
            return
        }
        if answering[store]?.start != start { answering[store] = (start, now) }
    }

    /// The next job; nil where there is nothing to do now, with a wish to be woken where there will be.
    mutating func pick(_ following: Following, _ now: Milliseconds, _ actions: inout [MoverAction]) -> MoverJob? {
        let view = following.view
        if view.isAtRest, ailing.isEmpty,
            answering.allSatisfy({ id, answer in view.store(id).map { $0.start == answer.start } ?? true })
        {
            early = ([:], [:], [:])
            return nil
        }
        var wakes: [Milliseconds] = []
        defer { if let first = wakes.min() { actions.append(.wake(at: first)) } }

        let fenced = slots(view) { $0.step.isFence && !unanswered.contains($0.own) }
        // What ails is healed by the mover that has listed it, or not.
        let undiagnosed = slots(view) { $0.step == .ailing }.filter { diagnosis?.slots[$0] != view.entry($0).rev }
        let left = fenced + undiagnosed
        if !left.isEmpty {
            var lift = job(.lift, left, view)
            lift.unused = Set(left.filter { unused[$0] == view.entry($0).rev })
            return lift
        }
        let cleanable = slots(view) {
            $0.step == .unclean && !view.isDown($0.own) && !unanswered.contains($0.own)
        }
        let unclean = cleanable.filter { isReady($0, now, &wakes) }
        if !unclean.isEmpty { return job(.clean, unclean, view) }
        if let (store, start) = returned(view, now, &wakes) { return job(.note(store, start), [], view) }
        guard following.hasAllMembers else { return nil }
        if let heal = heal(following, now, &wakes) { return heal }
        for stray in view.adopting where !view.isDown(stray.store) && isReady(stray.store, now, &wakes) {
            return job(.adopt(stray), [], view)
        }
        for stray in view.dirty where !view.isDown(stray.store) && !view.isAdopting(stray.store) {
            if isReady(stray.store, now, &wakes), hasAnswered(stray.store, now, &wakes) {
                return job(.wipe(stray), [], view)
            }
        }
        let tidied = view.tidied(following.rings) != nil
        if tidied, following.isFollowed(since: view.epoch, by: .members) { return job(.tidy, [], view) }
        return handOver(following, now, &wakes)
    }

    /// What the store holds is rewritten where the scrape of that store fails, before anything else is moved: what cannot be scraped
    /// cannot be listed as a whole either.
    private mutating func heal(
        _ following: Following,
        _ now: Milliseconds,
        _ wakes: inout [Milliseconds]
    ) -> MoverJob? {
        let view = following.view
        if let known = diagnosis {
            diagnosis = nil
            let slots = known.slots.filter { slot, rev in
                view.entry(slot).rev == rev && !view.isDown(view.entry(slot).own)
            }
            if !slots.isEmpty, !view.isDown(known.store) {
                var heal = job(.heal(known.store), slots.keys.sorted(), view)
                heal.listings = [known.store: known.listing]
                return heal
            }
        }
        for (store, hashes) in ailing.sorted(by: { $0.key < $1.key }) where !view.isDown(store) {
            let healable = Set(hashes.map { following.rings.slot(of: $0) }).filter { view.mayHeal($0, at: store) }
            let ready = healable.sorted().filter { isReady($0, now, &wakes) }
            if ready.isEmpty, !healable.isEmpty { continue }
            ailing[store] = nil
            if !ready.isEmpty { return job(.ail(store), ready, view) }
        }
        return nil
    }

    private mutating func handOver(
        _ following: Following,
        _ now: Milliseconds,
        _ wakes: inout [Milliseconds]
    ) -> MoverJob? {
        let view = following.view
        let announced = slots(view) { entry in
            guard case .announced(let to) = entry.step else { return false }
            return !view.isDown(to) && !view.isDown(entry.own)
        }
        let ready = announced.filter { slot in
            isReady(slot, now, &wakes) && hasAnswered(view.entry(slot).step.other!, now, &wakes)
        }
        if let first = ready.first, now >= paced {
            let ofOneStore = ready.filter { view.entry($0).own == view.entry(first).own }
            return job(.handOver, batch(ofOneStore), view)
        }
        let window = window(following)
        let kept = keptBackups(following, window)
        let due = slots(view) { if case .overlapping = $0.step { !view.isDown($0.own) } else { false } }
            .filter { isOver($0, view.entry($0), kept, now, &wakes) && isReady($0, now, &wakes) }
        if let first = due.first {
            let ofOneStore = due.filter { view.entry($0).step.backup == view.entry(first).step.backup }
            return job(.endOverlap, batch(ofOneStore), view)
        }
        if !ready.isEmpty {
            wakes.append(paced)
            return nil
        }
        let leaving = following.rings.slots.filter { slot in
            isInWindow(slot, window) && view.destination(slot, following.rings) != nil
        }
        let announceable = leaving.filter { isReady($0, now, &wakes) }
        return announceable.isEmpty ? nil : job(.announce, announceable, view)
    }

    /// As many slots as have about `groupsAtOnce` groups by the listing before the fence. The caller gives those of one store,
    /// which may have to be listed while requests wait: several at a time take longer.
    private func batch(_ slots: [Slot]) -> [Slot] {
        var groups = 0
        return Array(
            slots.prefix { slot in
                groups += max(1, early.groups[slot] ?? 1)
                return groups <= settings.groupsAtOnce || slot == slots[0]
            }
        )
    }

    /// The first range whose slots have to wait for others to arrive.
    private func window(_ following: Following) -> Int {
        let moving = following.rings.slots.count { $0.before != $0.after }
        let perRange = max(1, moving / Int(following.rings.rangeCount))
        return Int(following.view.frontier) + max(1, settings.slotsAtOnce / perRange)
    }

    /// Whether the slot may go to another store now.
    private func isInWindow(_ slot: Slot, _ window: Int) -> Bool {
        slot.before == slot.after || Int(slot.range) < window
    }

    /// Backups whose overlaps have yet to begin: they are on their way out and still in discovery, which they leave before any of
    /// their copies goes. What cannot be moved before those copies have gone, as too much is on its way, is not waited for.
    private func keptBackups(_ following: Following, _ window: Int) -> Set<StoreID> {
        let view = following.view
        let leaving = Set(view.entries.values.compactMap(\.step.backup)).filter { view.isLeaving($0) }
        return leaving.filter { store in
            let servesInWindow =
                view.entries.contains { slot, entry in
                    isInWindow(slot, window)
                        && (entry.own == store || entry.predecessors.contains { $0.store == store })
                }
                || following.rings.slots.contains { slot in
                    view.restingOwner(slot) == store && isInWindow(slot, window) && view.entries[slot] == nil
                }
            return servesInWindow || stillNamed.contains(store) && !view.isNeeded(store, following.rings)
        }
    }

    /// A store that answers again for long enough, or with another process than the register knows.
    private mutating func returned(
        _ view: Register,
        _ now: Milliseconds,
        _ wakes: inout [Milliseconds]
    ) -> (StoreID, StartTime)? {
        for (id, answer) in answering.sorted(by: { $0.key < $1.key }) {
            guard let store = view.store(id) else { continue }
            if !view.isDown(id), store.start != answer.start { return (id, answer.start) }
            guard view.isDown(id) else { continue }
            let last = returns[id]
            let isSoon = last.map { now - $0.at < 60 * settings.returnDelay } ?? false
            let count = isSoon ? last!.count : 0
            let ready = answer.since + settings.returnDelay << min(count, 5)
            if now >= ready {
                returns[id] = (count + 1, now)
                return (id, answer.start)
            }
            wakes.append(ready)
        }
        return nil
    }

    private mutating func isOver(
        _ slot: Slot,
        _ entry: Entry,
        _ kept: Set<StoreID>,
        _ now: Milliseconds,
        _ wakes: inout [Milliseconds]
    ) -> Bool {
        if let backup = entry.step.backup, kept.contains(backup) {
            overlapSeen[slot] = nil
            return false
        }
        if overlapSeen[slot]?.rev != entry.rev { overlapSeen[slot] = (entry.rev, now) }
        let end = overlapSeen[slot]!.at + settings.overlap
        if now < end { wakes.append(end) }
        return now >= end
    }

    private func isReady(_ slot: Slot, _ now: Milliseconds, _ wakes: inout [Milliseconds]) -> Bool {
        guard let time = resting.slots[slot], now < time else { return true }
        wakes.append(time)
        return false
    }

    private func isReady(_ store: StoreID, _ now: Milliseconds, _ wakes: inout [Milliseconds]) -> Bool {
        guard let time = resting.stores[store], now < time else { return true }
        wakes.append(time)
        return false
    }

    /// Whether the store has answered this mover's probes for the return delay: what the mover before it had sent is done.
    private func hasAnswered(_ store: StoreID, _ now: Milliseconds, _ wakes: inout [Milliseconds]) -> Bool {
        guard let answer = answering[store] else { return false }
        let time = answer.since + settings.returnDelay
        if now < time { wakes.append(time) }
        return now >= time
    }

    private func slots(_ view: Register, where holds: (Entry) -> Bool) -> [Slot] {
        view.entries.filter { holds($0.value) }.keys.sorted()
    }

    private mutating func job(_ kind: JobKind, _ slots: [Slot], _ view: Register) -> MoverJob {
        lastNumber += 1
        return MoverJob(kind, number: lastNumber, slots: slots, view: view)
    }
}
