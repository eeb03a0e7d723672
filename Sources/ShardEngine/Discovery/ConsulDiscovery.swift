// Discovery by Consul: a timer polls for the healthy instances, by blocking queries where `wait` says so. Discovery owns
// it. Whatever Consul does or fails to do, the last ring stays until Consul names shards again.
import Dispatch
import Logging

/// Polls one Consul agent; loop-confined.
final class ConsulDiscovery {
    private let loop: EventLoop
    private let client: ConsulClient
    private let registrar: Registrar?
    private let metrics: DiscoveryMetrics
    private let logger: Logger
    private let onChange: (Membership) -> Void
    private let settings: Configuration.Consul
    private let decoding = DispatchQueue(label: "shardd.consul")
    private var index = ConsulIndex()
    private var lastBody: [UInt8] = []
    private var lastShards: [ShardAddress] = []
    private var backoff = Backoff(first: .milliseconds(500), limit: .seconds(15))
    private var lastResult: PollResult?
    /// Until when shards that have just been registered may be missing from Consul's answer.
    private var announcedUntil: MonotonicTime?
    private var registrationBackoff = Backoff(first: .milliseconds(500), limit: .seconds(15))
    private var timer: Timer?
    private var registrationTimer: Timer?
    private var call: HTTPCall?

    init(
        loop: EventLoop,
        resolver: Resolver,
        configuration: Configuration,
        settings: Configuration.Consul,
        metrics: DiscoveryMetrics,
        logger: Logger,
        onChange: @escaping (Membership) -> Void
    ) {
        self.loop = loop
        self.settings = settings
        self.metrics = metrics
        self.logger = logger
        self.onChange = onChange
        client = ConsulClient(loop: loop, resolver: resolver, settings: settings)
        registrar =
            settings.register && !configuration.servers.isEmpty
            ? Registrar(
                client: client,
                configuration: configuration,
                loop: loop,
                resolver: resolver,
                logger: logger
            ) : nil
        timer = Timer(loop: loop) { [unowned self] in poll() }
        registrationTimer = Timer(loop: loop) { [unowned self] in register() }
    }

    /// Registers, and then polls: a poll before that would find half of the shards.
    func start() {
        if registrar == nil { poll() } else { register() }
    }

    private func register() {
        registrar?.run { [unowned self] failure in
            if let failure {
                logger.warning("shards cannot be registered with Consul", metadata: ["reason": "\(failure)"])
                registrationTimer?.schedule(after: registrationBackoff.next())
            } else {
                registrationBackoff.reset()
                announcedUntil = loop.now.advanced(by: ConsulDiscovery.announcementTime)
                index.reset()
            }
            if call == nil { poll() }
        }
    }

    private func poll() {
        timer?.cancel()
        call = client.healthyInstances(since: index) { [unowned self] outcome in
            call = nil
            switch outcome {
            case .failed(let reason):
                failed(.unreachable, reason)
            case .response(let response) where response.status == 200:
                answered(response)
            case .response(let response):
                let text = String(decoding: response.body.prefix(200), as: UTF8.self)
                failed(.refused, "it answered \(response.status): \(text)")
            }
        }
    }

    private func answered(_ response: HTTPResponse) {
        let known = index
        let header = response.header("X-Consul-Index")
        index.update(header)
        // An answer without an index is not Consul's own, and tells nothing of its state.
        if header != nil, index.value == 0, known.value > 0 { lostState() }
        let body = response.body
        if body == lastBody { return named(lastShards) }
        // Decoding the answer for a thousand shards takes tens of milliseconds: not on the loop.
        decoding.async { [mailbox = loop.mailbox, this = WeakLoopBound(self)] in
            let shards = decodeHealthyShards(body)
            mailbox.post { this.object?.decoded(body, shards) }
        }
    }

    private func decoded(_ body: [UInt8], _ shards: [ShardAddress]?) {
        guard let shards else { return failed(.garbage, "its answer is not what it should be") }
        lastBody = body
        lastShards = shards
        named(shards)
    }

    private func named(_ shards: [ShardAddress]) {
        if shards.isEmpty {
            // Nobody is healthy, or an ACL hides them, or Consul has just lost its state.
            lostState()
            return failed(.empty, "it names no healthy shard")
        }
        if let announcedUntil, let registrar, loop.now < announcedUntil, !registrar.announced.isSubset(of: shards) {
            // The agent has not yet told the catalogue of what was registered a moment ago.
            timer?.schedule(after: ConsulDiscovery.announcementInterval)
            return
        }
        announcedUntil = nil
        metrics.count(.success)
        note(.success, "")
        backoff.reset()
        onChange(Membership(shards: shards, source: .consul))
        timer?.schedule(after: settings.wait > .zero ? .zero : settings.pollInterval)
    }

    private func lostState() {
        if registrar != nil, registrationBackoff.failureCount == 0 { register() }
    }

    private func failed(_ result: PollResult, _ reason: String) {
        metrics.count(result)
        note(result, reason)
        index.reset()
        timer?.schedule(after: max(settings.pollInterval, backoff.next()))
    }

    /// Logs a change of Consul's state, once.
    private func note(_ result: PollResult, _ reason: String) {
        guard result != lastResult else { return }
        defer { lastResult = result }
        if result == .success {
            if lastResult != nil { logger.info("Consul names healthy shards again") }
        } else {
            let metadata: Logger.Metadata = ["reason": "\(reason)", "result": "\(result.rawValue)"]
            logger.warning("Consul does not name healthy shards: the last ring stays", metadata: metadata)
        }
    }

    /// How long the catalogue may take to show what was registered with the agent.
    private static let announcementTime = TimeSpan.seconds(10)
    private static let announcementInterval = TimeSpan.milliseconds(100)
}
