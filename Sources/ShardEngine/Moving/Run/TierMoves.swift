// How the tier carries out what the mover says: listings, pushes and writes, and what it counts of them.
import Logging
import MovingCore

extension Tier {
    // MARK: Moving

    /// Tells the mover what has happened, and carries out what it says.
    func tell(_ event: MoverEvent) {
        guard mover != nil, let following, following.markedSince == nil else { return }
        for action in mover?.handle(event, following, now: now) ?? [] { perform(action) }
    }

    /// The same, of what a mover has asked for; nothing where it has been dropped since, though there may be another one, whose
    /// jobs have the same numbers.
    private func tell(_ event: MoverEvent, askedIn term: Int) {
        if term == moverTerm { tell(event) }
    }

    func perform(_ action: MoverAction) {
        let term = moverTerm
        switch action {
        case .list(let job, let store, let isToHeal):
            list(store, toHeal: isToHeal ? look(at: store) : nil) { [unowned self] listing in
                if let listing, isToHeal { heals.keep(listing, of: store) }
                if listing != nil { return tell(.listed(job: job, store, listing), askedIn: term) }
                readStart(store) { [unowned self] start in
                    let isThere = start != nil
                    tell(isThere ? .unlistable(job: job, store) : .listed(job: job, store, nil), askedIn: term)
                }
            }
        case .readStart(let job, let store):
            readStart(store) { [unowned self] in tell(.started(job: job, store, $0), askedIn: term) }
        case .rewrite(let job, let send):
            rewrite(send) { [unowned self] in tell(.pushed(job: job, send, $0), askedIn: term) }
        case .push(let job, let send):
            push(send) { [unowned self] in tell(.pushed(job: job, send, $0), askedIn: term) }
        case .write(let job, let register):
            write(register) { [unowned self] in tell(.wrote(job: job, $0), askedIn: term) }
        case .failOver(let store):
            fail(store, "it did not answer while groups were moved")
        case .wake(let time):
            if let wokenAt, wokenAt > now, wokenAt <= time { return }
            wokenAt = time
            wake?.schedule(after: .milliseconds(UInt64(max(1, time - now))))
        }
    }

    /// Marks stores that have been taken in as members, and deletes groups of marks that nothing needs any more.
    func seeToMarks() {
        guard mover != nil, let following else { return }
        let birth = following.view.birthName
        for (address, identity) in members.unmarkedMembers(following.view) where marking.insert(address).inserted {
            stores.markMember(identity, birth: birth, at: address) { [unowned self] isDone in
                marking.remove(address)
                if isDone { onMember(address, birth) }
            }
        }
        let view = following.view
        let numbers = view.adopting.map(\.since) + view.entries.values.flatMap { $0.predecessors.map(\.since) }
        let least = following.leastNeededMark
        for store in view.stores where !view.isDown(store.id) {
            guard let address = members.address(of: store.id, view) else { continue }
            stores.expectMarks(Set(numbers), at: address)
            guard let least, stores.mayHaveMarks(below: least, at: address) else { continue }
            guard deletingMarks.insert(address).inserted else { continue }
            stores.deleteMarks(below: least, at: address) { [unowned self] _, _ in deletingMarks.remove(address) }
        }
    }

    func list(_ store: StoreID, toHeal look: HealingLook?, _ done: @escaping (Listing?) -> Void) {
        guard let address = members.address(of: store, following?.view) else { return loop.park { done(nil) } }
        counts.listings += 1
        stores.list(address, toHeal: look) { [unowned self] listing, reason in
            if let reason {
                counts.runs[.failed, default: 0] += 1
                logger.warning("shard cannot be listed", metadata: ["shard": "\(address)", "reason": "\(reason)"])
            }
            if let listing, look == nil { listed[store] = Set(listing.groups.keys.map(\.hash)) }
            done(listing)
        }
    }

    func readStart(_ store: StoreID, _ done: @escaping (StartTime?) -> Void) {
        guard let address = members.address(of: store, following?.view) else { return loop.park { done(nil) } }
        stores.readStart(address, done)
    }

    func push(_ send: Send, _ done: @escaping (PushResult) -> Void) {
        guard let address = members.address(of: send.store, following?.view) else {
            return loop.park { done(.refused) }
        }
        stores.push(send, at: address) { [unowned self] result, reason in
            if let group = counts.note(send, result, reason) {
                logger.warning(
                    "a group cannot be moved",
                    metadata: ["group": "\(group.shown)", "shard": "\(address)", "reason": "\(reason ?? "")"]
                )
            }
            done(result)
        }
    }
}
