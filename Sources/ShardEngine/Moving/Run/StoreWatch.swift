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
    /// How many groups each shard held when it was last listed, or its process was new.
    private var groupCounts: [ShardAddress: (count: Int, at: MonotonicTime)] = [:]
    /// Shards whose process is another one than before, and whose groups have yet to be counted.
    private var restarted: Set<ShardAddress> = []

    init(loop: EventLoop, resolver: Resolver, configuration: Configuration, logger: Logger) {
        confinement = LoopCheck(loop)
        self.logger = logger
        marksStores = configuration.movesGroups
        var found: (StoreMarker.Finding) -> Void = { _ in }
        marker = StoreMarker(loop: loop, resolver: resolver) { found($0) }
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
        isNew = { [unowned self] in processIsNew($0, $1) }
        // What has failed is tried again at the next round.
        isUnmarked = { [unowned self] in if marksStores { marker.mark($0, process: $1) } }
        changed = { [unowned self] in onChange() }
    }

    /// Which store is behind each address.
    var map: StoreMap { stores.book.map }

    /// How often the process behind an address was found to be another one.
    var restartCounts: [ShardAddress: UInt64] { stores.restartCounts }

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
        marksStores = configuration.movesGroups
        marker.headers = configuration.check.headers
        stores.watch(shards, check: configuration.check)
        groupCounts = groupCounts.filter { shards.contains($0.key) }
    }

    /// Asks those of the addresses that were never asked; calls `done`, now or later, when it is known who is behind them, or
    /// they have had the time to tell.
    func identify(_ shards: [ShardAddress], _ done: @escaping () -> Void) {
        confinement.assertOnLoop()
        stores.identify(shards) { [unowned self] in marker.whenIdle(within: StoreWatch.markingTime, done) }
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

    /// The store behind an address has become a member of the tier.
    func noteMember(_ shard: ShardAddress) {
        guard let identity = map.identity(of: shard), let mark = identity.mark else { return }
        stores.note(mark: mark, isMember: true, of: shard, process: identity.process)
    }

    /// Takes in how many groups shards held when they were listed, and which of them had no mark.
    func noteListings(groups: [ShardAddress: Int], unmarked: Set<ShardAddress>) {
        confinement.assertOnLoop()
        for (shard, count) in groups where !restarted.contains(shard) { groupCounts[shard] = (count, .now()) }
        for shard in unmarked where marksStores {
            if let process = map.identity(of: shard)?.process { marker.mark(shard, process: process) }
        }
    }

    private func processIsNew(_ shard: ShardAddress, _ process: String) {
        if (stores.restartCounts[shard] ?? 0) > 0 || groupCounts[shard] != nil { restarted.insert(shard) }
        if marksStores {
            marker.mark(shard, process: process)
        } else if restarted.remove(shard) != nil {
            logger.warning("shard was restarted", metadata: ["shard": "\(shard)"])
        }
    }

    private func marked(_ finding: StoreMarker.Finding) {
        let shard = finding.shard
        stores.note(mark: finding.mark, isMember: finding.isMember, of: shard, process: finding.process)
        let before = groupCounts.updateValue((finding.groups, .now()), forKey: shard)
        guard restarted.remove(shard) != nil else { return }
        var metadata: Logger.Metadata = ["shard": "\(shard)", "groups": "\(finding.groups)"]
        // An old count tells nothing: clients delete groups, too.
        let isRecent = before.map { MonotonicTime.now().since($0.at) < StoreWatch.countsLast } ?? false
        let missing = isRecent ? (before?.count ?? 0) - finding.groups : 0
        if missing > 0 {
            metadata["groups_missing"] = "\(missing)"
            logger.warning("shard was restarted, and has lost groups", metadata: metadata)
        } else {
            logger.info("shard was restarted", metadata: metadata)
        }
    }

    private static let countsLast = TimeSpan.seconds(90)
    /// How long a start, or a change of the ring, waits for marks to be read.
    private static let markingTime = TimeSpan.seconds(2)
}
