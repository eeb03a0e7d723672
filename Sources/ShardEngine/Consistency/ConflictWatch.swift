// Finds shards whose scrape fails, so that they are healed. The server owns it, and gives it the shards while this replica moves
// groups; it asks each for its /metrics, and hangs up after the head where that succeeds: the shard does all of its work for that.

/// Asks shards whether they can be scraped; confined to the server's loop.
final class ConflictWatch {
    /// Told of a shard each time that its scrape fails, and what it answers; returns whether it is healed from now on, and not already.
    var onFailure: (ShardAddress, _ fault: String) -> Bool = { _, _ in false }
    /// Told of a shard whose scrape succeeds after it has failed.
    var onSuccess: (ShardAddress) -> Void = { _ in }
    private let loop: EventLoop
    private let resolver: Resolver
    private var headers: [(name: String, value: String)] = []
    private var watched: [ShardAddress: Watched] = [:]

    /// One process of a shard.
    private final class Watched {
        let process: String
        var timer: Timer?
        var call: HTTPCall?
        /// How often in a row it was to be healed.
        var attempts = 0
        var hasFailed = false

        init(_ process: String) { self.process = process }
    }

    init(loop: EventLoop, resolver: Resolver) { (self.loop, self.resolver) = (loop, resolver) }

    /// Watches these processes from now on, new ones at once.
    func update(_ processes: [ShardAddress: String], headers: [(name: String, value: String)]) {
        loop.assertOnLoop()
        self.headers = headers
        watched = watched.filter { processes[$0.key] == $0.value.process }
        for (shard, process) in processes where watched[shard] == nil {
            let new = Watched(process)
            watched[shard] = new
            new.timer = Timer(loop: loop) { [unowned self, unowned new] in ask(shard, new) }
            new.timer?.schedule(after: .zero)
        }
    }

    private func ask(_ shard: ShardAddress, _ one: Watched) {
        let begun = loop.now
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: "/metrics",
            headers: headers,
            timeout: ConflictWatch.limit,
            bodyLimit: ConflictWatch.faultLimit,
            endsAtGoodHead: true
        )
        one.call = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self, unowned one] outcome in
            one.call = nil
            let taken = MonotonicTime.now().since(begun)
            let before = one.hasFailed
            if case .response(let response) = outcome, response.status == 500 {
                one.hasFailed = true
                if onFailure(shard, String(decoding: response.body, as: UTF8.self)) { one.attempts += 1 }
            } else {
                (one.hasFailed, one.attempts) = (false, 0)
            }
            one.timer?.schedule(after: ConflictWatch.pause(taken: taken, one.hasFailed, attempts: one.attempts))
            if before, !one.hasFailed { onSuccess(shard) }
        }
    }

    /// How long a shard is left alone after an answer that took so long: while it fails, as long as healing it takes at first, and
    /// then longer and longer, as it seems not to be healed.
    static func pause(taken: TimeSpan, _ hasFailed: Bool, attempts: Int) -> TimeSpan {
        guard hasFailed else { return max(interval, TimeSpan(nanoseconds: 10 * taken.nanoseconds)) }
        let again = TimeSpan.seconds(Double(1 << min(max(0, attempts - quickTries), 6)))
        return max(again, TimeSpan(nanoseconds: 2 * taken.nanoseconds))
    }

    private static let interval = TimeSpan.seconds(5)
    private static let limit = TimeSpan.seconds(30)
    private static let quickTries = 5
    /// An error for each metric that is wrong.
    private static let faultLimit = 1 << 26
}
