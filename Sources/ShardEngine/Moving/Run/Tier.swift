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
    /// How many movers there have been.
    private(set) var moverTerm = 0
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
    var settings: UInt64
    let builder: PlacementBuilder
    var moverSettings: MoverSettings
    /// Whether the keeper has told what it holds.
    var hasRead = false
    var notes: [Note?]
    var remotePeers: [Peer] = []
    /// Whether replicas of version 0.1 may be there, which write no notes.
    var hasOldReplicas = false {
        didSet { if hasOldReplicas != oldValue { isLookDue = hasOldReplicas } }
    }
    /// Whether replicas of version 0.1 have come, and the register has yet to say that what all stores hold counts.
    var isLookDue = false
    /// What the log has been told of why nothing may move.
    var loggedObstacles: Set<MovingObstacle> = []
    var writtenNote: Note?
    var isWritingNote = false
    var isTelling = false
    /// What the keeper told last.
    var latest: TierSnapshot?
    /// Changes of the register that are due.
    var edits: [(Following) -> Register?] = []
    var isEditing = false
    /// Since when failed stores have been away, as far as this process knows.
    var absentSince: [StoreID: MonotonicTime] = [:]
    var giveUpTime: TimeSpan
    private var retry: Timer?
    /// When a first register could have been made.
    var firstSighting: MonotonicTime?
    /// Whether this replica has served without the register until now: what it was pushed may be anywhere.
    var hasServedOtherwise = false
    /// Told when the keeper can tell of no register, and the replica has none to serve by.
    var onAbsence: (MovingHindrance) -> Void = { _ in }
    var failures: [StoreID: Failure] = [:]
    var writing: Set<StoreID> = []
    var isPlanning = false
    var wake: Timer?
    var wokenAt: Milliseconds?
    var probe: Timer?
    var missedProbes: [StoreID: Int] = [:]
    var desiredSince: (ring: RingMembers, at: MonotonicTime)?
    var isStopped = false
    /// Told of a shard whose process is not the one that was asked for its store last.
    var onNewProcess: (ShardAddress) -> Void = { _ in }
    /// Told of a shard whose store has been marked as a member, and by the register of which birth.
    var onMember: (ShardAddress, _ birth: String) -> Void = { _, _ in }
    /// Shards that are being marked.
    var marking: Set<ShardAddress> = []
    /// Shards where groups of marks are being deleted.
    var deletingMarks: Set<ShardAddress> = []
    var counts = TierCounts()
    var heals = TierHeals()
    /// Why stores have failed.
    var causes: [StoreID: String] = [:]
    /// Where the groups of stores lie, by their latest listings.
    var listed: [StoreID: Set<UInt32>] = [:]
    var wasAtRest = true
    var healthProbes: [StoreID: HealthProbe] = [:]
    /// Where nothing is moved, stores that took no connection, and why.
    var refused: [StoreID: (store: Store, cause: String)] = [:]
    /// The ring with them, while there are any.
    var wholeRing: (members: RingMembers, ring: Ring)?
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
        giveUp: TimeSpan,
        settings: UInt64,
        logger: Logger
    ) {
        (self.loop, self.workers, self.keeper, self.stores) = (loop, workers, keeper, stores)
        (self.members, moverSettings, self.settings, self.logger) = (members, mover, settings, logger)
        (self.resolver, self.check, giveUpTime) = (resolver, check, giveUp)
        notes = Array(repeating: nil, count: workerCount)
        builder = PlacementBuilder(mailbox: loop.mailbox)
        wake = Timer(loop: loop) { [unowned self] in
            wokenAt = nil
            tell(.tick)
        }
        probe = Timer(loop: loop) { [unowned self] in probeStores() }
        retry = Timer(loop: loop) { [unowned self] in tryAgain() }
        keeper.note = { [unowned self] in sessionBegins() }
        keeper.onSnapshot = { [unowned self] in arrived($0) }
        keeper.onLoss = { [unowned self] in lost($0) }
    }

    /// Goes by other settings from now on.
    func apply(_ mover: MoverSettings, giveUp: TimeSpan, _ check: Configuration.Check, settings: UInt64) {
        (moverSettings, giveUpTime, self.check) = (mover, giveUp, check)
        stores.headers = check.headers
        guard settings != self.settings else { return }
        self.settings = settings
        following?.settings = settings
        following?.hear(peers)
        changed()
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
        (hasRead, hasOldReplicas) = (true, snapshot.hasOldReplicas)
        latest = snapshot
        if registerFault != snapshot.registerFault {
            registerFault = snapshot.registerFault
            if let registerFault {
                logger.error("the register cannot be followed", metadata: ["reason": "\(registerFault)"])
            }
        }
        guard let register = snapshot.register else {
            remotePeers = snapshot.peers
            if following == nil, let registerFault {
                let reason = "the register cannot be followed: \(registerFault)"
                onAbsence(MovingHindrance(obstacle: .version, reason: reason))
                return done()
            }
            if following != nil, snapshot.registerFault == nil { restore(nil) } else { membersChanged() }
            return done()
        }
        if let following, following.markedSince == nil, register.epoch < following.view.epoch {
            restore(register.epoch)
            return done()
        }
        builder.build(register.ring, register.next) { [unowned self] ring, rings in
            if isTold(register, rings, snapshot) { follow(register, ring, rings, snapshot) }
            done()
        }
    }

    /// The keeper has lost the register, or has an old one again: it gets this replica's view, which is newer.
    func restore(_ found: Epoch?) {
        guard let view = following?.view, !isTelling else { return }
        logger.warning("the register was lost: it is written anew", metadata: ["epoch": "\(view.epoch)"])
        tellKeeper(view, expecting: found)
    }

    private func tellKeeper(_ register: Register, expecting epoch: Epoch?) {
        isTelling = true
        keeper.write(register, expecting: epoch) { [unowned self] written in
            isTelling = false
            if let written { arrived(written) } else { retry?.schedule(after: Tier.retryTime) }
        }
    }

    /// Whether the register knows of the stores that this replica failed over alone; it is told of them first.
    func isTold(_ register: Register, _ rings: Rings, _ snapshot: TierSnapshot) -> Bool {
        guard let told = following?.telling(register, rings: rings) else { return true }
        if !isTelling { tellKeeper(told, expecting: register.epoch) }
        return false
    }

    func follow(_ register: Register, _ ring: Ring, _ rings: Rings, _ snapshot: TierSnapshot) {
        if !hasConsul { logger.info("the register can be reached again") }
        hasConsul = true
        remotePeers = snapshot.peers
        let isNew = following?.view.epoch != register.epoch
        if following == nil {
            following = Following(view: register, rings: rings, settings: settings)
            if hasServedOtherwise { lookAtEverything() }
            hasServedOtherwise = false
        }
        following?.hasConsul = true
        following?.follow(register, rings: rings, peers: peers)
        if isNew || self.ring !== ring { noteRing(ring, register) }
        if !snapshot.hasLock {
            mover = nil
        } else if mover == nil {
            mover = Mover(settings: moverSettings)
            moverTerm += 1
            tellMover(of: register)
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
        let workers = notes.enumerated().map { index, note in
            var note = note ?? Note(epoch: 0)
            note.settings = settings
            return Peer(id: .max - UInt64(index), isLive: true, note: note)
        }
        return remotePeers + workers + (hasOldReplicas ? [Peer.ofVersion01] : [])
    }

    func publish() {
        guard let following else { return }
        let whole = wholeRing?.ring
        let placement = Placement(ring: ring, wholeRing: whole, register: following.view, rings: following.rings)
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
        latest = nil
        guard let following else {
            return onAbsence(MovingHindrance(obstacle: .consul, reason: "Consul does not answer: \(reason)"))
        }
        guard hasConsul else { return }
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
                retry?.schedule(after: Tier.retryTime)
                return
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
        makeEdits()
        tell(.tick)
        if let mover { counts.keep(mover.stuck) }
        tellNote()
        membersChanged()
        seeToMarks()
        seeToOldReplicas()
        logObstacles()
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
        counts.rest()
    }

    /// What this replica tells the others: what all its workers follow, and what any of them is busy with.
    var note: Note {
        var merged = following?.note ?? Note(epoch: 0, settings: settings)
        for note in notes {
            merged.epoch = min(merged.epoch, note?.epoch ?? 0)
            merged.busy.merge(note?.busy ?? [:], uniquingKeysWith: min)
            merged.touched.formUnion(note?.touched ?? [])
        }
        merged.stuck = mover == nil ? [] : counts.stuck
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
        let isNews = writtenNote?.epoch != note.epoch || writtenNote?.settings != note.settings
        guard !isWritingNote, note != writtenNote, !following.view.isAtRest || isNews else { return }
        isWritingNote = true
        keeper.write(note) { [unowned self] isWritten in
            isWritingNote = false
            // A failure that is over before the session is leaves nothing else to write it again for.
            guard isWritten else {
                retry?.schedule(after: Tier.retryTime)
                return
            }
            writtenNote = note
            tellNote()
        }
    }
}
