// Reads the mark of a store when a process is seen for the first time, and marks a store that has none. The server makes one,
// tells it of new processes, and notes in the store book what it finds.
import Dispatch

/// Questions about, and pushes of, marks; loop-confined.
final class StoreMarker {
    /// What was found of a process.
    struct Finding {
        var shard: ShardAddress
        var process: String
        var mark: String
        /// How many groups the store held, shardd's own apart.
        var groups: Int
        /// Of which lines of registers the store has been a member.
        var tiers: Set<String>
    }

    private let loop: EventLoop
    private let resolver: Resolver
    private let onFinding: (Finding) -> Void
    /// Is told why a store cannot be marked.
    private let onRefusal: (ShardAddress, _ process: String, _ reason: String) -> Void
    /// Of every request to a shard.
    var headers: [(name: String, value: String)] = []
    private var calls: [ShardAddress: HTTPCall] = [:]
    private let decoding = DispatchQueue(label: "shardd.store-marker")
    private var waiting: [(done: () -> Void, limit: Timer)] = []

    init(
        loop: EventLoop,
        resolver: Resolver,
        onRefusal: @escaping (ShardAddress, _ process: String, _ reason: String) -> Void,
        onFinding: @escaping (Finding) -> Void
    ) {
        self.loop = loop
        self.resolver = resolver
        self.onRefusal = onRefusal
        self.onFinding = onFinding
    }

    /// Finds the mark of the store that a process has, or makes one.
    func mark(_ shard: ShardAddress, process: String) {
        loop.assertOnLoop()
        guard calls[shard] == nil else { return }
        ask(shard, "/metrics", accept: "text/plain;version=0.0.4") { [unowned self] exposition in
            decode({ exposition.withUnsafeBytes { GroupCensus(exposition: $0) } }) { [unowned self] in
                conclude(shard, process, $0)
            }
        } otherwise: { [unowned self] _ in
            // A scrape that fails, or is served elsewhere.
            ask(shard, "/api/v1/metrics") { [unowned self] body in
                decode({ body.withUnsafeBytes { ShardListing($0) { _ in .times }.map { GroupCensus($0) } } }) {
                    [unowned self] in
                    conclude(shard, process, $0)
                }
            } otherwise: { [unowned self] status in
                if let status, status < 500 {
                    onRefusal(shard, process, "neither /metrics nor /api/v1/metrics can be read: it answers \(status)")
                }
                end(shard)
            }
        }
    }

    /// Calls `done` once nothing is being asked, or after a time.
    func whenIdle(within limit: TimeSpan, _ done: @escaping () -> Void) {
        loop.assertOnLoop()
        guard !calls.isEmpty else { return done() }
        let timer = Timer(loop: loop) { [unowned self] in callWaiting() }
        timer.schedule(after: limit)
        waiting.append((done, timer))
    }

    private func callWaiting() {
        let waiting = self.waiting
        self.waiting = []
        for (done, _) in waiting { done() }
    }

    private func end(_ shard: ShardAddress) {
        calls[shard] = nil
        if calls.isEmpty { callWaiting() }
    }

    private func conclude(_ shard: ShardAddress, _ process: String, _ census: GroupCensus?) {
        guard let census else { return end(shard) }
        if let mark = census.marks.min() {
            let finding = Finding(
                shard: shard,
                process: process,
                mark: mark,
                groups: census.groups,
                tiers: census.tiers
            )
            onFinding(finding)
            return end(shard)
        }
        guard let mark = StoreMark.new(process: process) else { return end(shard) }
        let push = HTTPRequest(
            method: .put,
            host: shard.host,
            port: shard.port,
            target: StoreMark.path(mark),
            headers: headers + [("Content-Type", FamilyEncoder.contentType)],
            body: StoreMark.body(mark),
            timeout: StoreMarker.pushTimeout
        )
        calls[shard] = HTTPCall(loop: loop, resolver: resolver, push) { [unowned self] outcome in
            switch outcome {
            case .response(let response) where (200..<300).contains(response.status):
                let groups = census.groups
                onFinding(Finding(shard: shard, process: process, mark: mark, groups: groups, tiers: []))
            case .response(let response) where (400..<500).contains(response.status):
                onRefusal(shard, process, "it answers \(response.status) to a push of shardd's own")
            case .response, .failed: break
            }
            end(shard)
        }
    }

    private func ask(
        _ shard: ShardAddress,
        _ target: String,
        accept: String? = nil,
        _ done: @escaping ([UInt8]) -> Void,
        otherwise: @escaping (_ status: Int?) -> Void
    ) {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: target,
            headers: headers + (accept.map { [("Accept", $0)] } ?? []),
            timeout: StoreMarker.listTimeout,
            bodyLimit: StoreMarker.listLimit
        )
        calls[shard] = HTTPCall(loop: loop, resolver: resolver, request) { outcome in
            switch outcome {
            case .response(let response) where response.status == 200: done(response.body)
            case .response(let response): otherwise(response.status)
            case .failed: otherwise(nil)
            }
        }
    }

    /// Reads tens of megabytes at worst: not on the loop.
    private func decode(_ read: @escaping @Sendable () -> GroupCensus?, _ done: @escaping (GroupCensus?) -> Void) {
        let done = LoopBound(done, on: loop)
        decoding.async {
            let census = read()
            done.post { $0(census) }
        }
    }

    private static let pushTimeout = TimeSpan.seconds(5)
    private static let listTimeout = TimeSpan.seconds(30)
    /// Enough for a million series.
    private static let listLimit = 1 << 29
}
