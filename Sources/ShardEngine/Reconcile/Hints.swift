// What shards that could not be reached have missed: PUTs and DELETEs that make void what they hold. A shard gets the
// DELETEs before it gets pushes again ("hinted handoff", as Dynamo and Cassandra call it). Handover owns the hints.
import Logging

/// Groups to remove from shards that were away; loop-confined.
final class Hints {
    private let loop: EventLoop
    private let resolver: Resolver
    private let logger: Logger
    /// Paths of the requests that each shard has missed.
    private var paths: [ShardAddress: Set<[UInt8]>] = [:]
    private var deliveries: [ShardAddress: Delivery] = [:]

    private final class Delivery {
        var left: [[UInt8]]
        var calls: [Int: HTTPCall] = [:]
        var next = 0
        var failed: [[UInt8]] = []
        var done: [() -> Void] = []

        init(_ paths: Set<[UInt8]>) {
            left = Array(paths)
        }
    }

    init(loop: EventLoop, resolver: Resolver, logger: Logger) {
        self.loop = loop
        self.resolver = resolver
        self.logger = logger
    }

    /// Remembers that a shard has missed a PUT or DELETE on the path.
    func add(_ shard: ShardAddress, path: [UInt8]) {
        guard paths[shard, default: []].count < Hints.limit else { return }
        paths[shard, default: []].insert(path)
        if paths[shard]?.count == Hints.limit {
            logger.warning(
                "a shard has missed too much to remember it all: old groups may come back with it",
                metadata: ["shard": "\(shard)"]
            )
        }
    }

    /// Whether there is something that the shard has missed.
    func has(_ shard: ShardAddress) -> Bool { paths[shard] != nil || deliveries[shard] != nil }

    /// Removes from the shard what it has missed the end of; `done` is called, now or later, when nothing is left or it
    /// cannot be reached: then it is remembered on.
    func deliver(to shard: ShardAddress, _ done: @escaping () -> Void) {
        if let delivery = deliveries[shard] { return delivery.done.append(done) }
        guard let missed = paths.removeValue(forKey: shard) else { return done() }
        logger.info("shard is told what it has missed", metadata: ["shard": "\(shard)", "groups": "\(missed.count)"])
        let delivery = Delivery(missed)
        delivery.done.append(done)
        deliveries[shard] = delivery
        sendMore(delivery, to: shard)
    }

    private func sendMore(_ delivery: Delivery, to shard: ShardAddress) {
        while delivery.calls.count < Hints.atOnce, let path = delivery.left.popLast() {
            let id = delivery.next
            delivery.next += 1
            let request = HTTPRequest(
                method: .delete,
                host: shard.host,
                port: shard.port,
                target: String(decoding: path, as: UTF8.self),
                timeout: Hints.timeout
            )
            delivery.calls[id] = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self] outcome in
                delivery.calls[id] = nil
                if case .failed = outcome { giveUp(delivery, path) }
                sendMore(delivery, to: shard)
            }
        }
        if delivery.calls.isEmpty { end(delivery, shard) }
    }

    /// The shard has gone again: no use in waiting for it time and again.
    private func giveUp(_ delivery: Delivery, _ path: [UInt8]) {
        delivery.failed.append(path)
        delivery.failed += delivery.left
        delivery.left = []
    }

    private func end(_ delivery: Delivery, _ shard: ShardAddress) {
        deliveries[shard] = nil
        if !delivery.failed.isEmpty { paths[shard, default: []].formUnion(delivery.failed) }
        for done in delivery.done { done() }
    }

    /// Groups that are remembered for one shard, at most.
    private static let limit = 100_000
    private static let atOnce = 16
    private static let timeout = TimeSpan.seconds(2)
}
