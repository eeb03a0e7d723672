// What the tier makes of the shards that there are: it probes them, finds those that are lost, and plans the next ring. Where
// nothing is moved, a ring takes the place of another at once.
import Logging
import MovingCore

extension Tier {
    // MARK: Stores

    /// Asks stores for their processes where that matters: the absent, which may have come back, and those that may be needed
    /// in their stead.
    func probeStores() {
        probe?.schedule(after: Tier.probeInterval)
        membersChanged()
        guard mover != nil || !members.movesGroups, let following, !following.view.isAtRest else { return }
        for store in following.view.stores {
            // One that fails its checks is not back, whatever it answers here.
            let isFit = !following.view.isDown(store.id) || members.isFit(store.id, following.view)
            probe(store.id) { [unowned self] start in
                missedProbes[store.id] = start == nil ? (missedProbes[store.id] ?? 0) + 1 : 0
                tell(.probed(store.id, isFit ? start : nil))
                if isFit, start != nil, !members.movesGroups { isBack(store.id) }
                if missedProbes[store.id] ?? 0 >= 2 { fail(store.id, "it answers no probe") }
            }
        }
    }

    /// Where nothing is moved, a shard is back when it passes its health check.
    func probe(_ store: StoreID, _ done: @escaping (StartTime?) -> Void) {
        if members.movesGroups { return readStart(store, done) }
        guard let address = members.address(of: store, following?.view) else { return }
        healthProbes[store] = HealthProbe(address, check: check, loop: loop, resolver: resolver) { [unowned self] in
            healthProbes[store] = nil
            done($0 == .healthy ? 0 : nil)
        }
    }

    /// Other shards are there, or have failed, or are other stores.
    func membersChanged() {
        guard !isStopped, registerFault == nil else { return }
        guard let view = following?.view else { return makeFirstRegister() }
        for (store, cause) in members.failed(view) { fail(store, cause) }
        if !members.movesGroups { return replace(view, down: view.down.filter { !hasPassedAgain($0, view) }) }
        if mover != nil {
            for (store, start) in members.processes(view) { tell(.probed(store, start)) }
            giveUpLost(view)
            plan(view)
        }
    }

    func makeFirstRegister() {
        let sightings = members.sightings(nil)
        guard !isPlanning, hasRead, !sightings.isEmpty else { return }
        isPlanning = true
        keeper.write(members.firstRegister(sightings), expecting: nil) { [unowned self] written in
            isPlanning = false
            if let written { arrived(written) }
        }
    }

    /// Gives up what came back without its file: nothing of it will come any more.
    func giveUpLost(_ view: Register) {
        guard !isPlanning, let rings = following?.rings else { return }
        for store in members.lost(view) {
            let without = view.givingUp(store, rings: rings)
            guard without.entries != view.entries || view.isAdopting(store) else { continue }
            isPlanning = true
            let address = view.store(store)?.address ?? ""
            logger.warning(
                "shard has lost what it held: it came back without its file",
                metadata: ["shard": "\(address)"]
            )
            return write(without) { [unowned self] _ in isPlanning = false }
        }
    }

    /// Every store of the register is gone: the ring begins with those that are there.
    func beginAnew(_ view: Register, _ sightings: [Store]) {
        isPlanning = true
        let unmarked = members.unmarked(sightings, view)
        write(view.beginningAnew(sightings, unmarked: unmarked, vnodes: members.vnodes)) { [unowned self] _ in
            isPlanning = false
        }
    }

    func plan(_ view: Register) {
        let sightings = members.sightings(view)
        guard !isPlanning, !sightings.isEmpty else { return }
        if members.lost(view).count == view.stores.count { return beginAnew(view, sightings) }
        guard view.mayPlan else { return }
        let wanted = RingMembers(
            vnodes: members.vnodes,
            found: sightings.map { Member(address: $0.address, store: $0.id) }
        )
        guard wanted != view.ring else { return desiredSince = nil }
        if desiredSince?.ring != wanted { desiredSince = (wanted, loop.now) }
        let passed = loop.now.since(desiredSince?.at ?? loop.now)
        guard passed >= members.settle(wanted, view) else { return }
        isPlanning = true
        builder.build(view.ring, wanted) { [unowned self] _, rings in
            isPlanning = false
            guard let following, following.view.mayPlan, mover != nil, following.view.ring == view.ring else { return }
            let unmarked = members.unmarked(sightings, following.view)
            write(following.view.planning(sightings, unmarked: unmarked, vnodes: members.vnodes, rings: rings)) { _ in }
        }
    }

    // MARK: Where nothing is moved

    /// A store that had failed answers again: its keys are its own from now on.
    func isBack(_ store: StoreID) {
        guard let view = following?.view, view.isDown(store) else { return }
        replace(view, down: view.down.filter { $0 != store })
    }

    /// Whether a store that had failed its checks passes them again.
    func hasPassedAgain(_ store: StoreID, _ view: Register) -> Bool {
        if !members.isFit(store, view) {
            failedChecks.insert(store)
            return false
        }
        return failedChecks.remove(store) != nil
    }

    /// Another ring, or the same with fewer stores down, takes the place of the register's at once.
    func replace(_ view: Register, down: [StoreID]) {
        let sightings = members.sightings(view)
        guard !isPlanning, !sightings.isEmpty else { return }
        var register = Register(resting: sightings, vnodes: members.vnodes, epoch: view.epoch)
        let staying = down.filter { register.store($0) != nil }
        guard register.ring != view.ring || staying != view.down else { return }
        isPlanning = true
        builder.build(register.ring, nil) { [unowned self] _, rings in
            isPlanning = false
            for store in staying { register = register.failingOver(store, rings: rings, backupStarts: [:]) }
            let next = Register(resting: sightings, vnodes: members.vnodes, epoch: register.epoch + 1)
            write(staying.isEmpty ? next : register) { _ in }
        }
    }

    static let probeInterval = TimeSpan.milliseconds(500)
}
