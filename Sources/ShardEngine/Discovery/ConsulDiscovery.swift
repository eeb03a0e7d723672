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
    private var lastInstances = HealthyInstances()
    private var lastIndex: UInt64?
    private var backoff = Backoff(first: .milliseconds(500), limit: .seconds(15))
    private var lastResult: PollResult?
    /// Shards that Consul names but holds for unhealthy, with what is wrong with each.
    private(set) var faults: [ShardAddress: String] = [:]
    /// Whether Consul has named healthy shards.
    private var hasNamed = false
    /// Whether Consul could not be reached at some time since it last named shards: it may have lost its state since.
    private var wasAway = false
    /// The shards of the last answer that was followed; before it, those that will be registered.
    private var followed: [ShardAddress] = []
    private var expectation = Expectation()
    private var registrationBackoff = Backoff(first: .milliseconds(500), limit: .seconds(15))
    private var drains: DrainFollower?
    private var knownDrains: Set<ShardAddress> = []
    /// Servers that only agents of nodes that are gone have registered, when this was last seen to.
    private var orphans: Set<ShardAddress> = []
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
        if registrar != nil { followed = configuration.servers }
        timer = Timer(loop: loop) { [unowned self] in poll() }
        registrationTimer = Timer(loop: loop) { [unowned self] in register() }
        drains = DrainFollower(client: client, loop: loop, logger: logger) { [unowned self] in drainsChanged() }
    }

    /// Registers, and then polls: a poll before that would find half of the shards.
    func start() {
        loop.assertOnLoop()
        if registrar == nil { poll() } else { register() }
    }

    private func register() {
        registrationTimer?.cancel()
        registrar?.draining = draining
        registrar?.run { [unowned self] failure in
            let hadFailed = registrationBackoff.failureCount > 0
            if let failure {
                registrationTimer?.schedule(after: registrationBackoff.next())
                let metadata: Logger.Metadata = ["reason": "\(failure)"]
                if !hadFailed { logger.warning("shards cannot be registered with Consul", metadata: metadata) }
            } else {
                registrationBackoff.reset()
                if hadFailed { logger.info("shards can be registered with Consul again") }
            }
            expect(registrar?.announced ?? [])
            index.restart()
            if call == nil { poll() }
        }
    }

    private func poll() {
        timer?.cancel()
        call = client.instances(since: index) { [unowned self] outcome in
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
        // What an ACL hides may well be healthy: https://developer.hashicorp.com/consul/api-docs/api-structure
        guard response.header("X-Consul-Results-Filtered-By-ACLs") != "true" else {
            return failed(.refused, "an ACL hides shards from this token")
        }
        if index.update(response.header("X-Consul-Index")) {
            lostState()
            // Or it has just started and tells of what was: asked without an index, it answers with the latest.
            timer?.schedule(after: ConsulDiscovery.expectationInterval)
            return
        }
        lastIndex = HTTPOutcome.response(response).consulIndex
        let body = response.body
        if body == lastBody { return named(lastInstances.shards) }
        // Decoding the answer for a thousand shards takes tens of milliseconds: not on the loop.
        decoding.async { [this = WeakLoopBound(self, on: loop.mailbox)] in
            let instances = HealthyInstances(decoding: body)
            this.post { $0.decoded(body, instances) }
        }
    }

    private func decoded(_ body: [UInt8], _ instances: HealthyInstances?) {
        guard let instances else { return failed(.garbage, "its answer is not what it should be") }
        if !instances.unusable.isEmpty, instances.unusable != lastInstances.unusable {
            let metadata: Logger.Metadata = ["instances": "\(instances.unusable.joined(separator: ","))"]
            logger.warning("Consul names instances that have no address and port to push to", metadata: metadata)
        }
        lastBody = body
        lastInstances = instances
        named(instances.shards)
    }

    private func named(_ shards: [ShardAddress]) {
        if wasAway { recovered() }
        noteFaults()
        drains?.catalogueNames(Set(shards).union(lastInstances.faults.keys), index: lastIndex)
        registrar?.draining = draining
        guard !shards.isEmpty else {
            tendRegistrations()
            // Nobody is healthy, or an ACL hides them, or Consul has just lost its state.
            lostState()
            let count = lastInstances.faults.count
            let reason = count == 0 ? "it names no shard" : "none of the \(count) shards that it names is healthy"
            return failed(.empty, reason)
        }
        metrics.count(.success)
        note(.success, "")
        backoff.reset()
        hasNamed = true
        guard registrar?.isRunning != true, expectation.isMet(by: shards, at: loop.now) else {
            index.restart()
            timer?.schedule(after: ConsulDiscovery.expectationInterval)
            return
        }
        followed = shards
        tell()
        tendRegistrations()
        let isBlocking = settings.wait > .zero && index.value > 1
        timer?.schedule(after: isBlocking ? ConsulDiscovery.blockingPause : settings.pollInterval)
    }

    /// Shards that `shardd drain` is emptying.
    var draining: Set<ShardAddress> { drains?.shards ?? [] }

    /// Those of them that have yet to leave discovery.
    var stillNamed: Set<ShardAddress> { drains?.stillNamed ?? [] }

    /// Shards that are being drained have no place on the ring, whatever Consul says of them.
    private func tell() {
        let draining = self.draining
        let shards = followed.filter { !draining.contains($0) }
        if !shards.isEmpty { onChange(Membership(shards: shards, source: .consul)) }
    }

    private func drainsChanged() {
        let before = knownDrains
        knownDrains = draining
        registrar?.draining = draining
        guard hasNamed else { return }
        if !draining.isSubset(of: before) || draining == before { tell() }
        // A shard whose drain has ended may have been deregistered since the last answer.
        guard !before.isSubset(of: draining) else { return }
        index.restart()
        call = nil
        poll()
    }

    /// Has each server registered once, at an agent that is there.
    private func tendRegistrations() {
        guard let registrar, !registrar.isRunning else { return }
        registrar.removeDuplicates(lastInstances.registrations)
        let orphans = registrar.orphans(lastInstances.registrations)
        let isNew = !orphans.isSubset(of: self.orphans)
        self.orphans = orphans
        if isNew, registrationBackoff.failureCount == 0 { register() }
    }

    /// The shards that Consul named last and that are in maintenance.
    var maintained: Set<ShardAddress> { lastInstances.maintained }

    /// The shards that Consul named last and held for unhealthy, but for those that are being drained.
    var unhealthy: Set<ShardAddress> { Set(lastInstances.faults.keys).subtracting(draining) }

    /// Why a shard that Consul has named is named no more, or not as healthy.
    func reasonToLeave(_ shard: ShardAddress) -> String? {
        loop.assertOnLoop()
        loop.assertOnLoop()
        if draining.contains(shard) { return "it is being drained" }
        return faults[shard] ?? (hasNamed ? "Consul no longer names it" : nil)
    }

    private func noteFaults() {
        for shard in lastInstances.faults.keys where faults[shard] == nil { metrics.countCheckFailure(of: shard) }
        faults = lastInstances.faults
        metrics.keep { [lastInstances] in lastInstances.faults[$0] != nil || lastInstances.shards.contains($0) }
    }

    /// Consul answers again. It may have come back without a part of its state, which others are about to register.
    private func recovered() {
        wasAway = false
        expect(followed)
        if registrationBackoff.failureCount > 0 { register() }
    }

    /// Consul knows less than it did.
    private func lostState() {
        expect(followed)
        if registrationBackoff.failureCount == 0 { register() }
    }

    private func expect(_ shards: some Sequence<ShardAddress>) {
        expectation.add(shards, until: loop.now.advanced(by: ConsulDiscovery.expectationTime))
    }

    private func failed(_ result: PollResult, _ reason: String) {
        metrics.count(result)
        note(result, reason)
        if result == .unreachable { wasAway = true }
        // What it said of shards is out of date by the time that it answers again.
        if result != .empty { faults = [:] }
        index.restart()
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

    /// How long Consul may take to name what was registered, or what it named before it was away.
    private static let expectationTime = TimeSpan.seconds(10)
    private static let expectationInterval = TimeSpan.milliseconds(250)
    /// Between blocking queries, should each return at once.
    private static let blockingPause = TimeSpan.milliseconds(50)
}
