// What the server goes by to know stores from addresses: which addresses make the ring, which stores they are, and which
// processes were restarted. It joins the questions of `Stores` with the marks of `StoreMarker`, and words both for the log.
import Logging

/// The stores behind all addresses that are, or may become, shards; confined to the server's loop.
final class StoreWatch {
    /// Is called when the map, or what `select` gives, may have changed.
    var onChange: () -> Void = {}
    private let confinement: LoopCheck
    private let stores: Stores
    private let marker: StoreMarker
    private let logger: Logger
    private var marksStores: Bool
    private var selection = StoreSelection()
    /// The mark of each address's store, as it was last told.
    private var marks: [ShardAddress: String] = [:]
    /// Shards whose process is another one than before, and whose store has yet to be told.
    private var restarted: Set<ShardAddress> = []

    init(loop: EventLoop, resolver: Resolver, configuration: Configuration, logger: Logger) {
        confinement = LoopCheck(loop)
        self.logger = logger
        marksStores = configuration.movesGroups
        var found: (StoreMarker.Finding) -> Void = { _ in }
        var isRefused: (ShardAddress, String, String) -> Void = { _, _, _ in }
        marker = StoreMarker(loop: loop, resolver: resolver, onRefusal: { isRefused($0, $1, $2) }) { found($0) }
        var isNew: (ShardAddress, String) -> Void = { _, _ in }
        var isUnmarked: (ShardAddress, String) -> Void = { _, _ in }
        var changed: () -> Void = {}
        stores = Stores(
            loop: loop,
            resolver: resolver,
            check: configuration.check,
            logger: logger,
            onNewProcess: { isNew($0, $1) },
            onUnmarked: { isUnmarked($0, $1) },
            onChange: { changed() }
        )
        marker.headers = configuration.check.headers
        found = { [unowned self] in marked($0) }
        isRefused = { [stores] in stores.note(refusal: $2, of: $0, process: $1) }
        isNew = { [unowned self] in processIsNew($0, $1) }
        // What has failed is tried again at the next round.
        isUnmarked = { [unowned self] in if marksStores { marker.mark($0, process: $1) } }
        changed = { [unowned self] in onChange() }
    }

    /// Which store is behind each address.
    var map: StoreMap { stores.book.map }

    /// How often the process behind an address was found to be another one.
    var restartCounts: [ShardAddress: UInt64] { stores.restartCounts }
    /// Whether the Pushgateways check pushes for consistency; without those that do not tell.
    var checking: [ShardAddress: Bool] { stores.checking }

    /// Whether something answered when the address was last asked.
    func isAnswering(_ shard: ShardAddress) -> Bool { stores.book.isAnswering(shard) }

    /// Whether the address was left off the ring though it is healthy: it is another name of a shard, or no shard's.
    func isLeftOff(_ shard: ShardAddress) -> Bool {
        selection.sameStore[shard] != nil || selection.unusable[shard] != nil
    }

    /// Addresses that were left off the ring because another one leads to the same store.
    var sameStoreCount: Int { selection.sameStore.count }

    /// Asks these addresses from now on.
    func watch(_ shards: Set<ShardAddress>, _ configuration: Configuration) {
        confinement.assertOnLoop()
        let isNew = configuration.movesGroups && !marksStores
        marksStores = configuration.movesGroups
        marker.headers = configuration.check.headers
        if isNew { for (shard, identity) in map.identities { marker.mark(shard, process: identity.process) } }
        stores.watch(shards, check: configuration.check)
        marks = marks.filter { shards.contains($0.key) }
    }

    /// Why shardd may delete nothing at one of the ring's shards, and so may move nothing; nil otherwise.
    var hindrance: MovingHindrance? {
        for shard in selection.shards {
            guard let reason = stores.book.lastingObstacle(of: shard) else { continue }
            return MovingHindrance(obstacle: .marks, reason: "the store of \(shard) cannot be told: \(reason)")
        }
        return nil
    }

    /// Asks those of the addresses that were never asked; calls `done`, now or later, when it is known who is behind them, or
    /// they have had the time to tell.
    func identify(_ shards: [ShardAddress], _ done: @escaping () -> Void) {
        confinement.assertOnLoop()
        stores.identify(shards) { [unowned self] in marker.whenIdle(within: StoreWatch.markingTime, done) }
    }

    /// Asks an address anew: another process answers there than was told last.
    func ask(_ shard: ShardAddress) {
        confinement.assertOnLoop()
        stores.askAnew(shard)
    }

    /// Of the addresses of a membership, those that the ring is made of; says in the log why others are left off.
    func select(_ shards: [ShardAddress]) -> [ShardAddress] {
        confinement.assertOnLoop()
        let before = selection
        selection = stores.book.select(shards)
        for (shard, first) in selection.sameStore.sorted(by: { $0.key < $1.key }) where before.sameStore[shard] != first
        {
            logger.notice(
                "two addresses lead to one Pushgateway: it is on the ring once",
                metadata: ["shard": "\(first)", "same_store": "\(shard)"]
            )
        }
        for (shard, reason) in selection.unusable.sorted(by: { $0.key < $1.key }) where before.unusable[shard] != reason
        {
            logger.error(
                "an address gets no pushes: it is not that of one Pushgateway",
                metadata: ["shard": "\(shard)", "reason": "\(reason)"]
            )
        }
        return selection.shards
    }

    /// The store behind an address has become a member of the tier, by the register of this birth.
    func noteMember(_ shard: ShardAddress, birth: String) {
        guard let identity = map.identity(of: shard), let mark = identity.mark else { return }
        stores.note(mark: mark, tiers: [birth], of: shard, process: identity.process)
    }

    private func processIsNew(_ shard: ShardAddress, _ process: String) {
        if (stores.restartCounts[shard] ?? 0) > 0 { restarted.insert(shard) }
        if marksStores {
            marker.mark(shard, process: process)
        } else if restarted.remove(shard) != nil {
            logger.warning("shard was restarted", metadata: ["shard": "\(shard)"])
        }
    }

    private func marked(_ finding: StoreMarker.Finding) {
        let shard = finding.shard
        stores.note(mark: finding.mark, tiers: finding.tiers, of: shard, process: finding.process)
        let before = marks.updateValue(finding.mark, forKey: shard)
        guard restarted.remove(shard) != nil else { return }
        let metadata: Logger.Metadata = ["shard": "\(shard)", "groups": "\(finding.groups)"]
        if before == nil || before == finding.mark {
            logger.info("shard was restarted", metadata: metadata)
        } else if !finding.tiers.isEmpty {
            logger.warning("another store is at the address of a shard", metadata: metadata)
        } else {
            logger.warning(
                "shard was restarted, and has lost groups: it came back without its file",
                metadata: metadata
            )
        }
    }

    /// How long a start, or a change of the ring, waits for marks to be read.
    private static let markingTime = TimeSpan.seconds(2)
}
