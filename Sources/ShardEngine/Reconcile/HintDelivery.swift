// Telling one shard what it has missed: a DELETE for each group, or a PUT of what it has got since. Hints makes one when a
// shard comes back.
//
// A shard that hung goes on, when it is back, with the requests that its sockets have kept: these may come after the
// DELETEs. So there is a second look at what it holds, and another DELETE for what has come again.
import Dispatch

/// A delivery under way; loop-confined.
final class HintDelivery {
    let shard: ShardAddress
    /// Are called, in their order, when it has ended.
    var onEnd: [() -> Void] = []
    /// What the shard could not be told.
    private(set) var failed: [Hint] = []
    private(set) var toldCount = 0
    /// What is in no store yet.
    var unstored: [Hint] = []
    private let headers: [(name: String, value: String)]
    private let store: HintStore?
    private let loop: EventLoop
    private let resolver: Resolver
    /// By path, the last request.
    private var missed: [[UInt8]: Hint]
    private var left: [Correction] = []
    /// At what the shard holds.
    var looksLeft = 2
    private var pause: Timer?
    /// When the shard's process was started, in nanoseconds since 1970.
    private var startedAt: Int64 = 0
    /// Since when it answers again, in nanoseconds since 1970.
    private var returnedAt: Int64 = 0
    private var keys: [String] = []
    private var isStoreRead = true
    /// Whether nothing is left that it could not be told, as far as is known.
    var isComplete: Bool { failed.isEmpty && isStoreRead }
    private var calls: [Int: HTTPCall] = [:]
    private var nextCall = 0

    init(
        to shard: ShardAddress,
        _ missed: [[UInt8]: Hint],
        headers: [(name: String, value: String)],
        store: HintStore?,
        loop: EventLoop,
        resolver: Resolver
    ) {
        self.shard = shard
        self.missed = missed
        self.headers = headers
        self.store = store
        self.loop = loop
        self.resolver = resolver
        pause = Timer(loop: loop) { [unowned self] in look() }
    }

    /// Reads what is stored, and begins.
    func start() {
        loop.assertOnLoop()
        guard let store else { return begin() }
        calls[-1] = store.read(shard) { [unowned self] stored in
            calls[-1] = nil
            isStoreRead = stored != nil
            let stored = stored ?? [:]
            keys = Array(stored.keys)
            for hint in stored.values.joined() where hint.madeAt > missed[hint.path]?.madeAt ?? .min {
                missed[hint.path] = hint
            }
            begin()
        }
    }

    /// Asks since when the shard is back: a hint may have been stored late, and be told at a later return.
    private func begin() {
        guard !missed.isEmpty else { return forgetMore() }
        ask("/api/v1/status", within: HintDelivery.timeout) { [unowned self] status in
            startedAt = processStartTime(status).flatMap(nanoseconds(rfc3339:)) ?? 0
            returnedAt = max(startedAt, wallClockNanoseconds() - HintDelivery.noticeTime)
            look()
        }
    }

    /// Asks what the shard holds, and removes what is void.
    private func look() {
        looksLeft -= 1
        let hints = Array(missed.values)
        ask("/api/v1/metrics", within: HintDelivery.listTimeout) { [unowned self] body in
            // Tens of megabytes at worst: not on the loop.
            decoding.async { [this = WeakLoopBound(self, on: loop.mailbox), startedAt, returnedAt] in
                let left = HintDelivery.corrections(hints, in: body, startedAt: startedAt, returnedAt: returnedAt)
                this.post {
                    $0.left = left
                    $0.sendMore()
                }
            }
        }
    }

    private func ask(_ target: String, within timeout: TimeSpan, _ done: @escaping ([UInt8]) -> Void) {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: target,
            headers: headers,
            timeout: timeout,
            bodyLimit: HintDelivery.listLimit
        )
        calls[-1] = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self] outcome in
            calls[-1] = nil
            if case .response(let response) = outcome, response.status == 200 { return done(response.body) }
            failed = Array(missed.values)
            end()
        }
    }

    /// What becomes of a group.
    struct Correction {
        var hint: Hint
        /// What alone it is to have; nothing for a DELETE.
        var families: [MetricFamily] = []
    }

    /// What the shard has yet to be told, of groups that it has come back with. What it has got after a hint is right, and
    /// stays; but a shard that hung may have done late what its sockets have kept: what it has got since it answers again
    /// does not count, and is at the shards that stood in for it, too.
    static func corrections(_ hints: [Hint], in listing: [UInt8], startedAt: Int64, returnedAt: Int64) -> [Correction] {
        let path = GroupPath()
        // A group may have been named in several ways: by its labels in another order.
        var latest: [GroupLabels: Hint] = [:]
        for hint in hints {
            guard let group = path.group(at: hint.path) else { continue }
            if hint.madeAt > latest[group]?.madeAt ?? .min { latest[group] = hint }
        }
        // Some Pushgateways list a name as it was written, and not as it reads.
        func hint(of group: GroupLabels) -> Hint? {
            path.group(at: Array(path.path(of: group).utf8)).flatMap { latest[$0] }
        }
        let copies = listing.withUnsafeBytes { ShardListing($0) { hint(of: $0) == nil ? .times : .content } }
        let marks = copies?.marks ?? []
        return (copies?.groups ?? [:]).values.compactMap { copy in
            guard let hint = hint(of: copy.labels), hint.isFor(marks) else { return nil }
            let held = copy.families.values
            guard startedAt > hint.madeAt - HintDelivery.noticeTime else {
                let newest = held.map(\.pushedAt).filter { $0 < returnedAt }.max() ?? 0
                return newest <= hint.madeAt ? Correction(hint: hint) : nil
            }
            let right = held.filter { $0.pushedAt > hint.madeAt }
            if right.isEmpty { return Correction(hint: hint) }
            // What is pushed is new from then on: what is older might take the place of something newer elsewhere.
            let canBePushed = copy.obstacle == nil && right.allSatisfy { $0.pushedAt >= returnedAt }
            guard right.count < held.count, canBePushed else { return nil }
            return Correction(hint: hint, families: right.compactMap(\.content))
        }
    }

    private func sendMore() {
        while calls.count < HintDelivery.atOnce, let next = left.popLast() {
            let id = nextCall
            nextCall += 1
            calls[id] = HTTPCall(loop: loop, resolver: resolver, request(next)) { [unowned self] outcome in
                calls[id] = nil
                if case .response(let response) = outcome, (200..<300).contains(response.status) {
                    toldCount += 1
                } else {
                    giveUp(next.hint)
                }
                sendMore()
            }
        }
        guard calls.isEmpty else { return }
        if looksLeft > 0, failed.isEmpty { pause?.schedule(after: HintDelivery.lookPause) } else { forgetMore() }
    }

    private func request(_ correction: Correction) -> HTTPRequest {
        var encoder = FamilyEncoder()
        for family in correction.families { encoder.append(family) }
        let type = correction.families.isEmpty ? [] : [(name: "Content-Type", value: FamilyEncoder.contentType)]
        return HTTPRequest(
            method: correction.families.isEmpty ? .delete : .put,
            host: shard.host,
            port: shard.port,
            target: String(decoding: correction.hint.path, as: UTF8.self),
            headers: headers + type,
            body: encoder.bytes,
            timeout: HintDelivery.timeout
        )
    }

    /// The shard has gone again: no use in waiting for it time and again.
    private func giveUp(_ hint: Hint) {
        failed.append(hint)
        failed += left.map(\.hint)
        left = []
    }

    private func forgetMore() {
        while failed.isEmpty, calls.count < HintDelivery.atOnce, let store, let key = keys.popLast() {
            let id = nextCall
            nextCall += 1
            calls[id] = store.remove(key) { [unowned self] in
                calls[id] = nil
                forgetMore()
            }
        }
        if calls.isEmpty { end() }
    }

    private func end() {
        let onEnd = self.onEnd
        self.onEnd = []
        for done in onEnd { done() }
    }

    private let decoding = DispatchQueue(label: "shardd.hints")
    /// How long, in nanoseconds, it may take until a shard that hung, or was started, is seen to answer again.
    private static let noticeTime: Int64 = 5_000_000_000
    /// By when a shard that is back has taken in what its sockets have kept.
    private static let lookPause = TimeSpan.milliseconds(250)
    private static let listTimeout = TimeSpan.seconds(30)
    private static let listLimit = 1 << 29
    private static let atOnce = 16
    private static let timeout = TimeSpan.seconds(2)
}
