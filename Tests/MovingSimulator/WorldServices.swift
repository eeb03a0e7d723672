// What the world does for replicas beside the network: it keeps the record of pushes, executes them, and sees to the membership.
import MovingCore

extension World {
    static func hash(of key: Int) -> UInt32 { UInt32(truncatingIfNeeded: UInt64(key * 2 + 1) << 32 / 12) }

    var moverSettings: MoverSettings {
        var settings = MoverSettings()
        settings.overlap = 3000
        settings.returnDelay = without.contains(.returnDelay) ? 0 : 300
        settings.retryDelay = 200
        settings.groupsAtOnce = 2
        settings.pushesAtOnce = 2
        settings.slotsAtOnce = scenario.seed % 3 == 0 ? 6 : 4000
        return settings
    }

    // MARK: Clients and discovery

    /// A client's push.
    func push(_ what: Happening) {
        switch what {
        case .push(let method, let key, let families, let replica):
            guard scenario.isConcurrent || activeKeys[key] == 0 else { return }
            replicas[replica].receive(newPush(method, key, families))
        case .wrongPush(let method, let key, let families, let replica):
            let push = newPush(method, key, families)
            push.isWrong = true
            replicas[replica].receive(push)
        case .pushAndLeave(let method, let key, let families, let replica):
            replicas[replica].receive(newPush(method, key, families), isAbandoned: true)
        case .pushUntilTaken(let method, let key, let families, let replica):
            let push = newPush(method, key, families)
            replicas[replica].receive(push)
            tryAgain(push, what: .pushUntilTaken(method, key: key, families: families, replica: 1 - min(replica, 1)))
        default: preconditionFailure("\(what) is no push")
        }
    }

    private func newPush(_ method: PushMethod, _ key: Int, _ families: [Int]) -> Push {
        pushCount += 1
        return Push(number: pushCount, method: method, key: key, families: families, began: now)
    }

    /// Has the client see, now and then, what has become of its push.
    private func tryAgain(_ push: Push, what: Happening) {
        fails("client", for: 20) { [unowned self] in
            if push.ended == nil { tryAgain(push, what: what) } else if !push.isAcknowledged { happen(what) }
        }
    }

    /// What discovery names changes.
    func discover(_ what: Happening) {
        switch what {
        case .secondName(let store):
            log { "discovery names \(stores[store].name) by a second address" }
            secondNames.insert(store)
        case .handOn(let from, let to):
            log { "\(stores[from].name) moves to another address, and \(stores[to].name) to the one that it had" }
            addresses[stores[to].name] = address(stores[from])
            addresses[stores[from].name] = stores[from].name + "9"
        case .ring(let stores, let renamed):
            log { "discovery names \(stores.map { self.stores[$0].name })\(renamed ? " by other addresses" : "")" }
            wanted = stores
            wantedBy = [:]
            if renamed { isRenamed.toggle() }
        case .ringSeen(let replica, let stores):
            log { "R\(replica) reads the membership as \(stores.map { self.stores[$0].name })" }
            wantedBy[replica] = stores
        default: preconditionFailure("\(what) is no change of the membership")
        }
    }

    // MARK: Pushes

    func began(_ push: Push) {
        if !push.isWrong { oracle.began(push) }
        pushes[push.number] = push
        activeKeys[push.key] += 1
    }

    func ended(_ push: Push, isAcknowledged: Bool, by store: StoreID? = nil) {
        guard push.ended == nil else { return }
        (push.ended, push.acknowledgedBy) = (now, store)
        push.isAcknowledged = isAcknowledged && !push.isAbandoned
        activeKeys[push.key] -= 1
        oracle.changed(push.key)
        log { "\(push.text) is \(isAcknowledged ? "acknowledged" : "not acknowledged")" }
    }

    func execute(_ push: Push, _ form: PushForm, at store: SimulatedStore, markScope: Epoch?) {
        if !push.isWrong { take(push, form, at: store) }
        if chance.happens(50) { persist(store) }
        if let markScope { store.mark(push.key, markScope) }
        persist(store)
        let what = push.isWrong ? "refused" : form == .tried ? "tried" : "done"
        log { "  \(push.text) is \(what) at \(store.name)\(markScope.map { ", marked \($0)" } ?? "")" }
    }

    private func take(_ push: Push, _ form: PushForm, at store: SimulatedStore) {
        switch push.method {
        case .put where form != .tried: store.put(push.key, push.families)
        case .put, .post: store.post(push.key, push.families)
        case .delete: store.delete(push.key)
        }
        push.done[store.id] = now
        if push.isTaken(by: store.id, at: now) { oracle.changed(push.key) }
        let slot = rings(for: consul.register).slot(of: keys[push.key].hash)
        // Nobody can tell it from a push that a client has just made.
        if isArriving, consul.register.entry(slot).own == store.id { push.arrived = now }
    }

    /// A push of the mover.
    func push(_ send: Send, by replica: Replica, done: @escaping (PushResult) -> Void) {
        if let time = hangsWithMerge, case .post = send.what {
            hangsWithMerge = nil
            happen(.hang(store: stores.firstIndex { $0.id == send.store }!, for: time))
        }
        call(replica, send.store, within: 800, delay: chance.between(1, scenario.pushDelay)) {
            [unowned self] store -> PushResult in
            if refusesCopies(store), case .put = send.what { return .rejected }
            note(send.what, at: store)
            store.execute(send.what)
            persist(store)
            log { "  done at \(store.name): \(text(send))" }
            return .done
        } done: { reply in
            switch reply {
            case .answered(let result): done(result)
            case .refused: done(.refused)
            case .late: done(.late)
            }
        }
    }

    /// Where values are, for what a store's loss forgives.
    private func note(_ what: Send.What, at store: SimulatedStore) {
        switch what {
        case .put(_, let families), .post(_, let families):
            for family in families {
                pushes[Int(family.content[0]) | Int(family.content[1]) << 8]?.done[store.id] = now
            }
        case .delete(let key):
            let first = Int(key.text)! * 3
            for value in store.content.values[first..<first + 3] { pushes[value]?.done[store.id] = nil }
        case .mark: break
        }
    }

    func text(_ send: Send) -> String {
        let what =
            switch send.what {
            case .put(let key, let families): "PUT group \(key.text) with \(families.map(text))"
            case .post(let key, let families): "POST group \(key.text) with \(families.map(text))"
            case .delete(let key): "DELETE group \(key.text)"
            case .mark(let mark, let scope): "mark group \(mark.digest) with \(scope)"
            }
        return "\(what) at \(name(send.store))"
    }

    private func text(_ family: Family) -> String {
        "\(family.name)=\(Int(family.content[0]) | Int(family.content[1]) << 8)"
    }

    /// Has each group written again as it is listed: whatever was pushed between the listing and this would be lost.
    func withRewritings(_ listing: Listing) -> Listing {
        var listing = listing
        listing.remedies = listing.groups.sorted { $0.key < $1.key }.map { key, group in
            Remedy(key: key, families: group.families, isPost: chance.happens(300))
        }
        return listing
    }

    // MARK: Lies of left-out rules

    func backupStart(_ start: StartTime?, _ backup: StoreID, _ following: Following) -> StartTime? {
        if without.contains(.backups) { return nil }
        guard without.contains(.processesOfBackups) else { return start }
        for entry in following.view.entries.values {
            if case .overlapping(backup, let processes) = entry.step { return processes.backup }
        }
        return start
    }

    /// A listing as the core is told it.
    func seen(_ listing: Listing, of store: StoreID, by replica: Replica) -> Listing {
        guard let entries = replica.following?.view.entries.values else { return listing }
        var seen = listing
        if without.contains(.merging), entries.contains(where: { $0.predecessors.contains { $0.store == store } }) {
            seen.groups = [:]
        }
        if without.contains(.cleaning), entries.contains(where: { $0.own == store && $0.step == .unclean }) {
            seen.groups = [:]
        }
        if without.contains(.adopting), replica.following!.view.isAdopting(store) { seen.groups = [:] }
        return seen
    }

    /// Groups that clients have pushed before, each to some store.
    func addOldGroups() {
        for key in 0..<World.keyCount where chance.happens(500) {
            pushCount += 1
            let push = Push(number: pushCount, method: .put, key: key, families: [0, 1], began: -2)
            (push.ended, push.isAcknowledged) = (-1, true)
            let store = stores[scenario.ring[chance.below(scenario.ring.count)]]
            add(push, to: store)
        }
    }

    /// A store that is not on the ring yet holds every group.
    func addGroups(to index: Int) {
        for key in 0..<World.keyCount {
            pushCount += 1
            let push = Push(number: pushCount, method: .put, key: key, families: [0, 1, 2], began: -2)
            (push.ended, push.isAcknowledged) = (-1, true)
            add(push, to: stores[index])
        }
    }

    private func add(_ push: Push, to store: SimulatedStore) {
        oracle.began(push)
        pushes[push.number] = push
        store.put(push.key, push.families)
        push.done[store.id] = 0
        store.file = store.content
    }

    func listedStart(_ store: StoreID, _ replica: Replica) -> StartTime? { replica.lastListed[store] }

    // MARK: Membership

    /// What a shell does with what discovery names: it identifies the stores, and plans a ring where it is another.
    func seeToMembership(_ replica: Replica) {
        guard let following = replica.following, following.hasConsul else { return }
        let view = following.view
        for gone in view.down where !stores.contains(where: { $0.id == gone }) && view.hasPart(gone) {
            if view.givingUp(gone, rings: following.rings) != nil { return replica.giveUp(gone) }
        }
        let isNothingLeft = view.stores.allSatisfy { known in
            view.isDown(known.id) && !stores.contains { $0.id == known.id }
        }
        guard view.mayPlan || isNothingLeft, let sightings = sightings(replica, view) else { return }
        let unmarked = Set(stores.filter { !$0.isMarked }.map(\.id))
        let planned: Register
        if isNothingLeft {
            planned = view.beginningAnew(sightings, unmarked: unmarked, vnodes: 1)
        } else {
            let named = sightings.map { Member(address: $0.address, store: $0.id) }
            let seconds = secondNames.map { Member(address: "Z" + stores[$0].name, store: stores[$0].id) }
            let next = RingMembers(vnodes: 1, found: named + seconds)
            if next == view.ring { return }
            let pair = ringsFor(RingPair(before: view.ring, after: next))
            planned = view.planning(sightings, unmarked: unmarked, vnodes: 1, rings: pair)
        }
        replica.write(planned) { [unowned self] isWritten in
            guard isWritten else { return }
            for store in stores where unmarked.contains(store.id) && sightings.contains(where: { $0.id == store.id }) {
                store.isMarked = true
            }
        }
    }

    /// The stores that the replica's membership names; nil where one of them is not known yet.
    private func sightings(_ replica: Replica, _ view: Register) -> [Store]? {
        var sightings: [Store] = []
        for index in wantedBy[replica.index] ?? wanted {
            let store = stores[index]
            // A store that has not been on the ring has to have answered for a while: its sockets are empty by then.
            let known = view.store(store.id)
            if replica.reaches(index), known != nil || now - store.answersSince >= moverSettings.returnDelay {
                sightings.append(Store(id: store.id, address: address(store), start: store.start))
            } else if view.ring.members.contains(where: { $0.store == store.id }) {
                sightings.append(Store(id: store.id, address: address(store), start: known?.start ?? 0))
            } else {
                return nil
            }
        }
        return sightings
    }
}

extension Replica {
    func reaches(_ store: Int) -> Bool { world.reaches(self, store) }
}
