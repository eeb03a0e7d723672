// What shards that could not be reached have missed: PUTs and DELETEs that make void what they hold. A shard gets the
// DELETEs before it gets pushes again ("hinted handoff", as Dynamo and Cassandra call it). Handover has them told; the
// forwarders of all workers add to them, through the server.
import Logging

/// A PUT or DELETE that a shard has missed.
struct Hint: Equatable, Sendable {
    /// The path of the request.
    var path: [UInt8]
    /// When it was made, in nanoseconds since 1970: what the shard has got later is not void.
    var madeAt: Int64
    /// The mark of the store that has missed it; nil where that was not known.
    var store: String?
    /// The mark of the store that has done it; nil where that was not known.
    var doneBy: String?

    /// Whether it is for the store with these marks: an address may lead to another one by now, even to the one that has
    /// done the request.
    func isFor(_ marks: Set<String>) -> Bool {
        if let doneBy, marks.contains(doneBy) { return false }
        if let store { return marks.contains(store) }
        return doneBy != nil && !marks.isEmpty
    }
}

/// Groups to remove from shards that were away; loop-confined.
final class Hints {
    private struct Waiting {
        /// At what the shard holds.
        var looks = 1
        var done: [() -> Void] = []
    }

    private struct CatchUp {
        var done: [() -> Void]
        /// Until when it may go on.
        var deadline: MonotonicTime?
    }

    private let loop: EventLoop
    private let resolver: Resolver
    private let logger: Logger
    /// Where hints are kept beyond this process; nil without Consul.
    var store: HintStore? {
        didSet {
            stored = []
            isStoreAway = false
            store?.watch { [unowned self] in
                stored = $0
                noteUntold()
            }
        }
    }
    /// Shards that something is stored of, by any replica.
    private var stored: Set<ShardAddress> = []
    /// Which stores the shards are.
    var stores = StoreMap()
    /// Of every request to a shard.
    var headers: [(name: String, value: String)] = []
    /// Paths of the requests that each shard has missed, and when the last one on each was made.
    private var hints: [ShardAddress: [[UInt8]: Hint]] = [:]
    private var unstored: [ShardAddress: [(hint: Hint, done: () -> Void)]] = [:]
    private var writing: (call: HTTPCall, shard: ShardAddress)?
    /// What waits for the write under way.
    private var afterWrite: [() -> Void] = []
    private var isStoreAway = false
    private var retry: Timer?
    private var deliveries: [ShardAddress: HintDelivery] = [:]
    /// What waits for another delivery, after the one under way, which need not tell all.
    private var waiting: [ShardAddress: Waiting] = [:]
    /// What is to be called once a shard that is back has been told what it has missed meanwhile, too.
    private var catchingUp: [ShardAddress: CatchUp] = [:]
    /// Those that are to be told again in a moment.
    private var dueAgain: Set<ShardAddress> = []
    private var nextRound: Timer?
    /// Shards that could not be told all at the last attempt, as they or Consul did not answer.
    private var unreached: Set<ShardAddress> = []
    /// Whether a shard takes part, so that it is told soon of what it has missed while it did.
    var isInUse: (ShardAddress) -> Bool = { _ in false }
    /// Is told which shards there are hints for, at each change.
    var onUntold: ((Set<ShardAddress>) -> Void)?
    private var untold: Set<ShardAddress> = []
    private var telling: Timer?
    private var isTellingDue = false

    init(loop: EventLoop, resolver: Resolver, logger: Logger) {
        self.loop = loop
        self.resolver = resolver
        self.logger = logger
        retry = Timer(loop: loop) { [unowned self] in writeNext() }
        telling = Timer(loop: loop) { [unowned self] in tellThoseInUse() }
        nextRound = Timer(loop: loop) { [unowned self] in tellAgain() }
    }

    /// Remembers that a shard has missed a PUT or DELETE on the path, which another shard has done; `done` is called, now or
    /// later, when it is stored, or cannot be.
    func add(_ shard: ShardAddress, path: [UInt8], doneBy: ShardAddress, _ done: @escaping () -> Void) {
        loop.assertOnLoop()
        guard hints[shard, default: [:]].count < Hints.limit else { return done() }
        let hint = Hint(
            path: path,
            madeAt: wallClockNanoseconds(),
            store: stores.identity(of: shard)?.mark,
            doneBy: stores.identity(of: doneBy)?.mark
        )
        let isNew = hints[shard]?[path].map { $0.store != hint.store } ?? true
        hints[shard, default: [:]][path] = hint
        noteUntold()
        if isNew, hints[shard]?.count == Hints.limit {
            logger.warning(
                "a shard has missed too much to remember it all: old groups may come back with it",
                metadata: ["shard": "\(shard)"]
            )
        }
        // Consul would not take so long a path, and others must not wait for it.
        guard store != nil, path.count < Hints.batchSize else { return done() }
        if isStoreAway {
            // It is stored when Consul is back; no request waits for that.
            if isNew { unstored[shard, default: []].append((hint, {})) }
            done()
        } else if isNew || !isSomethingStored(of: shard) {
            unstored[shard, default: []].append((hint, done))
            writeNext()
        } else {
            done()
        }
    }

    /// Whether something is stored of the shard, or about to be: if not, another replica has told it all and forgotten it.
    private func isSomethingStored(of shard: ShardAddress) -> Bool {
        stored.contains(shard) || unstored[shard] != nil || writing?.shard == shard
    }

    private func writeNext() {
        guard writing == nil else { return }
        // Where a shard has been told in the meantime, nothing may be left by which Consul could show that it is back.
        guard let (shard, waiting) = unstored.first else { return isStoreAway = false }
        guard let store else {
            // Moving groups, or Consul, has been taken out of the file.
            let left = unstored.values.joined()
            unstored = [:]
            for hint in left { hint.done() }
            return
        }
        let batch = Hints.batch(of: waiting)
        unstored[shard] = waiting.count > batch.count ? Array(waiting.dropFirst(batch.count)) : nil
        let call = store.write(batch.map(\.hint), for: shard) { [unowned self] isStored in
            writing = nil
            isStoreAway = !isStored
            for hint in batch { hint.done() }
            if !isStored { storeLater(batch.map(\.hint), for: shard) }
            let waiting = afterWrite
            afterWrite = []
            for body in waiting { body() }
            if isStored { writeNext() }
        }
        writing = (call, shard)
    }

    private func storeLater(_ hints: [Hint], for shard: ShardAddress) {
        for waiting in unstored.values { for hint in waiting { hint.done() } }
        unstored = unstored.mapValues { waiting in waiting.map { ($0.hint, {}) } }
        unstored[shard, default: []] += hints.map { ($0, {}) }
        retry?.schedule(after: Hints.retryInterval)
    }

    /// Tells a shard that is back what it has missed, and what it misses while it is told, until next to nothing is left:
    /// what it gets before it knows of a PUT has to be told apart from what that has made void.
    func catchUp(_ shard: ShardAddress, _ done: @escaping () -> Void) {
        loop.assertOnLoop()
        guard catchingUp[shard] == nil else {
            catchingUp[shard]?.done.append(done)
            return
        }
        catchingUp[shard] = CatchUp(done: [done])
        deliver(to: shard) { [unowned self] in
            catchingUp[shard]?.deadline = MonotonicTime.now().advanced(by: Hints.catchUpTime)
            goOn(shard)
        }
    }

    private func goOn(_ shard: ShardAddress) {
        let isBeingTold = deliveries[shard] != nil
        let isSomethingLeft = isBeingTold || stored.contains(shard) || hints[shard]?.isEmpty == false
        let isInTime = catchingUp[shard]?.deadline.map { MonotonicTime.now() < $0 } ?? false
        if isSomethingLeft, isInTime, !unreached.contains(shard) {
            dueAgain.insert(shard)
            nextRound?.schedule(after: Hints.roundPause)
        } else {
            for done in catchingUp.removeValue(forKey: shard)?.done ?? [] { done() }
        }
    }

    private func tellAgain() {
        let shards = dueAgain
        dueAgain = []
        for shard in shards { deliver(to: shard, looks: 1) { [unowned self] in goOn(shard) } }
    }

    /// Removes from the shard what it has missed the end of; `done` is called, now or later, when nothing is left or it
    /// cannot be reached: then it is remembered on.
    ///
    /// - Parameter looks: at what it holds; what comes of its sockets late, only a second one sees.
    func deliver(to shard: ShardAddress, looks: Int = 2, _ done: @escaping () -> Void) {
        loop.assertOnLoop()
        guard deliveries[shard] == nil else {
            let known = waiting[shard] ?? Waiting()
            waiting[shard] = Waiting(looks: max(known.looks, looks), done: known.done + [done])
            return
        }
        if writing?.shard == shard {
            // What is stored after the delivery has read would be told at the next return.
            return afterWrite.append { [unowned self] in deliver(to: shard, looks: looks, done) }
        }
        let missed = hints.removeValue(forKey: shard) ?? [:]
        let unstored = self.unstored.removeValue(forKey: shard) ?? []
        for hint in unstored { hint.done() }
        guard store != nil || !missed.isEmpty else { return done() }
        let delivery = HintDelivery(to: shard, missed, headers: headers, store: store, loop: loop, resolver: resolver)
        delivery.unstored = unstored.map(\.hint)
        delivery.looksLeft = looks
        deliveries[shard] = delivery
        delivery.onEnd = [{ [unowned self] in delivered(delivery) }, done]
        noteUntold()
        delivery.start()
    }

    /// The same for several shards.
    func deliver(to shards: [ShardAddress], _ done: @escaping () -> Void) {
        loop.assertOnLoop()
        var left = shards.count + 1
        func told() {
            left -= 1
            if left == 0 { done() }
        }
        for shard in shards { deliver(to: shard, told) }
        told()
    }

    private func delivered(_ delivery: HintDelivery) {
        deliveries[delivery.shard] = nil
        if delivery.isComplete { unreached.remove(delivery.shard) } else { unreached.insert(delivery.shard) }
        if delivery.toldCount > 0 {
            logger.info(
                "shard has been told what it has missed",
                metadata: ["shard": "\(delivery.shard)", "groups": "\(delivery.toldCount)"]
            )
        }
        for hint in delivery.failed {
            let known = hints[delivery.shard]?[hint.path]?.madeAt ?? .min
            if hint.madeAt > known { hints[delivery.shard, default: [:]][hint.path] = hint }
        }
        if !delivery.failed.isEmpty, store != nil, !delivery.unstored.isEmpty {
            unstored[delivery.shard, default: []] += delivery.unstored.map { ($0, {}) }
            writeNext()
        }
        noteUntold()
        if let waiting = waiting.removeValue(forKey: delivery.shard) {
            deliver(to: delivery.shard, looks: waiting.looks) { for done in waiting.done { done() } }
        }
    }

    /// Has shards told soon for which there are hints, if they take part: to be called when others do.
    func noteUntold() {
        let present = stored.union(hints.keys).union(deliveries.keys)
        if !isTellingDue, present.contains(where: isInUse) {
            isTellingDue = true
            telling?.schedule(after: Hints.tellingPause)
        }
        guard present != untold else { return }
        untold = present
        onUntold?(untold)
    }

    /// A shard that was too slow for a request has not left, and so will not come back: it is told all the same.
    private func tellThoseInUse() {
        isTellingDue = false
        for shard in untold where deliveries[shard] == nil && isInUse(shard) { deliver(to: shard) {} }
    }

    /// The first of these, as many as fit into one of Consul's values.
    private static func batch(of waiting: [(hint: Hint, done: () -> Void)]) -> [(hint: Hint, done: () -> Void)] {
        var size = 0
        return Array(
            waiting.prefix(Hints.batch).prefix { entry in
                let isRoomLeft = size < Hints.batchSize
                size += entry.hint.path.count + 24
                return isRoomLeft
            }
        )
    }

    /// How long a shard that is back, and knows what it had missed, may be told anew of what it has missed in the meantime.
    private static let catchUpTime = TimeSpan.seconds(2)
    /// By when what has been told is known to be: the watch tells of it.
    private static let roundPause = TimeSpan.milliseconds(10)
    /// Groups that are remembered for one shard, at most.
    private static let limit = 100_000
    /// Paths that are stored under one key, at most.
    private static let batch = 500
    /// Bytes after which no more paths are stored under one key: Consul takes 512 kB.
    private static let batchSize = 256 << 10
    private static let retryInterval = TimeSpan.milliseconds(500)
    private static let tellingPause = TimeSpan.seconds(1)
}
