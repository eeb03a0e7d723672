// What the tier makes of the shards that there are: it probes them, finds those that are lost, and plans the next ring.
import Logging
import MovingCore

extension Tier {
    // MARK: Stores

    /// Asks stores for their processes where that matters: the absent, which may have come back, and those that may be needed
    /// in their stead.
    func probeStores() {
        probe?.schedule(after: Tier.probeInterval)
        membersChanged()
        if let view = following?.view, mover != nil { giveUpAbsent(view) }
        if !members.movesGroups { return probeLeftOut() }
        seeToMarks()
        guard mover != nil, let following, !following.view.isAtRest else { return }
        for store in following.view.stores {
            // One that fails its checks is not back, whatever it answers here.
            let isFit = !following.view.isDown(store.id) || members.isFit(store.id, following.view)
            readStart(store.id) { [unowned self] start in
                missedProbes[store.id] = start == nil ? (missedProbes[store.id] ?? 0) + 1 : 0
                let isKnown = start.map { [unowned self] in has(store.id, $0) } ?? false
                tell(.probed(store.id, isFit && isKnown ? start : nil))
                if missedProbes[store.id] ?? 0 >= 2 { fail(store.id, "it answers no probe") }
            }
        }
    }

    /// Whether a process that answers for a store is known to have that store. One that was started since the last question is
    /// asked at once: its file may be another, or none.
    private func has(_ store: StoreID, _ start: StartTime) -> Bool {
        guard let address = members.address(of: store, following?.view) else { return false }
        if members.has(address, store, start) { return true }
        if members.identities.identity(of: address)?.start != start { onNewProcess(address) }
        return false
    }

    /// Other shards are there, or have failed, or are other stores.
    func membersChanged() {
        guard !isStopped, registerFault == nil else { return }
        guard let view = following?.view else { return makeFirstRegister() }
        if !members.movesGroups { return replaceRing() }
        for (store, cause) in members.failed(view) { fail(store, cause) }
        if mover != nil {
            tellMover(of: view)
            for (store, start) in members.processes(view) { tell(.probed(store, start)) }
            giveUpLost(view)
            followAddresses(view)
            plan(view)
        }
    }

    /// Has the mover go by what is known of the shards, and by the settings, as they are now.
    func tellMover(of view: Register) {
        var settings = moverSettings
        settings.overlap = Milliseconds(overlap.nanoseconds / 1_000_000)
        mover?.settings = settings
        mover?.stillNamed = Set(members.stillNamed.compactMap { members.store(at: $0)?.id })
    }

    /// How long copies stay: long enough for Prometheus, and for the new owner to have written its file.
    var overlap: TimeSpan {
        let least = TimeSpan(nanoseconds: UInt64(moverSettings.overlap) * 1_000_000)
        let longest = members.identities.identities.values.compactMap(\.fileInterval).max()
        return max(least, longest.map { TimeSpan(nanoseconds: $0.nanoseconds + Tier.writingTime.nanoseconds) } ?? .zero)
    }

    /// What a Pushgateway may take to write its file.
    private static let writingTime = TimeSpan.seconds(10)

    func makeFirstRegister() {
        let sightings = members.sightings(nil)
        guard !isPlanning, hasRead, latest?.register == nil, !sightings.isEmpty else { return }
        // One that has only some of the shards would have all keys at them for a while.
        let since = firstSighting ?? loop.now
        firstSighting = since
        let isWhole = sightings.count == members.healthy.count
        guard isWhole || loop.now.since(since) >= Tier.identifyingTime else { return }
        isPlanning = true
        keeper.write(members.firstRegister(sightings), expecting: nil) { [unowned self] written in
            isPlanning = false
            if let written { arrived(written) }
        }
    }

    /// Gives up what came back without its file: nothing of it will come any more.
    func giveUpLost(_ view: Register) {
        guard edits.isEmpty else { return }
        for store in members.lost(view) where view.hasPart(store) { giveUp(store) }
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
            var next = following.view.planning(sightings, unmarked: unmarked, vnodes: members.vnodes, rings: rings)
            // In the same write, as nothing tells later that the new store is there in place of a lost one.
            for store in members.lost(following.view) { next = next.givingUp(store, rings: rings) ?? next }
            write(next) { _ in }
        }
    }

    /// How long a first register waits for all shards to tell who they are.
    private static let identifyingTime = TimeSpan.seconds(3)
    static let probeInterval = TimeSpan.milliseconds(500)
}
