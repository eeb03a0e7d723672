// A simulated replica: the shell around the core. It carries out what `RequestMachine`, `Failure` and `Mover` ask for, and is
// what the real shell has to be like.
import MovingCore

/// One shardd; stopped, killed and cut off by the world.
final class Replica {
    let index: Int
    unowned(unsafe) let world: World
    private(set) var incarnation = 0
    private(set) var isRunning = false
    private(set) var isStopped = false
    private(set) var isCutFromConsul = false
    var following: Following?
    var mover: Mover?
    var requests: [Int: Request] = [:]
    private var consulCuts = 0
    private var held: [() -> Void] = []
    private var isReading = false
    private var lastIndex = 0
    private var writtenNote: Note?
    /// Notes are written one at a time, so that an older one cannot come after a newer one.
    private var isWritingNote = false
    private var failures: [StoreID: Failure] = [:]
    private var missedProbes: [StoreID: Int] = [:]
    private var nextRequest = 0
    private var isTelling = false
    private var wokenAt: Int64?

    init(_ index: Int, _ world: World) { (self.index, self.world) = (index, world) }

    var hasConsul: Bool { following?.hasConsul == true }

    func isResting(_ register: Register) -> Bool {
        isRunning && !isStopped && following?.view == register && following?.hasConsul == true && requests.isEmpty
            && mover?.isBusy != true
    }

    /// What a story tells of a replica that does not come to rest.
    var state: String {
        "R\(index): \(mover.map { "moves, \($0)" } ?? "does not move"), follows \(following?.view.epoch ?? 0), "
            + "peers \(following?.peers ?? []), note \(String(describing: following?.note)), requests \(requests.count)"
    }

    // MARK: Life

    func begin() {
        isRunning = true
        lastIndex = 0
        renew()
        probe()
    }

    func kill() {
        isRunning = false
        incarnation += 1
        // What it had sent may still be in the network for a moment.
        let pushes = received + requests.values.sorted { $0.id < $1.id }.map(\.push)
        received = []
        world.after(150) { [unowned self] in for push in pushes { world.ended(push, isAcknowledged: false) } }
        (following, mover, requests, failures, held, isReading) = (nil, nil, [:], [:], [], false)
        (writtenNote, isWritingNote, isTelling, hasSession, missedProbes) = (nil, false, false, false, [:])
        isWriting = []
    }

    func stop() {
        isStopped = true
        stoppedAt = world.now
    }

    private var stoppedAt: Int64 = 0
    var peerID: UInt64 { UInt64(index) << 32 | UInt64(incarnation) }
    /// Pushes that have not begun: the process is stopped.
    private var received: [Push] = []
    /// How far its clock is from the others'.
    var clockOffset: Int64 { world.scenario.clockOffsets.isEmpty ? 0 : world.scenario.clockOffsets[index] }
    private var settings: UInt64 { world.scenario.haveOtherSettings.contains(index) ? 1 : 0 }

    func goOn() {
        guard isRunning, isStopped else { return }
        isStopped = false
        world.log { "R\(index) goes on" }
        if world.now - stoppedAt > 500, !world.without.contains(.readingAfterStop) { return readFirst() }
        release()
    }

    /// A turn came late: the register is read before anything is done.
    private func readFirst() {
        isReading = true
        join(first: true) { [unowned self] in
            isReading = false
            release()
        }
    }

    private func release() {
        let bodies = held
        held = []
        for body in bodies { body() }
    }

    /// Has the replica do something when it is told; later while it is stopped, never once it is killed.
    ///
    /// - Parameter first: not even while the register is being read after a stop.
    func deliver(_ incarnation: Int, first: Bool = false, _ body: @escaping () -> Void) {
        guard self.incarnation == incarnation else { return }
        guard isStopped || isReading && !first else { return body() }
        held.append { [unowned self] in deliver(incarnation, first: first, body) }
    }

    // MARK: Consul

    func cutFromConsul() {
        consulCuts += 1
        isCutFromConsul = true
        let incarnation = incarnation
        world.after(world.chance.between(50, 400)) { [unowned self] in
            deliver(incarnation) { if self.isCutFromConsul { self.consulIsGone() } }
        }
    }

    func reachesConsulAgain() {
        consulCuts -= 1
        isCutFromConsul = consulCuts > 0
        cutEnded = world.now
    }

    private(set) var cutEnded: Int64 = 0

    private func consulIsGone() {
        following?.hasConsul = false
        (mover, hasSession) = (nil, false)
        changed()
    }

    /// Renews the session each second; a new session means to read before it is relied on.
    private func renew(repeats: Bool = true) {
        let incarnation = incarnation
        join()
        if isRenewing == incarnation { return }
        isRenewing = incarnation
        renewLater(incarnation)
    }

    private var isRenewing = -1

    /// Renews the session, or makes another and then reads, since the register may have changed while it had none.
    private func join(first: Bool = false, _ done: @escaping () -> Void = {}) {
        world.consul.renew(self, following?.note ?? Note(epoch: 0, settings: settings), first: first) {
            [unowned self] isNew in
            guard let isNew else {
                if first { consulIsGone() }
                return done()
            }
            if isNew, let following {
                for request in requests.values.sorted(by: { $0.id < $1.id }) { request.leavesRest(following) }
                following.beganSession()
            }
            let hadSession = hasSession && !isNew
            hasSession = true
            if !hadSession { writtenNote = nil }
            if hadSession, !first, hasConsul {
                if mover == nil { world.consul.lock(self) { _ in } }
                return done()
            }
            world.consul.read(self, first: first) { [unowned self] snapshot in
                if let snapshot { arrived(snapshot) } else { consulIsGone() }
                done()
            }
        }
    }

    /// Whether it is among the replicas that others wait for: before, what it hears is no ground to serve by.
    private var hasSession = false

    private func renewLater(_ incarnation: Int) {
        world.after(world.chance.between(800, 1100)) { [unowned self] in
            guard self.incarnation == incarnation else { return }
            if !isStopped, !isReading { renew() }
            renewLater(incarnation)
        }
    }

    /// What Consul held a moment ago.
    func arrived(_ snapshot: Snapshot) {
        guard hasSession else { return }
        guard snapshot.index > lastIndex || following == nil || following?.hasConsul == false else { return }
        lastIndex = max(lastIndex, snapshot.index)
        let register = snapshot.register
        let rings = world.rings(for: register)
        if following == nil {
            following = Following(view: register, rings: rings, settings: settings)
        } else if let told = following!.telling(register, rings: rings) {
            guard !isTelling else { return }
            isTelling = true
            world.consul.write(self, told, expecting: register.epoch) { [unowned self] _ in
                isTelling = false
                world.consul.read(self) { [unowned self] in if let snapshot = $0 { arrived(snapshot) } }
            }
            return
        }
        following!.hasConsul = true
        follow(register, peers: peers(snapshot))
        if snapshot.lockHolder != index {
            mover = nil
        } else if mover == nil {
            world.log { "R\(index) moves groups now" }
            mover = Mover(settings: world.moverSettings)
        }
        changed()
    }

    private func peers(_ snapshot: Snapshot) -> [Peer] {
        if world.without.contains(.waitingForReplicas) { return [] }
        return snapshot.notes.filter { $0.key != index }.sorted { $0.key < $1.key }.compactMap { _, peer in
            if world.without.contains(.waitingForMembers), !peer.isLive { return nil }
            var peer = peer
            if world.without.contains(.listingAgain) { peer.note.touched = [] }
            return peer
        }
    }

    private func follow(_ register: Register, peers: [Peer]) {
        if following!.view.isSettled, !register.isSettled {
            for request in requests.values.sorted(by: { $0.id < $1.id }) { request.leavesRest(following!) }
        }
        following!.follow(register, rings: world.rings(for: register), peers: peers)
    }

    /// Writes the register if it is the view's, and tells whether it was written.
    func write(_ register: Register, _ done: @escaping (Bool) -> Void) {
        let expected = following!.view.epoch
        world.consul.write(self, register, expecting: expected) { [unowned self] written in
            if let written, following!.view.epoch < register.epoch, following!.hasConsul {
                lastIndex = max(lastIndex, written.index)
                follow(register, peers: peers(written))
            }
            done(written != nil)
            changed()
        }
    }

    /// The view, the peers or what is known of Consul have changed.
    func changed() {
        guard following != nil else { return }
        for store in failures.keys.sorted() { resume(store) }
        for id in requests.keys.sorted() { requests[id]?.resume(self) }
        tell(.tick)
        publish()
    }

    /// Writes what the replica tells its peers, where that has changed and matters.
    func publish() {
        guard let following, following.hasConsul else { return }
        let note = following.note
        guard !isWritingNote, note != writtenNote, !following.view.isAtRest || writtenNote?.epoch != note.epoch else {
            return
        }
        isWritingNote = true
        world.consul.writeNote(self, note) { [unowned self] isWritten in
            isWritingNote = false
            guard isWritten else { return world.after(200) { [unowned self] in publish() } }
            writtenNote = note
            publish()
        }
    }

    // MARK: Requests

    func receive(_ push: Push, isAbandoned: Bool = false) {
        guard isRunning else { return }
        world.began(push)
        push.isAbandoned = isAbandoned
        world.log { "a client sends \(push.text) to R\(index)" }
        nextRequest += 1
        let request = Request(nextRequest, push)
        received.append(push)
        deliver(incarnation) { [unowned self] in
            received.removeAll { $0 === push }
            guard following != nil else { return world.ended(push, isAcknowledged: false) }
            requests[request.id] = request
            request.begin(self)
            let incarnation = incarnation
            world.after(4000) { [unowned self] in deliver(incarnation) { request.expire(self) } }
        }
    }

    // MARK: Failure

    func fail(_ store: StoreID, _ reason: String) {
        guard let following, !following.view.isDown(store), failures[store] == nil, following.view.store(store) != nil
        else { return }
        world.log { "R\(index) fails over \(world.name(store)): \(reason)" }
        failures[store] = Failure(of: store)
        resume(store)
    }

    private func resume(_ store: StoreID) {
        guard var failure = failures[store], let following else { return }
        let actions = failure.resume(following)
        failures[store] = failure
        perform(actions, store)
    }

    private func perform(_ actions: [FailureAction], _ store: StoreID) {
        for action in actions {
            switch action {
            case .readStart(let backup):
                world.readStart(self, backup) { [unowned self] start in
                    guard var failure = failures[store], let following else { return }
                    let actions = failure.read(backup, world.backupStart(start, backup, following), following)
                    failures[store] = failure
                    perform(actions, store)
                }
            case .write(let register):
                guard hasConsul else {
                    world.log { "R\(index) fails over \(world.name(store)) alone" }
                    let starts = failures[store]!.backupStarts
                    failures[store] = nil
                    if following!.view.isSettled {
                        for request in requests.values.sorted(by: { $0.id < $1.id }) { request.leavesRest(following!) }
                    }
                    following!.failOverAlone(store, backupStarts: starts)
                    return changed()
                }
                guard !isWriting.contains(store) else { continue }
                isWriting.insert(store)
                write(register) { [unowned self] _ in isWriting.remove(store) }
            case .end: failures[store] = nil
            }
        }
    }

    private var isWriting: Set<StoreID> = []
    /// The processes that were listed last.
    private(set) var lastListed: [StoreID: StartTime] = [:]

    func giveUp(_ store: StoreID) {
        guard let following, hasConsul, following.view.isDown(store),
            let given = following.view.givingUp(store, rings: following.rings)
        else { return }
        world.log { "the operator gives up \(world.name(store))" }
        write(given) { _ in }
    }

    // MARK: Moving

    /// Tells the mover what has happened, and carries out what it says.
    func tell(_ event: MoverEvent) {
        guard mover != nil, let following, following.markedSince == nil else { return }
        for action in mover!.handle(event, following, now: world.now + clockOffset) { perform(action) }
    }

    private func perform(_ action: MoverAction) {
        switch action {
        case .list(let job, let store, let isToHeal):
            world.log { "R\(index) lists \(world.name(store))" }
            world.list(self, store) { [unowned self] listing in
                lastListed[store] = listing?.start
                let listing = isToHeal ? listing.map { world.withRewritings($0) } : listing
                tell(.listed(job: job, store, listing.map { world.seen($0, of: store, by: self) }))
            }
        case .readStart(let job, let store):
            world.readStart(self, store) { [unowned self] start in
                let told = world.without.contains(.checkingProcesses) ? world.listedStart(store, self) : start
                tell(.started(job: job, store, told ?? start))
            }
        case .push(let job, let send), .rewrite(let job, let send):
            world.log { "R\(index) moves: \(world.text(send))" }
            let isTold = world.without.contains(.endingPushes)
            world.push(send, by: self) { [unowned self] result in if !isTold { tell(.pushed(job: job, send, result)) } }
            if isTold {
                let incarnation = incarnation
                world.after(0) { [unowned self] in deliver(incarnation) { self.tell(.pushed(job: job, send, .done)) } }
            }
        case .write(let job, let register):
            write(register) { [unowned self] isWritten in tell(.wrote(job: job, isWritten)) }
        case .failOver(let store): fail(store, "the mover had no answer")
        case .wake(let time):
            if let woken = wokenAt, woken > world.now + clockOffset, woken <= time { return }
            wokenAt = time
            let incarnation = incarnation
            world.after(max(0, time - clockOffset - world.now)) { [unowned self] in
                deliver(incarnation) {
                    if self.wokenAt == time { self.wokenAt = nil }
                    self.tell(.tick)
                }
            }
        }
    }

    /// Deletes groups of marks that nothing needs, a long time after that was found.
    private func deleteMarks() {
        guard world.chance.happens(200), let following else { return }
        let needed = world.without.contains(.neededMarks) ? Epoch.max : following.leastNeededMark
        guard let least = needed else { return }
        for store in following.view.stores {
            world.call(self, store.id, within: 800, delay: world.chance.between(1, 6000)) { [unowned world] target in
                target.deleteMarks(below: least)
                world.persist(target)
            } done: { _ in
            }
        }
    }

    /// Asks all stores for their processes, as health checks do, and sees to the membership.
    private func probe() {
        let incarnation = incarnation
        world.after(world.chance.between(500, 600)) { [unowned self] in
            guard self.incarnation == incarnation else { return }
            defer { probe() }
            guard !isStopped, !isReading, mover != nil, let following else { return }
            for store in following.view.stores {
                world.readStart(self, store.id) { [unowned self] start in
                    missedProbes[store.id] = start == nil ? (missedProbes[store.id] ?? 0) + 1 : 0
                    let isKnown = world.without.contains(.restarts) && self.following?.view.isDown(store.id) != true
                    tell(.probed(store.id, isKnown && start != nil ? store.start : start))
                    if missedProbes[store.id]! >= 2, mover != nil { fail(store.id, "it answers no probe") }
                }
            }
            world.seeToMembership(self)
            deleteMarks()
        }
    }
}
