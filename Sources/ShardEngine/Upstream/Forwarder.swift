// Sends pushes to the shards that own them. A worker owns one: PushHandler gives it requests, discovery gives it rings.
// It owns the pools of all shards, and decides which shard gets a push when the owner cannot be reached.
import Logging

/// How pushes are forwarded.
struct ForwardSettings: Equatable, Sendable {
    var connectTimeout: TimeSpan
    var responseTimeout: TimeSpan
    /// Connections per shard, at most.
    var connectionLimit: Int
    /// Pushes on one connection, at most.
    var pipelineDepth: Int
    /// Pushes that wait for one shard, at most.
    var queueLimit: Int
    /// Whether another shard gets a push that its owner cannot be given.
    var failsOver: Bool
    /// How a shard that is in doubt is asked whether it answers.
    var check: Configuration.Check
}

/// The way from a request to the shard that answers it; loop-confined.
final class Forwarder {
    let loop: EventLoop
    let metrics: RequestMetrics
    let resolver: Resolver
    var settings: ForwardSettings {
        didSet {
            loop.assertOnLoop()
            guard settings.responseTimeout != oldValue.responseTimeout else { return }
            for pipeline in pools.values.flatMap(\.pipelines) { pipeline.setPatience(settings.responseTimeout) }
        }
    }
    /// Told of a shard that has become suspect, so that it is probed; `markUp` ends it.
    var onSuspect: ((ShardPool) -> Void)?
    /// Told of a PUT or DELETE on a path that a shard, which may hold the group, did not get, and which shard did it; calls
    /// `done`, on this loop, when that is remembered.
    var onMissed: ((ShardAddress, [UInt8], _ doneBy: ShardAddress, _ done: @escaping () -> Void) -> Void)?
    /// Where answers are received.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
    private(set) var routes: RoutingTable
    private(set) var pools: [ShardAddress: ShardPool] = [:]
    private let logger: Logger
    private var finished: [Exchange] = []
    private var unflushed: [Pipeline] = []
    private var sweep: Timer?
    private var isSweepDue = false
    private var lastWholeSweep = MonotonicTime(nanoseconds: 0)
    /// When a turn last came late, and since when clients have not been asked after since.
    private var lastLateTurn = MonotonicTime(nanoseconds: 0)
    private var lastFlush = MonotonicTime(nanoseconds: 0)

    init(loop: EventLoop, metrics: RequestMetrics, resolver: Resolver, settings: ForwardSettings, logger: Logger) {
        self.loop = loop
        self.metrics = metrics
        self.resolver = resolver
        self.settings = settings
        self.logger = logger
        routes = RoutingTable(RingSet(ring: Ring(shards: [], vnodes: 1))) { _ in preconditionFailure("no shard") }
        loop.watchForLateTurns()
        loop.atTurnEnd { [unowned self] in endTurn() }
        // At the end of the turn, that is after the answers that have come.
        sweep = Timer(loop: loop) { [unowned self] in isSweepDue = true }
        sweep?.schedule(after: sweepInterval)
    }

    /// Ends all connections to shards; the last thing to call.
    func close() {
        loop.assertOnLoop()
        for pool in pools.values { pool.close() }
        pools.removeAll()
    }

    deinit {
        scratch.deallocate()
    }

    /// Routes pushes by other rings from now on; those under way keep the ones they have.
    func use(_ rings: RingSet) {
        loop.assertOnLoop()
        for pool in pools.values { pool.use = .none }
        routes = RoutingTable(rings) { shard in
            let pool = pools[shard] ?? ShardPool(shard: shard, forwarder: self)
            pools[shard] = pool
            pool.use = .visited
            return pool
        }
        for pool in routes.pools.prefix(routes.ring.shards.count) {
            pool.use = .onRing
            if pool.isSuspect { onSuspect?(pool) }
        }
    }

    /// Forwards the request that is outstanding on the connection.
    func forward(_ connection: InboundConnection, hash: UInt32) {
        loop.assertOnLoop()
        let routes = self.routes
        metrics.inFlight += 1
        let exchange: Exchange
        if let recycled = finished.popLast() {
            recycled.restart(connection, routes, hash: hash, shard: 0)
            exchange = recycled
        } else {
            exchange = Exchange(self, connection, routes, hash: hash, shard: 0)
        }
        guard !routes.ring.isEmpty else { return exchange.fail(.noShard) }
        if routes.isSettled { return submit(exchange) }
        exchange.shard = standIn(hash, routes)
        exchange.makeRound(routes.visits(of: exchange.method, hash: hash, to: exchange.shard))
    }

    /// The owner, or the next shard that is not suspect.
    private func standIn(_ hash: UInt32, _ routes: RoutingTable) -> Int {
        let owner = routes.ring.owner(of: hash)
        guard routes.pools[owner].isSuspect, settings.failsOver else { return owner }
        return routes.ring.nextShard(after: hash) { !routes.pools[$0].isSuspect } ?? owner
    }

    /// Gives a request to its owner, or to the shard that stands in for it.
    func submit(_ exchange: Exchange) {
        loop.assertOnLoop()
        exchange.shard = exchange.routes.ring.owner(of: exchange.hash)
        guard exchange.pool.isSuspect else { return exchange.pool.submit(exchange) }
        let next = standIn(exchange.hash, exchange.routes)
        if next != exchange.shard { passOver(exchange, to: next) } else { exchange.pool.submit(exchange) }
    }

    /// Gives a request to the shard that its visits to others were chosen for, though its owner may answer again by now.
    func submitVisited(_ exchange: Exchange) {
        guard isStillWanted(exchange) else { return }
        let target = exchange.shard
        if exchange.pool.isSuspect {
            if exchange.method != .post { exchange.passesOver(target) }
            return submit(exchange)
        }
        exchange.shard = exchange.routes.ring.owner(of: exchange.hash)
        if target == exchange.shard { exchange.pool.submit(exchange) } else { passOver(exchange, to: target) }
    }

    private func passOver(_ exchange: Exchange, to next: Int) {
        exchange.pool.metrics.failovers += 1
        if exchange.method != .post { exchange.passesOver(exchange.shard) }
        exchange.shard = next
        exchange.pool.submit(exchange)
    }

    /// Has it remembered that a shard which may hold the group did not get the request: what it holds is void, unless
    /// the request was a POST, which only adds. `done` is called now or later.
    func missed(_ request: Exchange, by pool: ShardPool, _ done: @escaping () -> Void) {
        guard request.method != .post, let onMissed, let connection = request.connection else { return done() }
        onMissed(pool.shard, Array(RequestTarget(connection.forwardedTarget).path), request.pool.shard, done)
    }

    /// Has it remembered that what shards hold is void, of a request for whose answer nobody waits.
    func missed(_ left: VisitRound.Voided) {
        for shard in left.shards { onMissed?(shard, left.path, left.doneBy) {} }
    }

    /// Where a push with this hash goes now; nil while the ring is empty.
    func shard(for hash: UInt32) -> ShardAddress? {
        loop.assertOnLoop()
        return routes.ring.isEmpty ? nil : routes.ring.shards[standIn(hash, routes)]
    }

    /// Gives a push that its shard could not be given to the next one, if there is one.
    func failOver(_ exchange: Exchange, _ failure: UpstreamFailure) {
        let routes = exchange.routes
        // A visit is to this shard or to none.
        guard exchange.isReusable else { return exchange.fail(failure) }
        let next = routes.ring.nextShard(after: exchange.hash) { !routes.pools[$0].isSuspect && $0 != exchange.shard }
        guard settings.failsOver, let next, exchange.failovers < routes.ring.shards.count else {
            return exchange.fail(failure)
        }
        exchange.changesShard()
        passOver(exchange, to: next)
    }

    /// A shard does not take connections any more.
    func suspected(_ pool: ShardPool, _ reason: String) {
        logger.warning("shard is suspect", metadata: ["shard": "\(pool.shard)", "reason": "\(reason)"])
        onSuspect?(pool)
    }

    /// A suspect shard answers again.
    func recovered(_ pool: ShardPool) {
        logger.info("shard is up again", metadata: ["shard": "\(pool.shard)"])
    }

    /// Keeps an exchange, if it has ended, for another push.
    func recycle(_ exchange: Exchange) {
        loop.assertOnLoop()
        guard exchange.isAbandoned else { return }
        exchange.release()
        if exchange.isReusable, finished.count < Forwarder.sparesLimit { finished.append(exchange) }
    }

    /// Has the pipeline send at the end of this turn what it was given until then.
    func flushAtTurnEnd(_ pipeline: Pipeline) {
        unflushed.append(pipeline)
    }

    private func endTurn() {
        dropPushesOfGoneClients()
        if isSweepDue { enforceTimeLimits() }
        flush()
    }

    private func flush() {
        guard !unflushed.isEmpty else { return }
        // A connection that breaks here gives its pushes to others.
        var index = 0
        while index < unflushed.count {
            unflushed[index].flush()
            index += 1
        }
        unflushed.removeAll(keepingCapacity: true)
    }

    // MARK: After a turn that came late

    /// While the process was stopped clients may have gone, and others may have pushed to their groups since: before anything
    /// leaves, those whose pushes have not been sent are looked at; and for a while so are those that come in, as it takes
    /// more than one turn to read all that was sent meanwhile.
    private func dropPushesOfGoneClients() {
        if loop.isTurnLate {
            lastLateTurn = loop.now
            lastFlush = MonotonicTime(nanoseconds: 0)
            for pool in pools.values { pool.resume(after: loop.lateness) }
        }
        guard loop.now.since(lastLateTurn) < Forwarder.catchUpTime else { return }
        for pool in pools.values { pool.dropPushesOfGoneClients(since: lastFlush) }
        lastFlush = loop.now
    }

    /// Whether somebody waits for the answer to the push, which is about to be sent, perhaps again.
    func isStillWanted(_ exchange: Exchange) -> Bool {
        if exchange.start < lastLateTurn { exchange.dropIfClientIsGone() }
        return !exchange.isAbandoned
    }

    private static let catchUpTime = TimeSpan.seconds(2)

    private var sweepInterval: TimeSpan {
        let shortest = min(settings.connectTimeout, settings.responseTimeout)
        return min(max(TimeSpan(nanoseconds: shortest.nanoseconds / 10), .milliseconds(10)), .milliseconds(100))
    }

    private func enforceTimeLimits() {
        isSweepDue = false
        let now = loop.now
        let isWhole = now.since(lastWholeSweep) >= sweepInterval
        if isWhole { lastWholeSweep = now }
        var hasSlowHead = false
        for pool in pools.values {
            pool.metrics.noteSuccess(at: now)
            if loop.isTurnLate {
                // Not all answers may have been read.
                pool.failOverdueInQueues(now)
            } else if isWhole {
                pool.enforceTimeLimits(at: now)
            } else {
                pool.lookAfterLatePushes(at: now)
            }
            hasSlowHead = hasSlowHead || pool.hasSlowHead(at: now)
            if pool.isFinished { pools[pool.shard] = nil }
        }
        sweep?.schedule(after: hasSlowHead ? min(sweepInterval, Forwarder.lateSweepInterval) : sweepInterval)
    }

    /// How often late answers are looked for while there may be some.
    private static let lateSweepInterval = TimeSpan.milliseconds(25)

    /// Finished exchanges that are kept, at most.
    private static let sparesLimit = 4096
}
