// How one ring takes the place of another with no group stale, doubled or lost. The server owns it, gives it the rings
// that discovery's memberships make, and hands what comes out to the workers and the reconciler.
//
//   a new ring ─▶ announced ──hold──▶ in force; the one before is copied to ──▶ swept ──▶ settled
//                                     └── a run has copied ──┘  └── the run is settled ──┘
//
// Replicas hear of a membership at different moments, at most `hold` apart; each step goes together with its neighbours
// (see Visit). Runs of the reconciler, this replica's or another's, take the last steps.
import Logging

/// The steps of changing rings; loop-confined.
final class Handover {
    /// Those in use.
    private(set) var rings: RingSet
    /// How long a ring is announced before it is in force; zero where groups are not moved.
    var hold: TimeSpan {
        didSet { if hold == .zero, hold != oldValue { forgetAll() } }
    }
    /// Where rings are kept for other replicas, and those that start; nil without Consul.
    var store: RingStore? {
        didSet { if hasBegun { watchStore() } }
    }
    /// Which stores the shards are.
    var stores = StoreMap() {
        didSet {
            guard stores != oldValue else { return }
            hints.stores = stores
            rings.stores = stores
            publish()
        }
    }
    private var hasBegun = false
    private let builder: RingBuilder
    private let hints: Hints
    private let logger: Logger
    private let onChange: (RingSet) -> Void
    private var announcement: Announcement?
    /// Rings that other replicas have announced, or use, and since when they are known here.
    private var heard: [(other: OtherRing, at: MonotonicTime)] = []
    private var past: [OtherRing] = []
    /// What was stored when that was last taken in, by key, with its index; nil before the first time.
    private var adopted: [String: UInt64]?
    /// Rings that a run has settled a moment ago: a replica that has just started may not know of that, and copy by them.
    private var settled: [OtherRing] = []
    private var suspects: Set<ShardAddress> = []
    /// The run that was the latest, or under way, when the last ring was added: a later one has seen all there was.
    private var base: Int?
    /// When the last ring was added, in seconds since 1970.
    private var addedAt = wallClock()
    /// Shards off the ring that `shardd drain` is emptying.
    private(set) var draining: [ShardAddress] = []
    /// The latest run during or after which the rings that are used here were stored again, as it did not know them.
    private var objectedTo: Int?
    private let loop: EventLoop
    private var heardTimer: Timer?
    private var settledTimer: Timer?

    /// - Parameters:
    ///   - hints: what shards that come back must be told first.
    ///   - onChange: is called with the rings at every step.
    init(
        loop: EventLoop,
        ring: Ring,
        hold: TimeSpan,
        builder: RingBuilder,
        hints: Hints,
        logger: Logger,
        onChange: @escaping (RingSet) -> Void
    ) {
        self.loop = loop
        self.hold = hold
        self.builder = builder
        self.hints = hints
        self.logger = logger
        self.onChange = onChange
        rings = RingSet(ring: ring, isReconcileDue: hold > .zero)
        announcement = Announcement(
            loop: loop,
            joining: { [unowned self] in joining($0) },
            tell: { hints.deliver(to: $0, $1) },
            onEnd: { [unowned self] in announcementHasEnded($0, $1, next: $2) }
        )
        heardTimer = Timer(loop: loop) { [unowned self] in takeUpHeard() }
        settledTimer = Timer(loop: loop) { [unowned self] in
            settled = []
            publish()
        }
    }

    /// Whether nothing is left to be moved, as far as is known here.
    var isSettled: Bool {
        announced == nil && heard.isEmpty && !rings.isReconcileDue && past.allSatisfy { $0.visit == .removal }
    }

    /// Shards of the announced ring that are on no ring in force yet.
    var joining: [ShardAddress] { announced.map(joining) ?? [] }

    /// Shards off the ring in force of which no run has settled yet what they hold.
    var unsettled: Set<ShardAddress> {
        let holding = past.filter { $0.visit != .removal }.flatMap(\.holding)
        return Set(holding).union(draining).subtracting(rings.ring.shards)
    }

    /// Shards off the ring in force that may hold groups, by older rings or as they are being emptied.
    var holders: Set<ShardAddress> {
        let past = Set(self.past.flatMap(\.holding)).union(settled.flatMap(\.holding))
        return past.union(draining).subtracting(rings.ring.shards)
    }

    /// Whether the shard gets pushes, or is being emptied.
    func isInUse(_ shard: ShardAddress) -> Bool {
        if draining.contains(shard) { return true }
        guard !suspects.contains(shard) else { return false }
        // Without Consul nobody tells which shards are being emptied.
        let isCopied = store == nil && past.contains { $0.visit != .removal && $0.holding.contains(shard) }
        return isCopied || rings.ring.shards.contains(shard)
    }

    /// Has the ring, made of a new membership, come into force.
    ///
    /// - Parameter isFirst: nobody has been told of shards before, so that there is nobody to agree with.
    func change(to ring: Ring, isFirst: Bool = false) {
        loop.assertOnLoop()
        // A replica that starts has to know this ring, though it has changed for nobody.
        if isFirst, hold > .zero { store?.add(StoredRing(ring)) }
        if announced != nil {
            announcement?.follow(by: ring)
        } else if !ring.isSame(as: rings.ring) {
            if hold == .zero || isFirst || rings.ring.isEmpty { return bringIntoForce(ring) }
            heard.removeAll { $0.other.ring.isSame(as: ring) }
            announcement?.begin(ring, hold: hold)
            store?.add(StoredRing(ring))
            publish()
            hints.deliver(to: joining(ring)) {}
        }
    }

    private var announced: Ring? { announcement?.ring }

    private func announcementHasEnded(_ ring: Ring, _ ending: Announcement.Ending, next: Ring?) {
        switch ending {
        case .inForce: bringIntoForce(ring)
        case .skipped:
            // Others may have it in force.
            if store != nil { heard.append((OtherRing(ring: ring, visit: .removal), loop.now)) }
            awaitHeard()
            publish()
        }
        if let next { change(to: next) }
    }

    private func joining(_ ring: Ring) -> [ShardAddress] {
        ring.shards.filter { !rings.ring.shards.contains($0) }
    }

    private func bringIntoForce(_ ring: Ring) {
        if hold > .zero, !rings.ring.isEmpty { add(OtherRing(ring: rings.ring, visit: .copy)) }
        heard.removeAll { $0.other.ring.isSame(as: ring) }
        past.removeAll { $0.ring.isSame(as: ring) }
        settled.removeAll { $0.ring.isSame(as: ring) }
        past = past.flatMap { $0.visit == .removal ? revisited($0, with: ring.shards) : [$0] }
        suspects.formIntersection(ring.shards)
        rings.ring = ring
        rings.changeCount += 1
        if hold > .zero { store?.add(StoredRing(ring)) }
        publish()
        hints.noteUntold()
    }

    /// What these shards, which were away, hold by an older ring counts again, as they are on the ring again or being emptied:
    /// it is copied to until a run has settled it.
    private func revisited(_ other: OtherRing, with shards: [ShardAddress]) -> [OtherRing] {
        guard let away = other.shards, !away.isDisjoint(with: shards) else { return [other] }
        let back = other.part(away.intersection(shards), .copy)
        for ring in back { store?.add(StoredRing(ring)) }
        return back + other.part(away.subtracting(shards), .removal)
    }

    /// Other shards are given a suspect shard's pushes: they will hold groups that it owns.
    func isPassedOver(_ shard: ShardAddress) {
        loop.assertOnLoop()
        let ring = rings.ring
        // One that is only visited is passed over by nobody: were it remembered, it would be once it is on the ring again.
        guard ring.shards.contains(shard) else { return }
        // A run that is under way may have looked at what stands in before it did so this time.
        let isNew = suspects.insert(shard).inserted
        addStandIns(isNew: isNew) {}
    }

    /// The ring without the shards that are suspect is one by which others may hold groups.
    private func addStandIns(isNew: Bool, _ done: @escaping () -> Void) {
        let others = rings.ring.shards.filter { !suspects.contains($0) }
        let vnodes = rings.ring.vnodes
        let isKnown = past.contains { $0.visit == .copy && $0.ring.shards == others && $0.ring.vnodes == vnodes }
        guard hold > .zero, !others.isEmpty, isNew || !isKnown else { return done() }
        builder.build(shards: others, vnodes: vnodes) { [unowned self] ring in
            if !ring.isSame(as: rings.ring) {
                add(OtherRing(ring: ring, visit: .copy), isInUse: true)
                publish()
            }
            done()
        }
    }

    /// A shard that was suspect answers again; `done` is called once it has been told what it has missed.
    func answers(_ shard: ShardAddress, _ done: @escaping () -> Void) {
        loop.assertOnLoop()
        hints.catchUp(shard) { [unowned self] in
            suspects.remove(shard)
            // While it was told, it may have missed more.
            hints.noteUntold()
            // Groups of those that still are suspect come to it from now on.
            if suspects.isEmpty { done() } else { addStandIns(isNew: false, done) }
        }
    }

    /// A shard that was suspect gets its pushes again. Rings that came while it was told have had it passed over once more.
    func isUp(_ shard: ShardAddress) {
        loop.assertOnLoop()
        suspects.remove(shard)
        hints.noteUntold()
    }

    /// Takes in how things stand when this replica starts; `done` is called, now or later, when it is known, or cannot be.
    func begin(_ done: @escaping () -> Void) {
        loop.assertOnLoop()
        hasBegun = true
        guard hold > .zero, let store else { return done() }
        store.read { [unowned self] stored in
            builder.build(stored.rings, visit: .copy) { [unowned self] others in
                for other in others where !isKnown(StoredRing(other)) { add(other, isNew: false) }
                builder.build(stored.awayRings, visit: .removal) { [unowned self] away in
                    past += away.flatMap { revisited($0, with: rings.ring.shards) }
                    publish()
                    // Not before: these rings the others know already, and copy by.
                    watchStore()
                    done()
                }
            }
        }
    }

    private func watchStore() {
        store?.watch { [unowned self] entries in
            adopt(entries)
        }
    }

    /// Shards of this ring may hold groups that others own.
    ///
    /// - Parameters:
    ///   - isNew: whether others have to be told.
    ///   - isInUse: whether they are given requests from now on.
    private func add(_ other: OtherRing, isNew: Bool = true, isInUse: Bool = false) {
        if isNew { store?.add(StoredRing(other), isInUse: isInUse) }
        base = nil
        addedAt = wallClock()
        rings.isReconcileDue = true
        rings.changeCount += 1
        heard.removeAll { other.covers($0.other) }
        past.removeAll { other.covers($0) }
        past.append(other)
        forgetTooMany()
    }

    /// What is forgotten here but not by another replica is copied to by that one, and not voided by this one: so that can
    /// only be the last resort.
    private func forgetTooMany() {
        guard past.count > past.mostToRemember else { return }
        let forgotten = past.removeFirst()
        logger.warning(
            "the ring has changed so often that older rings are forgotten before a run has settled them",
            metadata: ["remembered": "\(past.count)", "forgotten": "\(forgotten.ring.shards.listed)"]
        )
    }

    /// Takes a step where a run, of this replica or another, has got far enough.
    func observe(_ state: RunState) {
        loop.assertOnLoop()
        draining = state.draining.compactMap { ShardAddress(parsing: $0) }.filter { !rings.ring.shards.contains($0) }
        if !draining.isEmpty { hints.noteUntold() }
        if state.phase == .copying,
            past.contains(where: { $0.visit == .removal && !$0.holding.isDisjoint(with: draining) })
        {
            // What it holds is about to be given to owners: no push may go by it from now on.
            past = past.flatMap { $0.visit == .removal ? revisited($0, with: draining) : [$0] }
            publish()
        }
        object(to: state)
        guard rings.isReconcileDue || past.contains(where: { $0.visit != .removal }) else { return }
        let known = base ?? state.run
        base = known
        // The replica that runs may not have this ring in force yet, or not any more: it settles nothing here.
        guard state.isRun(by: rings.ring) else { return }
        // Where the runs before the last ring are not known, clocks tell, which are not quite the same everywhere.
        guard state.run > known || state.startedAt > addedAt + Handover.clockMargin else { return remind(state) }
        switch state.phase {
        case .copying:
            return
        case .copied:
            guard past.contains(where: { $0.visit == .copy }) else { return }
            let cleared = Set(state.clearedShards)
            let kept = Set(state.kept)
            past = past.flatMap { $0.visit == .copy ? $0.swept(on: rings.ring, cleared, kept) : [$0] }
        case .settled:
            settle(cleared: Set(state.clearedShards))
        }
        publish()
    }

    /// A run goes by a ring that is not in force here, or gives groups to shards that are passed over here. Two replicas that
    /// each take the other's owners for places to be swept would lose pushes: that rings are stored while it is under way
    /// lets no run get so far.
    private func object(to state: RunState) {
        guard hold > .zero, !rings.ring.isEmpty, state.run > 0, state.run != objectedTo else { return }
        if !state.isRun(by: rings.ring) {
            store?.add(StoredRing(rings.ring))
            remindOfPast(state)
        } else if !suspects.isEmpty, state.phase == .copying {
            objectedTo = state.run
            addStandIns(isNew: true) {}
        }
    }

    /// A run has settled what it knew, which was not all: others must know of these rings to the end.
    private func remind(_ state: RunState) {
        guard state.phase == .settled, state.run != objectedTo else { return }
        remindOfPast(state)
    }

    private func remindOfPast(_ state: RunState) {
        objectedTo = state.run
        for other in past where other.visit == .copy { store?.add(StoredRing(other)) }
    }

    /// Takes in the rings that all replicas have stored. One that is not known here, as another replica has had a membership
    /// that this one has not, is visited step by step too: no replica may copy to a shard whose copy another one does not
    /// void. To shards that stand in for others one copies at once, as the other replica does: what is pushed here to a
    /// shard that has only been away for that one may be removed from it as something that it has missed the end of.
    ///
    /// One that is swept here is copied to again if another replica has stored it again: a shard is suspect once more.
    func adopt(_ entries: [RingEntry]) {
        let inUse = Set(entries.filter(\.isInUse).map(\.ring))
        let again = Set(entries.filter { adopted != nil && adopted?[$0.key] != $0.modifyIndex }.map(\.ring))
        adopted = Dictionary(entries.map { ($0.key, $0.modifyIndex) }) { first, _ in first }
        heard.removeAll { one in !entries.contains { $0.ring == StoredRing(one.other) && !$0.isInUse } }
        func isNew(_ ring: StoredRing) -> Bool { !isKnown(ring, asCopied: again.contains(ring)) }
        let new = entries.map(\.ring).filter(isNew)
        guard hold > .zero, !new.isEmpty else { return }
        builder.build(new, visit: .removal) { [unowned self] built in
            for other in built where isNew(StoredRing(other)) {
                if inUse.contains(StoredRing(other)) {
                    add(OtherRing(ring: other.ring, visit: .copy, shards: other.shards), isNew: false)
                } else {
                    heard.append((other, loop.now))
                }
            }
            awaitHeard()
            publish()
        }
    }

    private func awaitHeard() {
        guard let first = heard.map(\.at).min() else { return }
        heardTimer?.schedule(after: max(first.advanced(by: hold).since(loop.now), Handover.leastWait))
    }

    /// Whether all is seen to that shards may hold by this ring.
    ///
    /// - Parameter asCopied: whether what is only swept, or voided, does not count.
    private func isKnown(_ stored: StoredRing, asCopied: Bool = false) -> Bool {
        let own = [rings.ring, announced, announcement?.next].compactMap { $0.map { StoredRing($0) } }
        let others = past.filter { !asCopied || $0.visit == .copy } + heard.map(\.other)
        let known = (own + others.map { StoredRing($0) }).filter(stored.isSame)
        return !known.isEmpty && Set(known.flatMap(\.holding)).isSuperset(of: stored.holding)
    }

    /// All replicas know these rings by now, as they watch what is stored.
    private func takeUpHeard() {
        let now = loop.now
        let due = heard.filter { now.since($0.at) >= hold && announcement?.next?.isSame(as: $0.other.ring) != true }
        for (other, _) in due { add(OtherRing(ring: other.ring, visit: .copy, shards: other.shards), isNew: false) }
        awaitHeard()
        if !due.isEmpty { publish() }
    }

    private func settle(cleared: Set<ShardAddress>) {
        // One that is off the ring has been emptied, to be stopped: nothing need be told to it.
        settled = past.flatMap { $0.part($0.holding.intersection(rings.ring.shards), .removal) }
        settledTimer?.schedule(after: hold)
        // A shard that the run did not know of has not been emptied either.
        past = past.flatMap { $0.part($0.away(from: rings.ring, cleared), .removal) }
        rings.isReconcileDue = false
        logger.info("groups are settled", metadata: ["shards": "\(rings.ring.shards.count)"])
    }

    /// Groups stay where they are from now on: no run would settle what others may hold.
    private func forgetAll() {
        (past, heard, settled) = ([], [], [])
        suspects = []
        rings.isReconcileDue = false
        if announced == nil { publish() } else { announcement?.holdIsOver() }
    }

    private func publish() {
        rings.others = past + settled + heard.map(\.other)
        if let announced { rings.others.append(OtherRing(ring: announced, visit: .removal)) }
        logger.debug(
            "rings in use",
            metadata: [
                "in_force": "\(rings.ring.shards.listed)",
                "others": "\(rings.others.map { "\($0.visit) \($0.ring.shards.listed)" }.joined(separator: "; "))",
                "reconcile_due": "\(rings.isReconcileDue)",
            ]
        )
        onChange(rings)
    }

    private static let clockMargin = 0.25
    /// For a heard ring that is about to be in force here.
    private static let leastWait = TimeSpan.milliseconds(50)
}
