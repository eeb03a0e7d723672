// Telling one shard what it has missed: a DELETE for each group. Hints makes one when a shard comes back.

/// A delivery under way; loop-confined.
final class HintDelivery {
    let shard: ShardAddress
    /// Are called, in their order, when it has ended.
    var onEnd: [() -> Void] = []
    /// Paths that the shard could not be told of.
    private(set) var failed: [[UInt8]] = []
    private(set) var toldCount = 0
    private let headers: [(name: String, value: String)]
    private let store: HintStore?
    private let loop: EventLoop
    private let resolver: Resolver
    private var missed: Set<[UInt8]>
    private var left: [[UInt8]] = []
    private var keys: [String] = []
    private var calls: [Int: HTTPCall] = [:]
    private var nextCall = 0

    init(
        to shard: ShardAddress,
        _ missed: Set<[UInt8]>,
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
            missed.formUnion(stored.values.joined())
            begin()
        }
    }

    private func begin() {
        left = Array(missed)
        sendMore()
    }

    private func sendMore() {
        while calls.count < HintDelivery.atOnce, let path = left.popLast() {
            let id = nextCall
            nextCall += 1
            let request = HTTPRequest(
                method: .delete,
                host: shard.host,
                port: shard.port,
                target: String(decoding: path, as: UTF8.self),
                headers: headers,
                timeout: HintDelivery.timeout
            )
            calls[id] = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self] outcome in
                calls[id] = nil
                if case .failed = outcome { giveUp(path) } else { toldCount += 1 }
                sendMore()
            }
        }
        if calls.isEmpty { forgetNext() }
    }

    /// The shard has gone again: no use in waiting for it time and again.
    private func giveUp(_ path: [UInt8]) {
        failed.append(path)
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

    private static let atOnce = 16
    private static let timeout = TimeSpan.seconds(2)
}
