// This replica's part in the tier: it follows the register, has its workers follow it, fails stores over, and moves groups while
// it has the lock. It is the shell of the core: what is decided is decided there. The server owns it, tells it who the shards
// are, and asks it what the tier is at.
//
//      keeper ──snapshot──▶ Tier ──placement──▶ workers (Follower, Course)
//                            │ ▲                   │ notes, failures
//                            ▼ └───────────────────┘
//                    Failure, Mover ──calls──▶ stores
import Logging
import MovingCore

/// What the tier has of the workers. Each method reaches every worker on its own loop.
protocol TierWorkers: AnyObject {
    /// Has the workers go by a register; the notes are those of the workers, in their order.
    func follow(_ placement: Placement, peers: [Peer], notes: [Note?], hasConsul: Bool, settings: UInt64)
    /// Has a store failed over for this replica alone.
    func failOverAlone(_ store: StoreID, backupStarts: [StoreID: StartTime])
    /// The replica has a new session, and has not read the register since.
    func beganSession()
    /// Has pushes go on that were held because a turn came late.
    func goOnAfterStop()
    func note(cause: String, of store: StoreID)
}

/// The shell of moving groups; confined to the server's loop.
final class Tier {
    /// Told when what is shown of the tier may have changed.
    var onChange: () -> Void = {}
    var following: Following?
    var mover: Mover?
    private(set) var ring = Ring(shards: [], vnodes: 1)
    /// Why nothing may move; nil where it may.
    private(set) var registerFault: String?
    private(set) var hasConsul = true
    let members: TierMembers
    let stores: StoreCalls
    let loop: EventLoop
    let workers: any TierWorkers
    let keeper: any RegisterKeeper
    let logger: Logger
    let settings: UInt64
    let builder: PlacementBuilder
    var moverSettings: MoverSettings
    /// Whether the keeper has told what it holds.
    var hasRead = false
    var notes: [Note?]
    var remotePeers: [Peer] = []
    var writtenNote: Note?
    var isWritingNote = false
    var isTelling = false
    var failures: [StoreID: Failure] = [:]
    var writing: Set<StoreID> = []
    var isPlanning = false
    var wake: Timer?
    var wokenAt: Milliseconds?
    var probe: Timer?
    var missedProbes: [StoreID: Int] = [:]
    var desiredSince: (ring: RingMembers, at: MonotonicTime)?
    var isStopped = false
    /// Told of a shard whose store has been marked as a member.
    var onMember: (ShardAddress) -> Void = { _ in }
    /// Shards that are being marked.
    var marking: Set<ShardAddress> = []
    /// Numbers by which marks may have been left, and have yet to be deleted.
    var markNumbers: Set<Epoch> = []
    var counts = TierCounts()
    /// Why stores have failed.
    var causes: [StoreID: String] = [:]
    /// Where the groups of stores lie, by their latest listings.
    var listed: [StoreID: [UInt32]] = [:]
    var wasAtRest = true
    var healthProbes: [StoreID: HealthProbe] = [:]
    /// Stores that have failed, and that fail their checks, too.
    var failedChecks: Set<StoreID> = []
    var check: Configuration.Check
    let resolver: Resolver

    init(
        loop: EventLoop,
        resolver: Resolver,
        check: Configuration.Check,
        workers: any TierWorkers,
        workerCount: Int,
        keeper: any RegisterKeeper,
        stores: StoreCalls,
        members: TierMembers,
        mover: MoverSettings,
        settings: UInt64,
        logger: Logger
    ) {
        (self.loop, self.workers, self.keeper, self.stores) = (loop, workers, keeper, stores)
        (self.members, moverSettings, self.settings, self.logger) = (members, mover, settings, logger)
        (self.resolver, self.check) = (resolver, check)
        notes = Array(repeating: nil, count: workerCount)
        builder = PlacementBuilder(mailbox: loop.mailbox)
        wake = Timer(loop: loop) { [unowned self] in
            wokenAt = nil
            tell(.tick)
        }
        probe = Timer(loop: loop) { [unowned self] in probeStores() }
        keeper.note = { [unowned self] in sessionBegins() }
        keeper.onSnapshot = { [unowned self] in arrived($0) }
        keeper.onLoss = { [unowned self] in lost($0) }
    }

    /// Goes by other settings from now on.
    func apply(_ mover: MoverSettings, _ check: Configuration.Check) {
        (moverSettings, self.check) = (mover, check)
        stores.headers = check.headers
    }

    func start() {
        keeper.start()
        probe?.schedule(after: Tier.probeInterval)
    }

    /// Says goodbye; nothing is asked of the tier afterwards.
    func stop(_ done: @escaping () -> Void) {
        isStopped = true
        mover = nil
        probe = nil
        keeper.leave(done)
    }

    // MARK: The register

    var now: Milliseconds { Milliseconds(loop.now.nanoseconds / 1_000_000) }

    /// What the keeper held a moment ago.
    func arrived(_ snapshot: TierSnapshot, _ done: @escaping () -> Void = {}) {
        guard !isStopped else { return done() }
        hasRead = true
        if registerFault != snapshot.registerFault {
            registerFault = snapshot.registerFault
            if let registerFault {
                logger.error("the register cannot be followed", metadata: ["reason": "\(registerFault)"])
            }
        }
        guard let register = snapshot.register else {
            remotePeers = snapshot.peers
            if following != nil, snapshot.registerFault == nil { restore() } else { membersChanged() }
            return done()
        }
        builder.build(register.ring, register.next) { [unowned self] ring, rings in
            if isTold(register, rings, snapshot) { follow(register, ring, rings, snapshot) }
            done()
        }
    }

    /// The keeper has lost the register: it gets this replica's view, which is as new as any.
    func restore() {
        guard let view = following?.view, !isTelling else { return }
        isTelling = true
        logger.warning("the register was lost: it is written anew", metadata: ["epoch": "\(view.epoch)"])
        keeper.write(view, expecting: nil) { [unowned self] written in
            isTelling = false
            if let written { arrived(written) }
        }
    }

    /// Whether the register knows of the stores that this replica failed over alone; it is told of them first.
    func isTold(_ register: Register, _ rings: Rings, _ snapshot: TierSnapshot) -> Bool {
        guard let told = following?.telling(register, rings: rings) else { return true }
        guard !isTelling else { return false }
        isTelling = true
        keeper.write(told, expecting: register.epoch) { [unowned self] written in
            isTelling = false
            if let written { arrived(written) }
        }
        return false
    }

    func follow(_ register: Register, _ ring: Ring, _ rings: Rings, _ snapshot: TierSnapshot) {
        if !hasConsul { logger.info("the register can be reached again") }
        hasConsul = true
        remotePeers = snapshot.peers
        let isNew = following?.view.epoch != register.epoch
        if following == nil { following = Following(view: register, rings: rings, settings: settings) }
        following?.hasConsul = true
        following?.follow(register, rings: rings, peers: peers)
        if isNew || self.ring !== ring { noteRing(ring, register) }
        if !snapshot.hasLock {
            mover = nil
        } else if mover == nil {
            mover = Mover(settings: moverSettings)
        }
        publish()
        changed()
    }

    func noteRing(_ ring: Ring, _ register: Register) {
        self.ring = ring
        onChange()
    }

    /// All others that the core waits for: other replicas, and this one's workers, which follow each by itself.
    var peers: [Peer] {
        remotePeers
            + notes.enumerated().map { index, note in
                Peer(id: .max - UInt64(index), isLive: true, note: note ?? Note(epoch: 0, settings: settings))
            }
    }

    func publish() {
        guard let following else { return }
        let placement = Placement(ring: ring, register: following.view, rings: following.rings)
        workers.follow(placement, peers: remotePeers, notes: notes, hasConsul: hasConsul, settings: settings)
    }

    /// A worker follows another register, or has ended what it had sent by an older one.
    func workerTold(_ index: Int, _ note: Note) {
        notes[index] = note
        guard let following else { return }
        following.hear(peers)
        if notes.count > 1 { publish() }
        changed()
    }

    func lost(_ reason: String) {
        guard hasConsul, let following else { return }
        hasConsul = false
        following.hasConsul = false
        mover = nil
        logger.warning(
            "the register cannot be reached: this replica serves on by its last view",
            metadata: ["reason": "\(reason)"]
        )
        publish()
        changed()
    }

    /// After a turn that came late: what has changed meanwhile is known before any push goes on.
    func turnCameLate() {
        keeper.readFirst { [unowned self] in workers.goOnAfterStop() }
    }

    /// Writes the register, if the keeper still has the view's, and tells whether it was written.
    func write(_ register: Register, _ done: @escaping (Bool) -> Void) {
        keeper.write(register, expecting: following?.view.epoch) { [unowned self] written in
            guard let written else {
                done(false)
                return changed()
            }
            arrived(written) { [unowned self] in
                done(following?.view.epoch == register.epoch)
                changed()
            }
        }
    }

    /// The view, the peers or what is known of Consul have changed.
    func changed() {
        guard following != nil, !isStopped else { return }
        for store in failures.keys.sorted() { resume(store) }
        tell(.tick)
        tellNote()
        membersChanged()
        seeToMarks()
        noteRest()
        onChange()
    }

    func noteRest() {
        guard let view = following?.view, view.isAtRest != wasAtRest else { return }
        wasAtRest = view.isAtRest
        guard view.isAtRest else { return }
        counts.lastRest = wallClock()
        counts.runs[mover == nil ? .skipped : .success, default: 0] += 1
        if mover != nil {
            let metadata: Logger.Metadata = ["moved": "\(counts.moved)", "copies_deleted": "\(counts.deleted)"]
            logger.info("every group is on its owner alone", metadata: metadata)
        }
        listed = [:]
    }

    /// What this replica tells the others: what all its workers follow, and what any of them is busy with.
    var note: Note {
        var merged = following?.note ?? Note(epoch: 0, settings: settings)
        for note in notes {
            merged.epoch = min(merged.epoch, note?.epoch ?? 0)
            merged.busy.merge(note?.busy ?? [:], uniquingKeysWith: min)
            merged.touched.formUnion(note?.touched ?? [])
        }
        return merged
    }

    /// Without the session before, nobody waited for this replica.
    func sessionBegins() -> Note {
        following?.beganSession()
        workers.beganSession()
        writtenNote = nil
        return note
    }

    func tellNote() {
        guard let following, hasConsul else { return }
        let note = self.note
        guard !isWritingNote, note != writtenNote, !following.view.isAtRest || writtenNote?.epoch != note.epoch else {
            return
        }
        isWritingNote = true
        keeper.write(note) { [unowned self] isWritten in
            isWritingNote = false
            guard isWritten else { return }
            writtenNote = note
            tellNote()
        }
    }
}
