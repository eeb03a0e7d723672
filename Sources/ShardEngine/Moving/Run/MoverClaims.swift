// How replicas without Consul learn that more than one of them would move groups: each that may keeps a group of shardd's own in
// every shard, its claim, and looks for those of others before it begins, and while anything moves. The server owns it, and moves
// nothing while it sees another one's.
import MovingCore

/// The claims of replicas without Consul; loop-confined.
final class MoverClaims {
    /// Is called when another claim is seen, or is not any more.
    var onChange: () -> Void = {}
    private let loop: EventLoop
    private let calls: StoreCalls
    /// The replica's: the same after a restart.
    private let name: String
    /// Whether anything is moving by this replica.
    private let isMoving: () -> Bool
    private var shards: [ShardAddress] = []
    private var others: Set<String> = []
    private var next: Timer?
    private var isOver = false

    init(loop: EventLoop, resolver: Resolver, name: String, isMoving: @escaping () -> Bool) {
        self.loop = loop
        self.name = name
        self.isMoving = isMoving
        calls = StoreCalls(loop: loop, resolver: resolver)
        next = Timer(loop: loop) { [unowned self] in renew() }
    }

    /// Why this replica must not move anything; nil where it may.
    var hindrance: MovingHindrance? {
        guard !others.isEmpty else { return nil }
        let names = others.sorted().joined(separator: ", ")
        let reason = "without Consul one replica alone may move groups, and this one would too: \(names); "
        return MovingHindrance(obstacle: .movers, reason: reason + "set reconcile.enabled to false in all but one")
    }

    /// Claims these shards from now on.
    func claim(_ shards: [ShardAddress], headers: [(name: String, value: String)]) {
        self.shards = shards
        calls.headers = headers
    }

    /// Claims the shards, looks for others' claims once, and goes on doing so now and then.
    func begin(_ done: @escaping () -> Void) {
        claimAll { [weak self] in self?.look(done) }
        next?.schedule(after: MoverClaims.interval)
    }

    /// Something is about to move: looks for others' claims at once.
    func lookAgain() { claimAll { [weak self] in self?.look {} } }

    /// Takes the claims back.
    func withdraw(_ done: @escaping () -> Void) {
        isOver = true
        next = nil
        var left = shards.count
        guard left > 0 else { return done() }
        for shard in shards {
            let question = StoreQuestions(calls: calls, address: shard)
            question.send(.delete, MoverClaim.path(name), [], within: MoverClaims.goodbyeTime) { _ in
                left -= 1
                if left == 0 { done() }
            }
        }
    }

    private func renew() {
        next?.schedule(after: MoverClaims.interval)
        let looks = !others.isEmpty || isMoving()
        claimAll { [weak self] in if looks { self?.look {} } }
    }

    private func claimAll(_ done: @escaping () -> Void) {
        var left = shards.count
        guard left > 0 else { return loop.park(done) }
        for shard in shards {
            let question = StoreQuestions(calls: calls, address: shard)
            question.send(.put, MoverClaim.path(name), MoverClaim.body, within: MoverClaims.pushTime) { _ in
                left -= 1
                if left == 0 { done() }
            }
        }
    }

    /// Reads the claims in all shards, as one may have been restarted without its file: by when they were pushed they are told
    /// from those of replicas that are gone.
    private func look(_ done: @escaping () -> Void) {
        var left = shards.count
        var found: Set<String> = []
        guard left > 0 else { return done() }
        for shard in shards {
            StoreQuestions(calls: calls, address: shard).get("/metrics", within: MoverClaims.lookTime) {
                [weak self] end in
                guard let self else { return }
                if case .answered(let response) = end, response.status == 200 {
                    found.formUnion(alive(in: response.body))
                }
                left -= 1
                guard left == 0 else { return }
                take(found)
                done()
            }
        }
    }

    private func alive(in exposition: [UInt8]) -> [String] {
        let claims = exposition.withUnsafeBytes { GroupCensus(exposition: $0).claims }
        guard let own = claims[name] else { return [] }
        return claims.filter { $0.key != name && $0.value > own - MoverClaims.lifetime }.map(\.key)
    }

    private func take(_ found: Set<String>) {
        guard !isOver, found != others else { return }
        others = found
        onChange()
    }

    private static let interval = TimeSpan.seconds(20)
    /// In seconds: a claim that was not renewed for so long is that of a replica that is gone.
    private static let lifetime = 50.0
    private static let pushTime = TimeSpan.seconds(1)
    private static let lookTime = TimeSpan.seconds(5)
    private static let goodbyeTime = TimeSpan.milliseconds(300)
}

/// The group by which a replica claims to move groups.
enum MoverClaim {
    /// Names the replica in the group.
    static let label = "mover"
    static let body = FamilyEncoder.withoutMetrics("shardd_store_mover")

    /// Where it is pushed.
    static func path(_ name: String) -> String { "/metrics/job/\(StoreMark.job)/\(label)/\(name)" }
}
