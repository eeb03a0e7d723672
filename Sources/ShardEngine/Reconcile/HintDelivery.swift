// Telling one shard what it has missed: a DELETE for each group. Hints makes one when a shard comes back.
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

    private func begin() {
        guard !missed.isEmpty else { return forgetNext() }
        ask("/api/v1/status") { [unowned self] body in
            let hints = missed.map { Hint(path: $0.key, madeAt: $0.value) }
            let now = wallClockNanoseconds()
            let startedAt = processStartTime(body).flatMap(nanoseconds(rfc3339:)) ?? 0
            let isYoung = now - startedAt < HintDelivery.youth
            // What pushes it may have got already are at those that stood in for it, too.
            left = hints.filter { isYoung || now - $0.madeAt < HintDelivery.recent }
            let old = hints.filter { !isYoung && now - $0.madeAt >= HintDelivery.recent }
            if old.isEmpty { sendMore() } else { leaveOutOld(old) }
        }
    }

    /// Asks what the shard holds: it may have been back for long, with what was pushed to it since.
    private func leaveOutOld(_ hints: [Hint]) {
        ask("/api/v1/metrics") { [unowned self] body in
            // Tens of megabytes at worst: not on the loop.
            decoding.async { [mailbox = loop.mailbox, this = LoopBound(self)] in
                let void = HintDelivery.void(of: hints, in: body)
                mailbox.post {
                    this.value.left += void
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

    /// Those hints that the shard still has to be told.
    private static func void(of hints: [Hint], in listing: [UInt8]) -> [Hint] {
        let path = GroupPath()
        let parser = GroupingKeyParser(key: .group)
        var newest: [[UInt8]: Int64] = [:]
        for (labels, copy) in listing.withUnsafeBytes({ ShardListing($0) { _ in .times } })?.groups ?? [:] {
            let time = copy.families.values.map(\.pushedAt).max() ?? 0
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
                if case .failed = outcome { giveUp(hint) } else { toldCount += 1 }
                sendMore()
            }
        }
        if calls.isEmpty { forgetNext() }
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
    /// For how many nanoseconds after its start a shard may hold what is void, whatever else it has got by then.
    private static let youth: Int64 = 5_000_000_000
    /// For how many nanoseconds a hint is told whatever the shard has got: one that hung gets old pushes late.
    private static let recent: Int64 = 60_000_000_000
    private static let listTimeout = TimeSpan.seconds(30)
    private static let listLimit = 1 << 29
    private static let atOnce = 16
    private static let timeout = TimeSpan.seconds(2)
}
