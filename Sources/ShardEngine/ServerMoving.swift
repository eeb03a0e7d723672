// The server's part in moving groups: where it has the register, which tier it makes for that, and what it tells of it. The
// composition root (Server) calls it whenever the configuration, the stores or the other replicas change.
import Glibc
import Logging
import MovingCore

extension Server {
    /// Where other replicas can be told from the shards alone, looks whether there are any that would move groups.
    func beginClaims(_ done: @escaping () -> Void = {}) {
        let isWanted = RegisterPlace(configuration) == .memory
        if isWanted == (claims != nil) { return done() }
        if !isWanted, let former = claims { former.withdraw { _ = former } }
        claims = nil
        guard isWanted else { return done() }
        let claims = MoverClaims(loop: loop, resolver: resolver, name: replicaName) { [unowned self] in
            tier.following?.view.isAtRest != true
        }
        self.claims = claims
        claims.onChange = { [unowned self] in
            useRegister()
            tellTier()
        }
        claims.claim(members.healthy, headers: configuration.check.headers)
        claims.begin(done)
    }

    /// Unlike that of another replica, and the same after a restart.
    var replicaName: String {
        var host = [CChar](repeating: 0, count: 256)
        gethostname(&host, host.count - 1)
        let name = host.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        let listen = ShardAddress(host: configuration.listen.host ?? "any", port: workers.port)
        return String("\(name)_\(listen)".map { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == ".") ? $0 : "_" })
    }

    func hearTier() {
        tier.onChange = { [unowned self] in tierChanged() }
        tier.onMember = { [stores] in stores.noteMember($0, birth: $1) }
        tier.onNewProcess = { [stores] in stores.ask($0) }
        tier.onAbsence = { [unowned self] in registerIsAway($0) }
    }

    static func makeTier(
        _ place: RegisterPlace,
        _ loop: EventLoop,
        _ resolver: Resolver,
        _ workers: WorkerGroup,
        _ configuration: Configuration,
        _ options: ServeOptions,
        _ logger: Logger
    ) -> (TierMembers, Tier) {
        let members = TierMembers(
            vnodes: configuration.hash.vnodes,
            settle: configuration.reconcile.settle,
            movesGroups: place != .nowhere
        )
        let stores = StoreCalls(loop: loop, resolver: resolver)
        stores.headers = configuration.check.headers
        let tier = Tier(
            loop: loop,
            resolver: resolver,
            check: configuration.check,
            workers: workers,
            workerCount: configuration.workers,
            keeper: place.makeKeeper(loop, resolver, configuration, logger),
            stores: stores,
            members: members,
            mover: configuration.moverSettings,
            giveUp: configuration.reconcile.giveUp,
            settings: configuration.settingsNumber(version: options.build.version),
            logger: logger
        )
        return (members, tier)
    }

    /// Goes by another register where the configuration has it elsewhere, or where nothing may be moved, or may be again.
    func useRegister() {
        (members.vnodes, members.settle) = (configuration.hash.vnodes, configuration.reconcile.settle)
        tier.apply(
            configuration.moverSettings,
            giveUp: configuration.reconcile.giveUp,
            configuration.check,
            settings: configuration.settingsNumber(version: options.build.version)
        )
        tier.keeper.apply(configuration.reconcile)
        beginClaims()
        let found = stores.hindrance ?? claims?.hindrance ?? (knock == nil ? nil : absence)
        if found != hindrance {
            if hindrance == nil { lastRest = tier.status.lastSuccess }
            hindrance = found
            if let found {
                logger.error("groups are not moved", metadata: ["reason": "\(found.reason)"])
            } else {
                logger.info("groups are moved again")
            }
        }
        let place = RegisterPlace(configuration, mayMove: found == nil)
        guard place != registerAt else { return }
        let hasServedOtherwise = registerAt == .nowhere
        registerAt = place
        let former = tier
        former.stop { _ = former }
        // What it has to answer itself is still to come in this turn.
        loop.park { _ = former }
        (members, tier) = Server.makeTier(place, loop, resolver, workers, configuration, options, logger)
        workers.forEach { $0.forwarder.startAnew() }
        tier.hasServedOtherwise = hasServedOtherwise
        hearTier()
        tier.start()
        tellTier()
    }

    /// There is no register to serve by: pushes go by the configuration and Consul's catalogue until there is.
    func registerIsAway(_ absence: MovingHindrance) {
        guard knock == nil, case .consul = registerAt else { return }
        self.absence = absence
        let keeper = registerAt.makeKeeper(loop, resolver, configuration, logger)
        keeper.wantsLock = false
        keeper.note = { [unowned self] in
            Note(epoch: 0, settings: configuration.settingsNumber(version: options.build.version))
        }
        keeper.onSnapshot = { [unowned self] snapshot in
            guard snapshot.registerFault == nil, let keeper = knock else { return }
            knock = nil
            keeper.leave { _ = keeper }
            useRegister()
        }
        knock = keeper
        keeper.start()
        useRegister()
    }

    var movingStatus: MovingStatus {
        var status = tier.status
        if let hindrance {
            status.obstacles.insert(hindrance.obstacle)
            status.lastSuccess = lastRest
        }
        return status
    }

    /// Shards off the ring that Prometheus has to scrape still. It leaves one before the copies there go, and so sees no series
    /// end. One that is drained while the register moves to a ring that has it is among them.
    var draining: [ShardAddress] {
        guard let following = tier.following, !following.view.isAtRest || !discovery.draining.isEmpty else { return [] }
        let view = following.view
        let onRing = Set(shown.ring.shards)
        let named = discovery.unhealthy.union(membership.shards)
        return view.stores.compactMap { store in
            guard let shard = ShardAddress(parsing: store.address), !onRing.contains(shard), !view.isDown(store.id),
                view.isLeaving(store.id) || !named.contains(shard), view.isNeeded(store.id, following.rings)
            else { return nil }
            return shard
        }
    }

    var offRing: [ShardAddress: ShardState] {
        var found = OffRingShards(ring: shown.ring, stores: stores)
        for shard in draining { found.add(shard, .draining) }
        let unhealthy = discovery.unhealthy
        for shard in membership.shards where !unhealthy.contains(shard) { found.add(shard, .joining) }
        for shard in unhealthy.sorted() { found.add(shard, .down) }
        // Where Consul names the shards, one of the file that answers and that Consul does not name has been taken out.
        for shard in configuration.servers where configuration.consul == nil || !stores.isAnswering(shard) {
            found.add(shard, .down)
        }
        return found.states
    }
}
