// The register, the notes and the mover's lock in Consul, for one replica. The replica's shell owns one: it is told by
// `onSnapshot` what Consul holds, and writes the register and its note through it. `ReplicaSession` makes the session,
// `AbsentReplicas` removes replicas that are gone.
//
// The replica first has a live session and its note there, then reads, then goes by what it has read; and again so after each
// new session. Each second a beat passes the session's check and reads all again: that proves that the session lives, and
// that the servers answer, not the agent alone. Between beats a blocking query tells of changes within milliseconds.
import FoundationEssentials
import Logging
import MovingCore

/// A replica's way to the tier's state in Consul; loop-confined.
final class ConsulRegister: RegisterKeeper {
    /// Tells the note that is to be written when a session begins. The caller takes it for written: should the session not
    /// come about after all, the caller is asked again.
    var note: () -> Note = { Note(epoch: 0) }
    /// Whether this replica may move groups.
    var wantsLock = false {
        didSet { if wantsLock != oldValue { seeToLock() } }
    }
    /// Is given what Consul holds, each time at least as new as the time before. A register with a smaller epoch than an
    /// earlier one is given as it is: Consul has lost its state, or somebody has written it by hand.
    var onSnapshot: (TierSnapshot) -> Void = { _ in }
    /// Is called once when Consul does not answer and the session is about to end, with the reason.
    var onLoss: (String) -> Void = { _ in }
    /// How long a replica that is cut off stays a member.
    var giveUpReplica: TimeSpan {
        get { absent.giveUpReplica }
        set { absent.giveUpReplica = newValue }
    }

    private enum State {
        case idle
        /// There is no session, or it is not known that there is one.
        case joining
        /// There is a session that holds the note; what is read from now on counts.
        case joined
        case left
    }

    private let loop: EventLoop
    private let client: ConsulClient
    private let id: UInt64
    private let logger: Logger
    private let keys: TierKeys
    private let session: ReplicaSession
    private let absent: AbsentReplicas
    private let old: OldReplicas
    private var state = State.idle
    private var order = ReadOrder()
    /// The newest state that is known.
    private var content: TierContent?
    /// The index of the last snapshot that the caller was given; nil when it has to be given the next one in any case.
    private var toldIndex: UInt64?
    /// Whether the caller was told that Consul does not answer.
    private var isLost = false

    private var beatTimer: Timer?
    private let beatCalls: ConsulCalls
    private var beatBegan: MonotonicTime
    /// When the session was made.
    private var joined: MonotonicTime
    private var backoff = Backoff(first: .milliseconds(500), limit: .seconds(3))
    private var lossTimer: Timer?
    private var lossTime: MonotonicTime?
    /// Why the last attempt has failed; nil when none has failed since the session was last known to live.
    private var fault: String?
    /// Whether all is asked once more before Consul counts as lost.
    private var isAskedFirst = false

    private let watch: TierWatch
    private let writeCalls: ConsulCalls
    /// Why the register was last not written, until it is.
    private var lastRefusal: String?
    private var noteCall: HTTPCall?
    private var noteDone: ((Bool) -> Void)?
    /// Whether the note was written, while that is not told yet.
    private var noteResult: Bool?
    private var lockCall: HTTPCall?
    /// Who waits for a read after a late turn, and the answers to other calls that wait until it has been told.
    private var readers: [() -> Void] = []
    private var held: [() -> Void] = []

    /// - Parameters:
    ///   - client: of the same loop.
    ///   - id: of this process, random.
    init(loop: EventLoop, client: ConsulClient, id: UInt64, logger: Logger) {
        self.loop = loop
        self.client = client
        self.id = id
        self.logger = logger
        keys = TierKeys(serviceName: client.settings.serviceName)
        session = ReplicaSession(client: client, replica: id, logger: logger)
        absent = AbsentReplicas(client: client, keys: keys, loop: loop, logger: logger)
        old = OldReplicas(client: client, replica: id, loop: loop)
        watch = TierWatch(client: client, loop: loop)
        beatCalls = ConsulCalls(client)
        writeCalls = ConsulCalls(client)
        (beatBegan, joined) = (loop.now, loop.now)
        beatTimer = Timer(loop: loop) { [unowned self] in beat() }
        lossTimer = Timer(loop: loop) { [unowned self] in lossIsDue() }
        watch.willAsk = { [unowned self] in order.begin() }
        watch.onAnswer = { [unowned self] outcome, call in
            // Without a proof that the session lives, the caller goes by nothing that it hears.
            guard !isLost, let read = TierContent(listing: outcome, keys, known: content), accept(read, call) else {
                return
            }
            follow(read)
        }
    }

    // MARK: Entry points

    /// Goes by other settings from now on.
    func apply(_ settings: Configuration.Reconcile) {
        giveUpReplica = settings.giveUpReplica
        // As often do replicas of version 0.1 look whether anything is to be moved.
        old.interval = settings.interval
    }

    /// Joins the replicas; from then on there are snapshots.
    func start() {
        precondition(state == .idle, "it is started once")
        expectProof(within: ConsulRegister.patience)
        join()
    }

    /// After a turn that came late: renews the session or makes it anew, and reads. What was asked before is not waited for.
    ///
    /// - Parameter done: is called after `onSnapshot`, or after `onLoss` where Consul has not answered within a second.
    func readFirst(_ done: @escaping () -> Void) {
        guard state == .joining || state == .joined else { return loop.park(done) }
        readers.append(done)
        if readers.count == 1 { beatFirst() }
    }

    /// Writes the register and reads all in the same transaction.
    ///
    /// - Parameters:
    ///   - epoch: that of the register which the new one was made from; nil where there is none yet.
    ///   - done: gets what was read, or nil: another replica was first, or Consul does not answer. Without an answer the
    ///     register may have been written all the same; the next snapshot tells.
    func write(_ register: Register, expecting epoch: Epoch?, _ done: @escaping (TierSnapshot?) -> Void) {
        guard state == .joined, let content, content.register?.fault == nil,
            content.register?.register?.epoch == epoch
        else { return loop.park { [weak self] in self?.deliver { done(nil) } } }
        let index = content.register?.modifyIndex ?? 0
        let call = order.begin()
        let body = TransactionStep.writing(register.encoded(), expecting: index, keys)
        let target = "/v1/txn\(client.datacenterQuery)"
        writeCalls.call(.put, target, body: body, timeout: ConsulRegister.writeTimeout) { [unowned self] outcome in
            guard let written = TierContent(transaction: outcome, keys, known: self.content) else {
                noteRefusal(outcome)
                return deliver { done(nil) }
            }
            lastRefusal = nil
            let isNewest = accept(written, call)
            deliver { [unowned self] in
                // By now, a newer state may be known.
                let newest = self.content.flatMap { isNewest || $0.index >= written.index ? $0 : nil } ?? written
                done(newest.snapshot(for: id, session: session.id))
                if toldIndex != nil, let content = self.content { follow(content) }
            }
        }
    }

    private func noteRefusal(_ outcome: HTTPOutcome) {
        // 409: another replica was first.
        if case .response(let response) = outcome, response.status == 409 { return }
        let reason = outcome.fault ?? ConsulRegister.unknownAnswer
        guard reason != lastRefusal else { return }
        lastRefusal = reason
        logger.warning("Consul does not take the register", metadata: ["reason": "\(reason)"])
    }

    /// Writes this replica's note. The caller writes the next one when this one is done.
    func write(_ note: Note, _ done: @escaping (Bool) -> Void) {
        guard state == .joined, let session = session.id else {
            return loop.park { [weak self] in self?.deliver { done(false) } }
        }
        precondition(noteDone == nil, "notes are written one at a time")
        noteDone = done
        let body = StoredNote(note: note, node: self.session.node).encoded()
        let target = self.session.noteTarget(session)
        noteCall = client.call(.put, target, body: body, timeout: ConsulRegister.timeout) { [unowned self] outcome in
            noteCall = nil
            endNote(outcome.isTrue)
        }
    }

    /// Goodbye: takes the note, the session and the service away. Nothing else is called any more.
    func leave(_ done: @escaping () -> Void) {
        let isBegun = state == .joining || state == .joined
        state = .left
        guard isBegun else { return loop.park(done) }
        watch.stop()
        beatCalls.cancel()
        writeCalls.cancel()
        forgetAbsences()
        beatTimer?.cancel()
        (noteCall, noteDone, noteResult, lockCall) = (nil, nil, nil, nil)
        (readers, held) = ([], [])
        var isDone = false
        let end = { [unowned self] in
            guard !isDone else { return }
            isDone = true
            // It would keep what the caller has given, which may be this register itself.
            lossTimer = nil
            done()
        }
        lossTimer = Timer(loop: loop, end)
        lossTimer?.schedule(after: ConsulRegister.goodbyeTime)
        session.end(end)
    }

    // MARK: Joining and beats

    private func join() {
        state = .joining
        order.bar()
        toldIndex = nil
        watch.stop()
        forgetAbsences()
        lockCall = nil
        // Its answer would come after the note that is written now.
        noteCall = nil
        endNote(false)
        let stored = { [unowned self] in StoredNote(note: note(), node: session.node) }
        session.begin(stored) { [unowned self] fault in
            if let fault { return failed(fault) }
            state = .joined
            joined = .now()
            renew()
        }
    }

    /// Renews the session, or goes on trying to have one.
    private func beat() {
        beatTimer?.cancel()
        beatCalls.cancel()
        session.cancel()
        switch state {
        case .idle, .left: break
        case .joining: join()
        case .joined: renew()
        }
    }

    /// A beat after which nothing counts that was asked before.
    private func beatFirst() {
        order.bar()
        toldIndex = nil
        watch.stop()
        forgetAbsences()
        isAskedFirst = true
        expectProof(within: ConsulRegister.lateTurnPatience)
        beat()
    }

    private func renew() {
        beatBegan = .now()
        session.pass { [unowned self] outcome in
            switch outcome {
            case .passed: read()
            case .refused(let reason): joinAgain(reason)
            case .failed(let reason): failed(reason)
            }
        }
    }

    private func joinAgain(_ reason: String) {
        guard state == .joined else { return }
        logger.info("the session of this replica has ended: it joins again", metadata: ["reason": "\(reason)"])
        beatCalls.cancel()
        session.cancel()
        beatTimer?.cancel()
        if MonotonicTime.now().since(joined) >= ConsulRegister.retryInterval { return join() }
        // Something ends each session as soon as it is there.
        state = .joining
        failed(reason)
    }

    private func read() {
        let call = order.begin()
        beatCalls.call(.get, TierWatch.target(client), timeout: ConsulRegister.timeout) { [unowned self] outcome in
            guard let read = TierContent(listing: outcome, keys, known: content) else {
                return failed(outcome.fault ?? ConsulRegister.unknownAnswer)
            }
            let isNewest = accept(read, call)
            guard read.isHeld(id, by: session.id) else {
                // Whoever goes by what it hears has to hear that the lock is gone.
                if isNewest, toldIndex != nil { tell(read) }
                return joinAgain("its session does not hold its note any more")
            }
            isAlive()
            // A write may have told of a newer state than this one.
            if let content, toldIndex == nil || isNewest && toldIndex != read.index { tell(content) }
            endReading()
            seeToLock()
            if state == .joined { watch.start(after: outcome) }
        }
    }

    /// The session lives, and Consul answers.
    private func isAlive() {
        backoff.reset()
        if isLost { logger.info("Consul answers again") }
        (isLost, isAskedFirst, fault) = (false, false, nil)
        expectProof(within: ConsulRegister.patience, since: beatBegan)
        let passed = MonotonicTime.now().since(beatBegan)
        let left = ConsulRegister.interval.nanoseconds - min(passed.nanoseconds, ConsulRegister.interval.nanoseconds)
        beatTimer?.schedule(after: TimeSpan(nanoseconds: left))
    }

    private func failed(_ reason: String) {
        fault = reason
        beatTimer?.schedule(after: isLost ? backoff.next() : ConsulRegister.retryInterval)
    }

    /// What was seen of replicas that are not there tells nothing from now on.
    private func forgetAbsences() {
        absent.pause()
        old.pause()
    }

    // MARK: Loss

    /// Unless it is proven within this time that the session lives, Consul is lost.
    private func expectProof(within span: TimeSpan, since start: MonotonicTime? = nil) {
        let time = (start ?? MonotonicTime.now()).advanced(by: span)
        lossTime = time
        lossTimer?.schedule(after: time.since(.now()))
    }

    private func lossIsDue() {
        guard let lossTime else { return }
        // Timers that are set within a long turn fire early, since a loop reads the time once in a turn.
        if MonotonicTime.now() < lossTime { return expectProof(within: lossTime.since(.now())) }
        // The process was stopped, or had no CPU: that says nothing of Consul, which is asked first.
        let isLate = MonotonicTime.now().since(lossTime) >= ConsulRegister.lateness
        if isLate || fault == nil && !isAskedFirst { return beatFirst() }
        self.lossTime = nil
        let reason = fault ?? "it does not answer in time"
        if !isLost {
            isLost = true
            toldIndex = nil
            forgetAbsences()
            logger.warning("Consul does not answer", metadata: ["reason": "\(reason)"])
            onLoss(reason)
        }
        endReading()
    }

    // MARK: What was read

    /// Takes it for the newest state, unless a newer one is known.
    private func accept(_ read: TierContent, _ call: Int) -> Bool {
        guard state == .joined, order.accepts(index: read.index, of: call) else { return false }
        content = read
        let holder = read.lockSession
        let others = read.replicas.filter { $0.id != id }
        absent.update(others, isRemover: holder == nil || holder == session.id)
        old.update(read.oldRings, lockedBy: holder == session.id ? holder : nil)
        return true
    }

    /// Does what a state that has just been accepted asks for.
    private func follow(_ read: TierContent) {
        if toldIndex != read.index { tell(read) }
        guard state == .joined else { return }
        guard read.isHeld(id, by: session.id) else { return joinAgain("its session does not hold its note any more") }
        seeToLock()
    }

    private func tell(_ read: TierContent) {
        toldIndex = read.index
        onSnapshot(read.snapshot(for: id, session: session.id))
    }

    private func endReading() {
        let readers = readers
        self.readers = []
        for reader in readers { reader() }
        // A reader may leave, or begin another read.
        guard self.readers.isEmpty else { return }
        tellNote()
        let held = held
        self.held = []
        for body in held { deliver(body) }
    }

    /// Tells the caller the end of a call; once the read after a late turn has been told, while there is one.
    private func deliver(_ body: @escaping () -> Void) {
        guard state != .left else { return }
        if readers.isEmpty { body() } else { held.append(body) }
    }

    private func endNote(_ isWritten: Bool) {
        guard noteDone != nil else { return }
        noteResult = isWritten
        if readers.isEmpty { tellNote() }
    }

    /// Whoever joins again before this is told has written another note, and `endNote` has taken the answer back.
    private func tellNote() {
        guard let done = noteDone, let isWritten = noteResult else { return }
        (noteDone, noteResult) = (nil, nil)
        done(isWritten)
    }

    // MARK: The lock

    /// Takes the lock if it is free and wanted, gives it back if it is not wanted.
    private func seeToLock() {
        guard state == .joined, !isLost, lockCall == nil, let content, let session = session.id else { return }
        let action: String
        if wantsLock, content.lockSession == nil {
            action = "acquire"
        } else if !wantsLock, content.lockSession == session {
            action = "release"
        } else {
            return
        }
        let target = client.keyTarget([TierKeys.lockName], "\(action)=\(session)")
        let body = LockValue(id).encoded()
        // The next snapshot tells what has become of it.
        lockCall = client.call(.put, target, body: body, timeout: ConsulRegister.timeout) { [unowned self] _ in
            lockCall = nil
        }
    }

    /// From one beat to the next.
    private static let interval = TimeSpan.seconds(1)
    private static let timeout = TimeSpan.seconds(1)
    private static let retryInterval = TimeSpan.milliseconds(250)
    /// Less than the life of a session, 3 s: the caller knows before others stop waiting for it.
    private static let patience = TimeSpan.milliseconds(2500)
    /// Requests wait meanwhile.
    private static let lateTurnPatience = TimeSpan.seconds(1)
    /// By how much a timer is late in a turn that comes late.
    private static let lateness = TimeSpan.milliseconds(400)
    private static let writeTimeout = TimeSpan.seconds(2)
    private static let goodbyeTime = TimeSpan.milliseconds(900)
    private static let unknownAnswer = "its answer is not what it should be"
}
