// Asks every address who is behind it: at first sight, before anything is sent there, and then in rounds. The server owns it,
// makes rings of the addresses that its book selects, and hands its map to all that remembers something of a shard.
import Logging

/// Questions to all addresses that are, or may become, shards; loop-confined.
final class Stores {
    private let loop: EventLoop
    private let resolver: Resolver
    private let logger: Logger
    /// Is called when the map, or what the book would select, may have changed.
    private let onChange: () -> Void
    /// Is called for each process that was not known behind its address before.
    private let onNewProcess: (ShardAddress, _ process: String) -> Void
    /// Is called for each process whose store's mark has not been read, at each answer.
    private let onUnmarked: (ShardAddress, _ process: String) -> Void
    private(set) var book = StoreBook()
    /// How often the process behind an address was found to be another one, since this replica started.
    private(set) var restartCounts: [ShardAddress: UInt64] = [:]
    /// Whether the Pushgateway at an address checks pushes for consistency; without those that do not tell.
    private(set) var checking: [ShardAddress: Bool] = [:]
    private var check: Configuration.Check
    private var watched: Set<ShardAddress> = []
    private var questions: [ShardAddress: Question] = [:]
    /// Addresses that this round has yet to ask.
    private var waiting: [ShardAddress] = []
    /// Addresses whose process was told in this round.
    private var identified: Set<ShardAddress> = []
    private var identifications: [Int: Identification] = [:]
    private var identificationCount = 0
    private var round: Timer?
    private var next: Timer?

    /// An address that is being asked.
    private struct Question {
        /// The process behind it when it was asked before.
        let before: String?
        /// How often it is to be asked, one time after the other.
        var wanted: Int
        var count = 0
        var call: HTTPCall?
    }

    /// Somebody who waits for what is known of some addresses.
    private final class Identification {
        var left: Set<ShardAddress>
        let done: () -> Void
        var limit: Timer?

        init(_ left: Set<ShardAddress>, _ done: @escaping () -> Void) {
            self.left = left
            self.done = done
        }
    }

    init(
        loop: EventLoop,
        resolver: Resolver,
        check: Configuration.Check,
        logger: Logger,
        onNewProcess: @escaping (ShardAddress, _ process: String) -> Void,
        onUnmarked: @escaping (ShardAddress, _ process: String) -> Void,
        onChange: @escaping () -> Void
    ) {
        self.loop = loop
        self.resolver = resolver
        self.check = check
        self.logger = logger
        self.onNewProcess = onNewProcess
        self.onUnmarked = onUnmarked
        self.onChange = onChange
        round = Timer(loop: loop) { [unowned self] in beginRound() }
        next = Timer(loop: loop) { [unowned self] in askNext() }
    }

    /// Asks these addresses, and no others, from now on.
    func watch(_ shards: Set<ShardAddress>, check: Configuration.Check) {
        loop.assertOnLoop()
        self.check = check
        guard shards != watched else { return }
        if watched.isEmpty { round?.schedule(after: interval) }
        watched = shards
        questions = questions.filter { shards.contains($0.key) }
        waiting = waiting.filter(shards.contains)
        book.keep(shards)
        restartCounts = restartCounts.filter { shards.contains($0.key) }
        checking = checking.filter { shards.contains($0.key) }
    }

    /// Asks the watched addresses among these that were never asked; calls `done`, now or later, when all have answered or
    /// have had the time to.
    func identify(_ shards: [ShardAddress], _ done: @escaping () -> Void) {
        loop.assertOnLoop()
        let unknown = Set(shards).intersection(watched).filter { !book.knows($0) }
        guard !unknown.isEmpty else { return done() }
        let identification = Identification(unknown, done)
        let id = identificationCount
        identificationCount += 1
        identifications[id] = identification
        identification.limit = Timer(loop: loop) { [unowned self] in end(id) }
        identification.limit?.schedule(after: TimeSpan(nanoseconds: 2 * timeout.nanoseconds))
        waiting = waiting.filter { !unknown.contains($0) } + unknown.sorted().reversed()
        askNext()
    }

    /// Asks a watched address now rather than in the next round.
    func askAnew(_ shard: ShardAddress) {
        loop.assertOnLoop()
        guard watched.contains(shard), questions[shard] == nil else { return }
        waiting = waiting.filter { $0 != shard } + [shard]
        askNext()
    }

    private func end(_ id: Int) {
        guard let identification = identifications.removeValue(forKey: id) else { return }
        book.endRound([])
        identification.done()
    }

    /// Notes the mark that was read from, or written to, the store of a process.
    func note(mark: String, tiers: Set<String>, of shard: ShardAddress, process: String) {
        loop.assertOnLoop()
        let before = book.map
        book.note(mark: mark, tiers: tiers, of: shard, process: process)
        if book.map != before { onChange() }
    }

    /// Notes why the store of a process cannot be marked.
    func note(refusal: String, of shard: ShardAddress, process: String) {
        loop.assertOnLoop()
        let isNew = book.lastingObstacle(of: shard) != refusal
        book.note(refusal: refusal, of: shard, process: process)
        if isNew { tell(refusal, shard) }
        onChange()
    }

    // MARK: Asking

    private var interval: TimeSpan {
        max(check.interval, TimeSpan(nanoseconds: UInt64(watched.count) * Stores.pace.nanoseconds))
    }

    private var timeout: TimeSpan { min(check.timeout, Stores.longestTimeout) }

    private func beginRound() {
        // A round that takes longer than its interval is not begun anew, or the last addresses would never have a turn.
        if waiting.isEmpty, questions.isEmpty { waiting = watched.sorted().reversed() }
        askNext()
        round?.schedule(after: interval)
    }

    /// Asks some, and the others a moment later: all at once would hold pushes up.
    private func askNext() {
        var left = Stores.questionsInATick
        while left > 0, questions.count < Stores.questionLimit, let shard = waiting.popLast() {
            guard questions[shard] == nil else { continue }
            left -= 1
            questions[shard] = Question(before: book.process(of: shard), wanted: book.knows(shard) ? 1 : 2)
            ask(shard)
        }
        if !waiting.isEmpty { next?.schedule(after: Stores.tick) }
    }

    private func ask(_ shard: ShardAddress) {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: "/api/v1/status",
            headers: check.headers,
            timeout: timeout
        )
        questions[shard]?.count += 1
        questions[shard]?.call = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self] outcome in
            let finding = StoreFinding(outcome)
            let latest = book.process(of: shard)
            let flags = ShardFlags(outcome)
            record(finding, of: shard, flags.fileInterval)
            if let isChecking = flags.isChecking { checking[shard] = isChecking }
            guard let question = questions[shard] else { return }
            // At first sight, and where another process answers than a moment ago, an address that leads to several stores
            // is given the time to show it.
            let isUnsteady = latest != nil && latest != book.process(of: shard)
            questions[shard]?.wanted = isUnsteady ? min(question.count + 2, Stores.mostQuestions) : question.wanted
            if finding.isOfSomebody, question.count < questions[shard]?.wanted ?? 0 { return ask(shard) }
            answered(shard)
        }
    }

    private func record(_ finding: StoreFinding, of shard: ShardAddress, _ fileInterval: TimeSpan?) {
        let obstacle = book.obstacle(of: shard)
        book.record(finding, of: shard, fileInterval: fileInterval)
        guard let reason = book.obstacle(of: shard), reason != obstacle else { return }
        tell(reason, shard)
    }

    private func tell(_ reason: String, _ shard: ShardAddress) {
        logger.warning(
            "the store of a shard cannot be told: it gets pushes, and shardd deletes nothing there",
            metadata: ["shard": "\(shard)", "reason": "\(reason)"]
        )
    }

    private func answered(_ shard: ShardAddress) {
        guard let question = questions.removeValue(forKey: shard) else { return }
        if let identity = book.map.identity(of: shard) {
            identified.insert(shard)
            if let before = question.before, before != identity.process { restartCounts[shard, default: 0] += 1 }
            if identity.process != question.before {
                onNewProcess(shard, identity.process)
            } else if book.isUnread(shard) {
                onUnmarked(shard, identity.process)
            }
        }
        for (id, identification) in identifications where identification.left.remove(shard) != nil {
            if identification.left.isEmpty { end(id) }
        }
        guard waiting.isEmpty, questions.isEmpty else { return askNext() }
        book.endRound(identified)
        identified = []
        onChange()
    }

    private static let mostQuestions = 8
    private static let longestTimeout = TimeSpan.seconds(1)
    /// Between two questions, on average.
    private static let pace = TimeSpan.milliseconds(20)
    private static let tick = TimeSpan.milliseconds(10)
    private static let questionsInATick = 8
    /// How many descriptors questions may take at a time.
    private static let questionLimit = 32
}

extension StoreFinding {
    /// What an answer to `GET /api/v1/status` tells.
    init(_ outcome: HTTPOutcome) {
        switch outcome {
        case .failed(let reason):
            self = .unreachable(reason)
        case .response(let response) where response.header("Server")?.hasPrefix("shardd") == true:
            self = .shardd
        case .response(let response) where response.status >= 500:
            self = .unreachable("/api/v1/status answered \(response.status)")
        case .response(let response) where response.status != 200:
            self = .unidentified("/api/v1/status answered \(response.status)")
        case .response(let response):
            let process = processStartTime(response.body)
            self = process.map { .process($0) } ?? .unidentified("/api/v1/status tells no start_time")
        }
    }
}

/// When a shard's process was started, by its answer to `/api/v1/status`.
func processStartTime(_ status: [UInt8]) -> String? {
    var time: String?
    status.withUnsafeBytes { body in
        var scanner = JSONScanner(body)
        scanner.object { scanner, name in
            guard name == "data", scanner.peek() == 0x7B else { return scanner.skip() }
            scanner.object { scanner, name in
                if name == "start_time" { time = scanner.string() } else { scanner.skip() }
            }
        }
    }
    return time
}
