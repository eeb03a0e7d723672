// Probes shards that refused a connection, until they answer: then the pushes that they own come to them again.
// Each worker owns one and hands it the pools that have become suspect.

/// Probes of suspect shards; loop-confined.
final class SuspectProber {
    /// What to ask, and how long to wait for the answer.
    var check: Configuration.Check
    /// Told of a shard that answers again; has to mark it up.
    var onAnswer: (ShardPool) -> Void = { $0.markUp() }
    private let loop: EventLoop
    private let resolver: Resolver
    private var watches: [ShardAddress: Watch] = [:]

    private final class Watch {
        let pool: ShardPool
        var probe: HealthProbe?
        var timer: Timer?
        var backoff = Backoff(first: .milliseconds(100), limit: .seconds(1))

        init(_ pool: ShardPool) {
            self.pool = pool
        }
    }

    init(loop: EventLoop, check: Configuration.Check, resolver: Resolver) {
        self.loop = loop
        self.check = check
        self.resolver = resolver
    }

    /// Probes the pool's shard until it answers, or is not on the ring any more.
    func watch(_ pool: ShardPool) {
        loop.assertOnLoop()
        // Another pool, after the shard has left the ring and come again, is another watch.
        guard watches[pool.shard]?.pool !== pool else { return }
        let watch = Watch(pool)
        watches[pool.shard] = watch
        watch.timer = Timer(loop: loop) { [unowned self, unowned watch] in probe(watch) }
        watch.timer?.schedule(after: watch.backoff.next())
    }

    private func probe(_ watch: Watch) {
        guard watch.pool.isSuspect, watch.pool.use != .none else {
            watches[watch.pool.shard] = nil
            return
        }
        watch.probe = HealthProbe(watch.pool.shard, check: check, loop: loop, resolver: resolver) {
            [unowned self, unowned watch] outcome in
            if outcome == .healthy {
                // The watch ends with its entry.
                let pool = watch.pool
                watches[pool.shard] = nil
                onAnswer(pool)
            } else {
                watch.pool.metrics.checkFailures += 1
                watch.timer?.schedule(after: watch.backoff.next())
            }
        }
    }
}
