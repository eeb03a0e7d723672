// One worker's part in the register: what the worker follows, and its pushes that have a course because the register is not
// settled. The forwarder owns it; the tier (Moving/Run) gives it every register, and hears from it what its pushes find out.
import MovingCore

/// What one worker follows; confined to its loop.
final class Follower {
    unowned(unsafe) let forwarder: Forwarder
    private(set) var following: Following
    /// Told of a store that did not take a push, and why.
    var onFailure: (StoreID, String) -> Void = { _, _ in }
    /// Told of a slot whose backup is not equal any more.
    var onDropBackup: (Slot) -> Void = { _ in }
    /// Told when what the worker tells its peers may have changed.
    var onNote: (Note) -> Void = { _ in }
    /// Places keys as the push handler does.
    let parser: GroupingKeyParser
    private var waiting: [Int: Exchange] = [:]
    /// Whether another follower has taken the place of this one, which sees to no waiting push any more.
    private var isRetired = false
    private var lastID = 0
    private var lastNote: Note?
    /// Why stores have failed.
    private var causes: [StoreID: String] = [:]

    init(_ forwarder: Forwarder, _ placement: Placement, key: HashKey, settings: UInt64) {
        self.forwarder = forwarder
        parser = GroupingKeyParser(key: key)
        following = Following(view: placement.register, rings: placement.rings, settings: settings)
    }

    // MARK: Pushes

    /// A push comes while the register is not settled.
    func begin(_ exchange: Exchange) {
        let course = Course(exchange, self, id: nextID())
        exchange.course = course
        course.resume()
    }

    /// The shard of a push on the hot path does not take it.
    func refused(_ exchange: Exchange, _ failure: UpstreamFailure) {
        let course = Course(takingOver: exchange, self, id: nextID())
        exchange.course = course
        course.refused(failure)
    }

    /// The register is about to leave rest: what shards have, or are about to get, is seen through from now on.
    private func takeOver(byFormer isByFormer: Bool = false) {
        for exchange in forwarder.pools.values.flatMap(\.exchanges) where exchange.course == nil {
            // What nobody waits for, and no shard has been sent, is dropped by its pool.
            if exchange.connection == nil, !exchange.isOnPipeline { continue }
            exchange.course = Course(takingOver: exchange, self, id: nextID(), byFormer: isByFormer)
        }
    }

    private func nextID() -> Int {
        lastID += 1
        return lastID
    }

    /// The push goes on when the view or the peers' notes have changed.
    func wait(_ exchange: Exchange, _ course: Course) {
        guard !isRetired else {
            course.letGo()
            return forwarder.takeBack(exchange)
        }
        course.isWaiting = true
        waiting[course.id] = exchange
    }

    /// The course has ended.
    func ended(_ course: Course) {
        waiting[course.id] = nil
    }

    /// Ends those that have waited for as long as an answer may take.
    func enforceTimeLimits(at now: MonotonicTime) {
        for exchange in Array(waiting.values) { exchange.course?.enforceTimeLimit(at: now) }
    }

    /// Pushes that wait for a mover, a failover or another replica.
    var waitingCount: Int { waiting.count }

    /// Gives the pushes away that wait, when another register takes the place of this one.
    func letGo() -> [Exchange] {
        isRetired = true
        let exchanges = Array(waiting.values)
        for exchange in exchanges { exchange.course?.letGo() }
        return exchanges
    }

    // MARK: The register

    /// Whether it has been given a register after the one that it was made with.
    private(set) var hasBegun = false

    /// Goes by this register from now on.
    ///
    /// - Parameter peers: the other replicas, and the other workers of this one.
    func follow(_ placement: Placement, peers: [Peer], hasConsul: Bool) {
        let isFirst = !hasBegun
        hasBegun = true
        following.hasConsul = hasConsul
        // Without Consul the view may have been changed by this replica alone.
        guard hasConsul else { return following.hear(peers) }
        // What was sent by another register, before this one took its place, is seen through, too.
        if isFirst || following.view.isSettled, !placement.register.isSettled { takeOver(byFormer: isFirst) }
        following.follow(placement.register, rings: placement.rings, peers: peers)
    }

    /// The replica has a new session: what was sent without one is seen through, and its answers count for less.
    func beganSession() {
        takeOver()
        following.beganSession()
    }

    /// The store has failed while Consul did not answer: another stands in for it, for this replica alone.
    func failOverAlone(_ store: StoreID, backupStarts: [StoreID: StartTime]) {
        if following.view.isSettled { takeOver() }
        following.failOverAlone(store, backupStarts: backupStarts)
    }

    /// Has waiting pushes go on where they may; to be called when the forwarder's table is that of the view.
    func goOn() {
        for id in waiting.keys.sorted() {
            guard let exchange = waiting.removeValue(forKey: id), let course = exchange.course else { continue }
            course.resume()
        }
        tellNote()
    }

    /// Tells what the worker follows, where that has changed; called at the end of turns, too.
    func tellNote() {
        if following.view.isSettled, lastNote?.epoch == following.view.epoch { return }
        let note = following.note
        guard note != lastNote else { return }
        lastNote = note
        onNote(note)
    }

    // MARK: Causes

    func note(cause: String, of store: StoreID) { causes[store] = cause }

    /// Why no store takes the keys with this hash.
    func cause(of hash: UInt32) -> String {
        let own = following.view.entry(following.rings.slot(of: hash)).own
        return causes[own] ?? "it has failed"
    }
}
