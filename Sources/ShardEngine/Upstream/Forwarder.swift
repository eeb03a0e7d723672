// Sends pushes to the shards that own them. A worker owns one: PushHandler gives it requests, discovery gives it rings.
// It owns the pools of all shards, and decides which shard gets a push when the owner cannot be reached.
import Logging
import MovingCore

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
    /// Where answers are received.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
    private(set) var routes = RoutingTable()
    /// This worker's part in the register; nil before the first one.
    private(set) var follower: Follower?
    private(set) var pools: [ShardAddress: ShardPool] = [:]
    private let logger: Logger
    /// Told when a turn came late: nothing is sent, and no answer taken, until `goOnAfterStop`. Nil where nobody else could have
    /// changed anything meanwhile.
    var onLateTurn: (() -> Void)?
    private var isHeld = false
    private var held: [Exchange] = []
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

    /// Begins to follow a register.
    func begin(_ follower: Follower) {
        self.follower = follower
    }

    /// The next register is another one, which has nothing to do with this.
    func startAnew() {
        held += follower?.letGo() ?? []
        follower = nil
        isHeld = true
    }

    /// Goes by this register from now on; pushes under way are seen through by the follower.
    func follow(_ placement: Placement, peers: [Peer], hasConsul: Bool) {
        guard let follower else { return }
        let isNew = routes.epoch == 0 || !follower.hasBegun
        follower.follow(placement, peers: peers, hasConsul: hasConsul)
        use(follower, placement.ring, placement.wholeRing)
        follower.goOn()
        if isNew { goOnAfterStop() }
    }

    /// Has a store failed over for this replica alone.
    func failOverAlone(_ store: StoreID, backupStarts: [StoreID: StartTime]) {
        guard let follower else { return }
        follower.failOverAlone(store, backupStarts: backupStarts)
        use(follower, routes.ring, routes.wholeRing)
        follower.goOn()
    }

    private func use(_ follower: Follower, _ ring: Ring, _ wholeRing: Ring?) {
        let view = follower.following.view
        guard routes.epoch != view.epoch || routes.ring !== ring || routes.wholeRing !== wholeRing else { return }
        for pool in pools.values {
            pool.isInUse = false
            // The register tells from now on.
            pool.fault = nil
        }
        routes = RoutingTable(view, ring, wholeRing: wholeRing) { shard in
            let pool = pools[shard] ?? ShardPool(shard: shard, forwarder: self)
            pools[shard] = pool
            pool.isInUse = true
            return pool
        }
    }

    /// Forwards the request that is outstanding on the connection.
    func forward(_ connection: InboundConnection, hash: UInt32) {
        take(connection, hash, nil)
    }

    /// The same.
    ///
    /// - Parameter taken: is let go of when the push has ended.
    @inline(never)
    func forward(_ connection: InboundConnection, hash: UInt32, _ taken: AnyObject?) {
        take(connection, hash, taken)
    }

    /// The same.
    @inline(never)
    func forward(_ connection: InboundConnection, hash: UInt32, _ counted: consuming CountedPush) {
        let exchange = exchange(for: connection, hash)
        exchange.end(consume counted)
        begin(exchange)
    }

    @inline(__always)
    private func take(_ connection: InboundConnection, _ hash: UInt32, _ taken: AnyObject?) {
        let exchange = exchange(for: connection, hash)
        if taken != nil { exchange.taken = taken }
        begin(exchange)
    }

    @inline(__always)
    private func begin(_ exchange: Exchange) {
        if isHeld { held.append(exchange) } else { start(exchange) }
    }

    @inline(__always)
    private func exchange(for connection: InboundConnection, _ hash: UInt32) -> Exchange {
        loop.assertOnLoop()
        let routes = self.routes
        metrics.inFlight += 1
        guard let recycled = finished.popLast() else {
            return Exchange(self, connection, routes, hash: hash, shard: 0)
        }
        recycled.restart(connection, routes, hash: hash, shard: 0)
        return recycled
    }

    /// Has a push begin anew, which had waited for what is in force no more.
    func takeBack(_ exchange: Exchange) {
        // Whoever gives it back is in the middle of something.
        loop.park { [unowned self] in
            guard !exchange.isAbandoned, exchange.course == nil else { return }
            begin(exchange)
        }
    }

    @inline(__always)
    private func start(_ exchange: Exchange) {
        if routes.isSettled, !routes.ring.isEmpty {
            exchange.move(to: routes, owner: routes.ring.owner(of: exchange.hash))
            if let whole = routes.wholeRing { countFailover(exchange, whole) }
            exchange.pool.submit(exchange)
        } else if let follower, !routes.pools.isEmpty {
            follower.begin(exchange)
        } else {
            exchange.fail(.noShard)
        }
    }

    private func countFailover(_ exchange: Exchange, _ whole: Ring) {
        let owner = whole.shards[whole.owner(of: exchange.hash)]
        if owner != exchange.pool.shard { pools[owner]?.metrics.failovers += 1 }
    }

    /// Where a push with this hash goes now; nil while the ring is empty.
    func shard(for hash: UInt32) -> ShardAddress? {
        loop.assertOnLoop()
        if routes.isSettled { return routes.ring.isEmpty ? nil : routes.pools[routes.ring.owner(of: hash)].shard }
        guard let following = follower?.following else { return nil }
        return routes.place(of: following.view.entry(following.rings.slot(of: hash)).own).map { routes.pools[$0].shard }
    }

    /// A push's shard takes no connection: another one stands in for it.
    func refused(_ exchange: Exchange, _ failure: UpstreamFailure) {
        if exchange.course != nil { return exchange.fail(failure) }
        guard settings.failsOver, let follower else { return exchange.fail(failure) }
        follower.refused(exchange, failure)
    }

    /// Keeps an exchange, if it has ended, for another push.
    func recycle(_ exchange: Exchange) {
        loop.assertOnLoop()
        guard exchange.isAbandoned else { return }
        exchange.release()
        if finished.count < Forwarder.sparesLimit { finished.append(exchange) }
    }

    /// Has the pipeline send at the end of this turn what it was given until then.
    func flushAtTurnEnd(_ pipeline: Pipeline) {
        unflushed.append(pipeline)
    }

    private func endTurn() {
        dropPushesOfGoneClients()
        if isSweepDue { enforceTimeLimits() }
        flush()
        if !routes.isSettled { follower?.tellNote() }
    }

    private func flush() {
        guard !unflushed.isEmpty, !isHeld else { return }
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
            hold()
            lastLateTurn = loop.now
            lastFlush = MonotonicTime(nanoseconds: 0)
            for pool in pools.values { pool.resume(after: loop.lateness) }
        }
        guard loop.now.since(lastLateTurn) < Forwarder.catchUpTime else { return }
        for pool in pools.values { pool.dropPushesOfGoneClients(since: lastFlush) }
        lastFlush = loop.now
    }

    /// Whether answers are not to be taken yet: the turn came late, and what it was sent by may have changed.
    func mustWait() -> Bool {
        if isHeld { return true }
        _ = loop.now
        if loop.isTurnLate { hold() }
        return isHeld
    }

    private func hold() {
        guard !isHeld, let onLateTurn, follower != nil else { return }
        isHeld = true
        onLateTurn()
    }

    /// What has changed during a stop is known: pushes and answers go on.
    func goOnAfterStop() {
        guard isHeld else { return }
        isHeld = false
        let exchanges = held
        held = []
        for exchange in exchanges where isStillWanted(exchange) { start(exchange) }
        loop.park { [unowned self] in flush() }
    }

    /// Whether somebody waits for the answer to the push, which is about to be sent, perhaps again.
    func isStillWanted(_ exchange: Exchange) -> Bool {
        if exchange.start < lastLateTurn { exchange.dropIfClientIsGone() }
        if let course = exchange.course, !course.isKept {
            exchange.fail(.brokeConnection)
            return false
        }
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
        follower?.enforceTimeLimits(at: now)
        sweep?.schedule(after: hasSlowHead ? min(sweepInterval, Forwarder.lateSweepInterval) : sweepInterval)
    }

    /// How often late answers are looked for while there may be some.
    private static let lateSweepInterval = TimeSpan.milliseconds(25)

    /// Finished exchanges that are kept, at most.
    private static let sparesLimit = 4096
}
