// Telling one shard what it has missed: a DELETE for each group. Hints makes one when a shard comes back.
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
    private let headers: [(name: String, value: String)]
    private let store: HintStore?
    private let loop: EventLoop
    private let resolver: Resolver
    /// By path, when the last request was made.
    private var missed: [[UInt8]: Int64]
    private var left: [Hint] = []
    private var looksLeft = 2
    private var pause: Timer?
    /// When the shard's process was started, in nanoseconds since 1970.
    private var startedAt: Int64 = 0
    /// Since when it answers again, in nanoseconds since 1970.
    private var returnedAt: Int64 = 0
    private var keys: [String] = []
    private var calls: [Int: HTTPCall] = [:]
    private var nextCall = 0

    init(
        to shard: ShardAddress,
        _ missed: [[UInt8]: Int64],
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
        guard let store else { return begin() }
        calls[-1] = store.read(shard) { [unowned self] stored in
            calls[-1] = nil
            keys = Array(stored.keys)
            for hint in stored.values.joined() { missed[hint.path] = max(hint.madeAt, missed[hint.path] ?? .min) }
            begin()
        }
    }

    /// Asks since when the shard is back: a hint may have been stored late, and be told at a later return.
    private func begin() {
        guard !missed.isEmpty else { return forgetNext() }
        ask("/api/v1/status") { [unowned self] status in
            startedAt = processStartTime(status).flatMap(nanoseconds(rfc3339:)) ?? 0
            returnedAt = max(startedAt, wallClockNanoseconds() - HintDelivery.noticeTime)
            look()
        }
    }

    /// Asks what the shard holds, and removes what is void.
    private func look() {
        looksLeft -= 1
        let hints = missed.map { Hint(path: $0.key, madeAt: $0.value) }
        ask("/api/v1/metrics") { [unowned self] body in
            // Tens of megabytes at worst: not on the loop.
            decoding.async { [mailbox = loop.mailbox, this = LoopBound(self), startedAt, returnedAt] in
                let void = HintDelivery.void(hints, in: body, startedAt: startedAt, returnedAt: returnedAt)
                mailbox.post {
                    this.value.left = void
                    this.value.sendMore()
                }
            }
        }
    }

    private func ask(_ target: String, _ done: @escaping ([UInt8]) -> Void) {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: target,
            headers: headers,
            timeout: HintDelivery.listTimeout,
            bodyLimit: HintDelivery.listLimit
        )
        calls[-1] = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self] outcome in
            calls[-1] = nil
            if case .response(let response) = outcome, response.status == 200 { return done(response.body) }
            failed = missed.map { Hint(path: $0.key, madeAt: $0.value) }
            end()
        }
    }

    /// Those hints that the shard still has to be told: of groups that it has come back with, and that were not pushed to it
    /// after the hint. What it has got since it is back is at the shards that stood in for it, too, and does not count: what
    /// hung in its sockets may come late. A process that was started after the hint has no such sockets, and what has come
    /// to it alone is right.
    static func void(_ hints: [Hint], in listing: [UInt8], startedAt: Int64, returnedAt: Int64) -> [Hint] {
        let path = GroupPath()
        let parser = GroupingKeyParser(key: .group)
        var newest: [[UInt8]: Int64] = [:]
        for (labels, copy) in listing.withUnsafeBytes({ ShardListing($0) { _ in .times } })?.groups ?? [:] {
            let times = copy.families.values.map(\.pushedAt)
            let time = times.filter { $0 < returnedAt }.max() ?? (times.isEmpty ? 0 : startedAt)
            let text = Array(path.text(of: labels).utf8)
            newest[text] = max(time, newest[text] ?? .min)
        }
        return hints.filter { hint in
            let text = hint.path.withUnsafeBytes { bytes in
                _ = parser.hash(path: bytes)
                return Array(parser.text)
            }
            return newest[text].map { $0 <= hint.madeAt } ?? false
        }
    }

    private func sendMore() {
        while calls.count < HintDelivery.atOnce, let hint = left.popLast() {
            let id = nextCall
            nextCall += 1
            let request = HTTPRequest(
                method: .delete,
                host: shard.host,
                port: shard.port,
                target: String(decoding: hint.path, as: UTF8.self),
                headers: headers,
                timeout: HintDelivery.timeout
            )
            calls[id] = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self] outcome in
                calls[id] = nil
                if case .response(let response) = outcome, (200..<300).contains(response.status) {
                    toldCount += 1
                } else {
                    giveUp(hint)
                }
                sendMore()
            }
        }
        guard calls.isEmpty else { return }
        if looksLeft > 0, failed.isEmpty { pause?.schedule(after: HintDelivery.lookPause) } else { forgetNext() }
    }

    /// The shard has gone again: no use in waiting for it time and again.
    private func giveUp(_ hint: Hint) {
        failed.append(hint)
        failed += left
        left = []
    }

    private func forgetNext() {
        guard failed.isEmpty, let store, let key = keys.popLast() else { return end() }
        calls[-1] = store.remove(key) { [unowned self] in
            calls[-1] = nil
            forgetNext()
        }
    }

    private func end() {
        let onEnd = self.onEnd
        self.onEnd = []
        for done in onEnd { done() }
    }

    private let decoding = DispatchQueue(label: "shardd.hints")
    /// How long, in nanoseconds, it may take until a shard that hung is seen to answer again.
    private static let noticeTime: Int64 = 5_000_000_000
    /// By when a shard that is back has taken in what its sockets have kept.
    private static let lookPause = TimeSpan.milliseconds(250)
    private static let listTimeout = TimeSpan.seconds(30)
    private static let listLimit = 1 << 29
    private static let atOnce = 16
    private static let timeout = TimeSpan.seconds(2)
}
