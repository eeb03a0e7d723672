// One history: the stores, the network, Consul, the replicas, and what happens to them. `Verdict` says what is wrong with it.
import MovingCore

/// How a call to a store ended.
enum Reply<Answer> {
    case answered(Answer)
    case refused
    case late
}

extension PushResult {
    init(_ reply: Reply<PushResult>) {
        switch reply {
        case .answered(let result): self = result
        case .refused: self = .refused
        case .late: self = .late
        }
    }
}

/// A simulated world.
final class World {
    static let keyCount = 6

    let scenario: Scenario
    /// Rules that are left out, to see that it is found.
    let without: Set<Rule>
    var chance: Chance
    private(set) var now: Int64 = 0
    private var agenda = Agenda()
    /// The stores by their machines; one that has lost its file is another.
    var stores: [SimulatedStore] = []
    private(set) var replicas: [Replica] = []
    private(set) var consul: SimulatedConsul!
    var oracle = Oracle()
    var pushCount = 0
    var keepsRegisters = false
    private(set) var registers: [Register] = []
    private var told: Set<String> = []
    var secondNames: Set<Int> = []
    var addresses: [String: String] = [:]
    var pushes: [Value: Push] = [:]
    var activeKeys = [Int](repeating: 0, count: World.keyCount)
    var wrong: Set<Wrong> = []
    /// The membership by discovery.
    var wanted: [Int]
    var wantedBy: [Int: [Int]] = [:]
    var isRenamed = false
    /// For how long the store will hang that the next merge is sent to.
    var hangsWithMerge: Int64?
    /// Replicas that cannot reach a store, and stores that refuse copies, by how many faults say so.
    private var cuts: [Int: Int] = [:]
    private var refusals: [Int: Int] = [:]
    /// What replicas have sent to stores that is held up in the network, while it is.
    private var heldUp: [Int: [() -> Void]] = [:]
    private var failing: [String: Int] = [:]
    /// Stores that were killed or hung, and have not been put right yet.
    private var failed: Set<StoreID> = []
    /// When a fault ended last: what could not be wiped because of it may be there a moment longer.
    private var healedAt: Int64 = 0
    private var dirtySince: [StoreID: (epoch: Epoch, at: Int64)] = [:]
    /// Whether pushes are done now that were held up in the network.
    private(set) var isArriving = false
    private(set) var listCount = 0
    var longestFence: Int64 = 0
    private var isTracing: Bool
    private(set) var trace: [String] = []
    let keys: [GroupKey]
    let marks: [MarkID]
    private var nextStoreID: UInt64 = 100
    var ringCache: [RingPair: Rings] = [:]

    init(_ scenario: Scenario, without: Set<Rule> = [], isTracing: Bool = false) {
        (self.scenario, self.without, self.isTracing) = (scenario, without, isTracing)
        chance = Chance(scenario.seed)
        let hashes = (0..<World.keyCount).map(World.hash)
        keys = hashes.enumerated().map { GroupKey(text: "\($0)", hash: $1) }
        marks = hashes.enumerated().map { MarkID(hash: $1, digest: UInt64($0)) }
        wanted = scenario.ring
        for index in 0..<scenario.storeCount { stores.append(newStore(index)) }
        let first = scenario.ring.map { stores[$0] }
        for store in first { store.isMarked = true }
        let register = Register(
            stores: first.map { Store(id: $0.id, address: address($0), start: $0.start) },
            vnodes: 1
        )
        consul = SimulatedConsul(self, register)
        if scenario.hasOldGroups { addOldGroups() }
        if let old = scenario.storeWithOldGroups { addGroups(to: old) }
        for index in 0..<scenario.replicaCount { replicas.append(Replica(index, self)) }
    }

    func newStore(_ index: Int) -> SimulatedStore {
        nextStoreID += 1
        let store = SimulatedStore(id: StoreID(nextStoreID), name: String("ABCDEFGH".dropFirst(index).prefix(1)))
        return store
    }

    func address(_ store: SimulatedStore) -> String {
        addresses[store.name] ?? (isRenamed ? "\(store.name)2" : store.name)
    }

    func name(_ id: StoreID) -> String { stores.first { $0.id == id }?.name ?? "(store \(id.value), gone)" }

    // MARK: Time

    func after(_ delay: Int64, _ body: @escaping () -> Void) { agenda.add(at: now + delay, body) }

    func log(_ text: () -> String) { if isTracing { trace.append("\(now) ms: \(text())") } }

    /// Runs until the world is at rest after all has happened, and then judges it.
    func run() {
        for replica in replicas { replica.begin() }
        for (at, what) in scenario.happenings { agenda.add(at: at) { [unowned self] in happen(what) } }
        let end = (scenario.happenings.last?.at ?? 0) + 1
        scrapeSoon()
        var restedAt: Int64?
        var counts = (0, 0)
        var nextLook: Int64 = 0
        while let (time, body) = agenda.next() {
            now = time
            body()
            if now < end || now < nextLook { continue }
            nextLook = now + 50
            if let rested = restedAt {
                if now < rested + 3000 {
                    counts = (listCount, consul.writeCount)
                    if !isAtRest { restedAt = nil }
                }
                if now > rested + 6000 { break }
            } else if isAtRest {
                restedAt = now
            } else if now > end + 300_000 {
                wrong.insert(.dead)
                log {
                    "WRONG (dead): still failing \(failing), pushes under way \(activeKeys), \(replicas.map { $0.state })"
                }
                break
            }
        }
        if restedAt != nil, counts != (listCount, consul.writeCount) || !isAtRest {
            wrong.insert(.restless)
            log { "WRONG (restless): \(counts) became \((listCount, consul.writeCount)), \(replicas.map(\.state))" }
        }
        judge()
        // What is yet to be done has the world, which has it: a million histories would take all memory.
        agenda = Agenda()
    }

    private var isAtRest: Bool {
        failing.isEmpty && consul.register.isAtRest && activeKeys.allSatisfy { $0 == 0 }
            && Set(consul.register.ring.members)
                == Set(wanted.map { Member(address: address(stores[$0]), store: stores[$0].id) })
            && replicas.allSatisfy { $0.isResting(consul.register) }
            && consul.register.stores.allSatisfy { known in
                stores.contains { $0.id == known.id && $0.start == known.start }
            }
    }

    // MARK: Network

    func latency() -> Int64 {
        if chance.happens(30) { return chance.between(5, 120) }
        return chance.between(1, 3)
    }

    func consulDelay() -> Int64 { chance.between(1, 2) * (chance.happens(100) ? scenario.lag * 10 : scenario.lag) }

    /// One request to a store, over the network and back.
    func call<Answer>(
        _ replica: Replica,
        _ id: StoreID,
        within limit: Int64,
        delay: Int64? = nil,
        _ execute: @escaping (SimulatedStore) -> Answer,
        done: @escaping (Reply<Answer>) -> Void
    ) {
        let incarnation = replica.incarnation
        var hasEnded = false
        func end(_ reply: Reply<Answer>, after delay: Int64) {
            after(delay) {
                replica.deliver(incarnation) {
                    if hasEnded { return }
                    hasEnded = true
                    done(reply)
                }
            }
        }
        after(delay ?? latency()) { [unowned self] in
            guard let place = stores.firstIndex(where: { $0.id == id }), stores[place].isUp,
                (cuts[replica.index * 8 + place] ?? 0) == 0
            else { return end(.refused, after: 1) }
            let store = stores[place]
            let work = { end(.answered(execute(store)), after: self.chance.between(1, 2)) }
            if heldUp[replica.index * 8 + place] != nil {
                heldUp[replica.index * 8 + place]!.append { if store.isUp, !store.isHung { work() } }
                end(.late, after: limit)
            } else if store.isHung {
                store.inbox.append((execute: work, refuse: { end(.refused, after: 1) }))
                end(.late, after: limit)
            } else {
                work()
            }
        }
    }

    func list(_ replica: Replica, _ id: StoreID, done: @escaping (Listing?) -> Void) {
        listCount += 1
        let incarnation = replica.incarnation
        call(replica, id, within: 800) { [unowned self] store in
            store.listing(self)
        } done: { [unowned self] reply in
            guard case .answered(let listing) = reply else { return done(nil) }
            if scenario.listingTime == 0 { return done(listing) }
            after(scenario.listingTime) { replica.deliver(incarnation) { done(listing) } }
        }
    }

    func readStart(_ replica: Replica, _ id: StoreID, done: @escaping (StartTime?) -> Void) {
        call(replica, id, within: 800) {
            $0.start
        } done: { reply in
            if case .answered(let start) = reply { done(start) } else { done(nil) }
        }
    }

    func refusesCopies(_ store: SimulatedStore) -> Bool {
        (refusals[stores.firstIndex { $0 === store } ?? -1] ?? 0) > 0
    }

    /// Whether the replica reaches the store, for what identifies stores beside the pushes.
    func reaches(_ replica: Replica, _ index: Int) -> Bool {
        stores[index].isUp && !stores[index].isHung && (cuts[replica.index * 8 + index] ?? 0) == 0
    }

    func persist(_ store: SimulatedStore) {
        guard scenario.fileInterval == 0 || now - store.fileWritten >= scenario.fileInterval else { return }
        (store.file, store.fileWritten) = (store.content, now)
    }

    // MARK: Faults

    func happen(_ what: Happening) {
        switch what {
        case .push, .wrongPush, .pushAndLeave, .pushUntilTaken: push(what)
        case .secondName, .handOn, .ring, .ringSeen: discover(what)
        case .kill(let index, let time, let keepsFile): kill(index, for: time, keepsFile: keepsFile)
        case .hang(let index, let time):
            guard stores[index].isUp, !stores[index].isHung else { return }
            log { "\(stores[index].name) hangs for \(time) ms" }
            stores[index].isHung = true
            failed.insert(stores[index].id)
            fails("hang \(index)", for: time) { [unowned self] in wake(index) }
        case .hangWithMerge(let time): hangsWithMerge = time
        case .heal(let index):
            let hashes = Set(keys.map(\.hash))
            for replica in replicas where replica.mover != nil && !replica.isStopped {
                log { "R\(replica.index) is to heal \(stores[index].name)" }
                replica.mover?.ailing[stores[index].id] = hashes
                replica.tell(.tick)
            }
        case .cutStore(let replica, let index, let time):
            log { "R\(replica) cannot reach \(stores[index].name) for \(time) ms" }
            cuts[replica * 8 + index, default: 0] += 1
            fails("cut", for: time) { [unowned self] in cuts[replica * 8 + index]! -= 1 }
        case .delayStore(let replica, let index, let time):
            guard heldUp[replica * 8 + index] == nil else { return }
            log { "what R\(replica) sends to \(stores[index].name) is held up for \(time) ms" }
            heldUp[replica * 8 + index] = []
            failed.insert(stores[index].id)
            fails("delay", for: time) { [unowned self] in arrive(replica * 8 + index) }
        case .cutConsul(let index, let time):
            log { "R\(index) cannot reach Consul for \(time) ms" }
            replicas[index].cutFromConsul()
            fails("cut", for: time) { [unowned self] in replicas[index].reachesConsulAgain() }
        case .consulAway(let time):
            guard !consul.isAway else { return }
            log { "Consul is away for \(time) ms" }
            consul.setAway(true)
            for replica in replicas { replica.cutFromConsul() }
            fails("away", for: time) { [unowned self] in
                consul.setAway(false)
                for replica in replicas { replica.reachesConsulAgain() }
            }
        case .stopReplica(let index, let time):
            guard replicas[index].isRunning, !replicas[index].isStopped else { return }
            log { "R\(index) is stopped for \(time) ms" }
            replicas[index].stop()
            fails("stop", for: time) { [unowned self] in replicas[index].goOn() }
        case .killReplica(let index, let time):
            guard replicas[index].isRunning, !replicas[index].isStopped, scenario.hasConsul else { return }
            log { "R\(index) is killed" }
            replicas[index].kill()
            fails("replica", for: time) { [unowned self] in replicas[index].begin() }
        case .giveUp(let index):
            replicas[0].giveUp(stores[index].id)
        case .refuse(let index, let time):
            log { "\(stores[index].name) refuses copies for \(time) ms" }
            refusals[index, default: 0] += 1
            fails("refuse", for: time) { [unowned self] in refusals[index]! -= 1 }
        }
    }

    func fails(_ name: String, for time: Int64, heal: @escaping () -> Void) {
        failing[name, default: 0] += 1
        after(time) { [unowned self] in
            failing[name]! -= 1
            if failing[name] == 0 { failing[name] = nil }
            healedAt = now
            heal()
        }
    }

    private func kill(_ index: Int, for time: Int64, keepsFile: Bool) {
        let store = stores[index]
        guard store.isUp else { return }
        log { "\(store.name) is killed" }
        persist(store)
        (store.isUp, store.isHung) = (false, false)
        failed.insert(store.id)
        let inbox = store.inbox
        store.inbox = []
        for item in inbox { item.refuse() }
        let writtenAt = keepsFile ? (scenario.fileInterval == 0 ? now : store.fileWritten) : -1
        oracle.killed(store.id, writtenAt: writtenAt)
        fails("kill \(index)", for: time) { [unowned self] in
            if keepsFile {
                log { "\(store.name) starts again" }
                store.content = store.file
            } else {
                log { "\(store.name) starts again with nothing" }
                stores[index] = newStore(index)
            }
            stores[index].start = StartTime(now)
            (stores[index].isUp, stores[index].answersSince) = (true, now)
        }
    }

    private func wake(_ index: Int) {
        let store = stores[index]
        guard store.isHung else { return }
        log { "\(store.name) goes on" }
        (store.isHung, store.answersSince) = (false, now)
        var late = store.inbox
        store.inbox = []
        if scenario.shuffles { chance.shuffle(&late) }
        // Its sockets are empty a little later.
        for item in late {
            after(chance.between(0, 150)) { if store.isUp { item.execute() } else { item.refuse() } }
        }
    }

    private func arrive(_ path: Int) {
        log { "what R\(path / 8) sent to \(stores[path % 8].name) arrives" }
        isArriving = true
        for body in heldUp.removeValue(forKey: path) ?? [] { body() }
        isArriving = false
    }

    // MARK: What Prometheus sees

    private func scrapeSoon() {
        after(250) { [unowned self] in
            scrape()
            scrapeSoon()
        }
    }

    /// Scrapes see what a failed store holds until it is put right, also where one replica alone cannot reach it; and for
    /// a moment what a mover has left on a store that was stopped in a fence.
    func hasChanged(_ register: Register, _ old: Register) {
        if isHasty(register, old) { found(.hasty, 0, 0, [], []) }
        if keepsRegisters { registers.append(register) }
        failed.formUnion(register.down)
        for stray in register.dirty where dirtySince[stray.store]?.epoch != stray.since {
            dirtySince[stray.store] = (stray.since, now)
        }
    }

    /// Whether a store that leaves loses copies while discovery has to name it. Where little may be on its way at a time, that is
    /// how others get their turn.
    private func isHasty(_ register: Register, _ old: Register) -> Bool {
        guard moverSettings.slotsAtOnce > 100 else { return false }
        return register.entries.contains { slot, entry in
            guard case .ending(let backup, _) = entry.step, old.entry(slot).step != entry.step else { return false }
            return old.isLeaving(backup) && old.isNeeded(backup, rings(for: old))
        }
    }

    /// Stores that have left and are down need not be emptied: nobody scrapes them, and if they come again they are wiped.
    var inDiscovery: [SimulatedStore] { stores.filter { consul.register.store($0.id) != nil } }

    /// Whether what the store holds of the key is void since a moment ago, and about to be wiped.
    private func isYoungDirt(_ store: SimulatedStore, _ key: Int) -> Bool {
        let register = consul.register
        guard register.isDirty(store.id), now - max(healedAt, dirtySince[store.id]?.at ?? 0) < 3000 + 60 * scenario.lag
        else {
            return false
        }
        return register.entry(rings(for: register).slot(of: keys[key].hash)).own != store.id
    }

    private func scrape() {
        let register = consul.register
        failed = failed.filter { id in
            register.isDown(id) || register.isDirty(id)
                || stores.contains { $0.id == id && ($0.start != register.store(id)?.start || !$0.isUp || $0.isHung) }
        }
        guard failing.isEmpty, failed.isEmpty, register.down.isEmpty, register.adopting.isEmpty, activeKeys.contains(0),
            register.stores.allSatisfy({ known in stores.contains { $0.id == known.id && $0.start == known.start } }),
            !register.entries.values.contains(where: { !$0.predecessors.isEmpty }),
            // What a replica has done alone is put right once it has told the register.
            !replicas.contains(where: { $0.following?.markedSince != nil })
        else { return }
        let scraped = inDiscovery
        let rings = rings(for: register)
        // The others are scraped no more, once Prometheus has heard of it.
        let named = Set(scraped.map(\.id)).filter { register.isNeeded($0, rings) }
        for place in 0..<World.keyCount * 3 where activeKeys[place / 3] == 0 {
            guard let allowed = oracle.only(place / 3, place % 3) else { continue }
            var isSeen = false
            for store in scraped {
                let value = store.content.values[place]
                if value == allowed, named.contains(store.id) { isSeen = true }
                if value == 0 || value == allowed || isYoungDirt(store, place / 3) { continue }
                found(allowed == 0 ? .ghost : .older, place / 3, place % 3, [value], [allowed])
            }
            if !isSeen, allowed != 0 { found(.hidden, place / 3, place % 3, [], [allowed]) }
        }
    }

    func found(_ what: Wrong, _ key: Int, _ family: Int, _ seen: Set<Value>, _ allowed: Set<Value>) {
        if !told.insert("\(what) \(key) \(family)").inserted { return }
        log {
            "WRONG (\(what)): \(familyNames[family]) of group \(key) is \(seen.sorted()), and may be \(allowed.sorted())"
        }
        wrong.insert(what)
    }
}
