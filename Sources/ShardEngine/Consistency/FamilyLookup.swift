// Lists shards for the check: all that each holds, when it is first seen or its process is another one, and again every minute, as
// others may push there too; and what they hold of some families, for pushes that may clash with it. The server owns this; workers
// ask it. It has a thread and a loop of its own, so that no push waits for a listing but those that need one.
//
// One listing is for all pushes that had come before it began.
import Logging
import Synchronization

/// The lookups of one shardd; its methods are for the server's loop but for `ask`.
final class FamilyLookup {
    /// Where shards are, and what of what they hold counts.
    struct Input: Sendable {
        /// When the process of each shard was started; without those that are not known.
        var processes: [ShardAddress: String]
        /// The ring, where each group is on its owner alone; nil while groups are moved.
        var ring: Ring?
        var check: Configuration.Check
        /// Where replicas tell each other of families; nil where there is no Consul.
        var consul: Configuration.Consul?
    }

    let known: KnownFamilies
    private let session: LoopBound<HTTPSession>
    private let work: LoopBound<LookupWork>
    private let home: LoopMailbox
    private var thread: LoopThread?

    /// - Parameter home: the mailbox of the server's loop.
    init(home: LoopMailbox, logger: Logger) {
        self.home = home
        let known = KnownFamilies()
        self.known = known
        let loop = EventLoop()
        let session = HTTPSession(loop: loop)
        self.session = LoopBound(session, on: loop)
        work = LoopBound(LookupWork(session, known, logger), on: loop)
    }

    /// Goes by this from now on, and begins if it has not; nil: nothing is looked up any more.
    func update(_ input: Input?) {
        home.assertOnLoop()
        guard input != nil || thread != nil else { return }
        work.post { $0.update(input) }
        guard thread == nil else { return }
        let work = self.work
        thread = LoopThread(session.value.loop) { work.value.run() }
    }

    /// What any thread may ask of it.
    struct Questions: Sendable {
        /// Has a push decided by a listing that begins from now on.
        var ask: @Sendable (FamilyQuestions.Question) -> Void
        /// Has questions dropped whose askers are gone.
        var forget: @Sendable () -> Void
    }

    var questions: Questions {
        let work = self.work
        return Questions(
            ask: { question in work.post { $0.ask(question) } },
            forget: { work.post { $0.forget() } }
        )
    }

    /// Breaks off what is under way and ends the thread.
    func stop() {
        home.assertOnLoop()
        session.post { $0.cancel() }
        thread?.join()
        thread = nil
    }
}

/// What happens on the thread.
private final class LookupWork {
    private let session: HTTPSession
    private let known: KnownFamilies
    private let logger: Logger
    private let paths = GroupPath()
    private var input: FamilyLookup.Input?
    private var hasNews = false
    /// The processes whose shards have been listed.
    private var learned: [ShardAddress: String] = [:]
    /// When all are listed again.
    private var nextRound = MonotonicTime(nanoseconds: 0)
    private var lastRound = MonotonicTime(nanoseconds: 0)
    /// Shards that could not be listed, until when they are left alone.
    private var silent: [ShardAddress: MonotonicTime] = [:]
    private var hasOwn = false
    private let questions: FamilyQuestions
    private var claims: ClaimKeeper?

    init(_ session: HTTPSession, _ known: KnownFamilies, _ logger: Logger) {
        self.session = session
        self.known = known
        self.logger = logger
        questions = FamilyQuestions(known)
    }

    func update(_ new: FamilyLookup.Input?) {
        if new == nil {
            known.clear()
            (learned, silent, hasOwn) = ([:], [:], false)
        }
        if new?.consul != input?.consul {
            claims = nil
            known.isShared = new?.consul != nil
        }
        // A process that is new is asked, however long the one before it did not answer.
        silent = silent.filter { new?.processes[$0.key] == input?.processes[$0.key] }
        input = new
        hasNews = true
    }

    func ask(_ question: FamilyQuestions.Question) {
        questions.ask(question, at: .now())
        hasNews = true
    }

    func forget() { questions.forget() }

    func run() {
        while !session.isOver {
            hasNews = false
            if let input {
                followClaims(input)
                learnAll(input)
            }
            decideAll()
            session.pause(timeToNext) { [unowned self] in hasNews }
        }
    }

    private var timeToNext: TimeSpan {
        let now = MonotonicTime.now()
        guard let input, !input.processes.isEmpty else { return .seconds(3600) }
        let round = input.processes.count > learned.count ? LookupWork.retryTime : nextRound.since(now)
        return min(round, questions.nextTime?.since(now) ?? round)
    }

    /// Hears what other replicas claim, before anything is taken by what is known.
    private func followClaims(_ input: FamilyLookup.Input) {
        guard claims == nil, let settings = input.consul else { return }
        claims = ClaimKeeper(
            session: session,
            settings: settings,
            logger: logger,
            onGap: { [unowned self] in
                known.doubtAll()
                nextRound = min(nextRound, max(.now(), lastRound.advanced(by: LookupWork.gapTime)))
                hasNews = true
            },
            onClaims: { [known] in known.hear($0, at: .now()) }
        )
    }

    // MARK: All that a shard holds

    private func learnAll(_ input: FamilyLookup.Input) {
        let now = MonotonicTime.now()
        let isRound = now >= nextRound
        if isRound { (learned, lastRound) = ([:], now) }
        learned = learned.filter { input.processes[$0.key] == $0.value }
        let new = input.processes.keys.filter { learned[$0] == nil && silent[$0].map { now >= $0 } ?? true }.sorted()
        if !new.isEmpty {
            let (listing, listed) = list(new, input) { _ in true }
            known.learn(listing, isWhole: isRound && listed.count == input.processes.count)
            for shard in listed { learned[shard] = input.processes[shard] }
        }
        if isRound { nextRound = max(now.advanced(by: LookupWork.roundTime), .now()) }
        if !hasOwn, isRound || !new.isEmpty { hasOwn = learned.keys.sorted().contains { learnOwn(of: $0, input) } }
        // One that cannot be asked is not waited for.
        if !input.processes.isEmpty { known.isComplete = true }
    }

    /// - Returns: whether the shard has told its own families.
    private func learnOwn(of shard: ShardAddress, _ input: FamilyLookup.Input) -> Bool {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: "/metrics",
            headers: input.check.headers,
            timeout: LookupWork.listTimeout,
            bodyLimit: LookupWork.listLimit
        )
        guard case .response(let response) = session.send(request), response.status == 200 else { return false }
        known.learn(own: response.body.withUnsafeBytes { OwnFamilies.read($0) })
        return true
    }

    // MARK: What they hold of some families

    private func decideAll() {
        let now = MonotonicTime.now()
        // The check has been switched off meanwhile, or there is no shard.
        guard let input, !input.processes.isEmpty else { return questions.decideAll(at: now) }
        let due = questions.due(at: now)
        guard !due.isEmpty else { return }
        let names = FamilyQuestions.names(due)
        let shards = input.processes.keys.filter { silent[$0].map { now >= $0 } ?? true }.sorted()
        if names.contains(where: OwnFamilies.mayBecomeOne) {
            for shard in shards { _ = learnOwn(of: shard, input) }
        }
        let (listing, _) = list(shards, input) { names.contains($0) }
        questions.decide(due, by: listing, at: .now()) { [claims] in claims?.add($0) ?? .failed }
    }

    private func list(
        _ shards: [ShardAddress],
        _ input: FamilyLookup.Input,
        isWanted: ([UInt8]) -> Bool
    ) -> (TierListing, listed: [ShardAddress]) {
        var listing = TierListing(begun: .now())
        var listed: [ShardAddress] = []
        let requests = shards.map { shard in
            HTTPRequest(
                host: shard.host,
                port: shard.port,
                target: "/api/v1/metrics",
                headers: input.check.headers,
                timeout: LookupWork.listTimeout,
                bodyLimit: LookupWork.listLimit
            )
        }
        for (shard, outcome) in zip(shards, session.sendAll(requests, atOnce: LookupWork.atOnce)) {
            let isRead =
                if case .response(let response) = outcome, response.status == 200 {
                    response.body.withUnsafeBytes { body in
                        listing.add(body, of: shard, isWanted: isWanted) { counts($0, on: shard, input.ring) }
                    }
                } else {
                    false
                }
            if isRead {
                listed.append(shard)
                silent[shard] = nil
            } else {
                silent[shard] = MonotonicTime.now().advanced(by: LookupWork.silence)
                logger.debug("a shard cannot be listed for the check of pushes", metadata: ["shard": "\(shard)"])
            }
        }
        return (listing, listed)
    }

    /// What another shard than the owner has of a group, where nothing is on its way, is void.
    private func counts(_ group: GroupLabels, on shard: ShardAddress, _ ring: Ring?) -> Bool {
        guard let ring, !ring.isEmpty else { return true }
        return ring.shards[ring.owner(of: paths.hash(of: group))] == shard
    }

    private static let listLimit = 1 << 29
    private static let listTimeout = TimeSpan.seconds(5)
    private static let atOnce = 8
    private static let retryTime = TimeSpan.seconds(2)
    /// From one listing of all that a shard holds to the next.
    private static let roundTime = TimeSpan.seconds(60)
    /// The same where claims may have been missed: Consul may come and go.
    private static let gapTime = TimeSpan.seconds(10)
    /// How long a shard that could not be listed is not asked again.
    private static let silence = TimeSpan.seconds(30)
}
