// What happens in a history: who pushes what when, and what fails when and for how long. Named stories write one by hand;
// the others are drawn from a seed and a configuration. Everything else is chance, from the scenario's own seed.

/// A client's request.
public enum PushMethod: String, Sendable { case put = "PUT", post = "POST", delete = "DELETE" }

/// One thing that happens; durations are in milliseconds.
public enum Happening: Sendable {
    case push(PushMethod, key: Int, families: [Int], replica: Int)
    /// A push that each store refuses, as what it holds is wrong.
    case wrongPush(PushMethod, key: Int, families: [Int], replica: Int)
    /// A push by a client that goes at once.
    case pushAndLeave(PushMethod, key: Int, families: [Int], replica: Int)
    /// A client that makes the same push again, by the next replica, until it is acknowledged.
    case pushUntilTaken(PushMethod, key: Int, families: [Int], replica: Int)
    /// Discovery names the store by a second address as well.
    case secondName(store: Int)
    /// The first store is found at another address from now on, and the second one at the address that it had.
    case handOn(from: Int, to: Int)
    /// The process is killed, and started again after so long, with its file or without.
    case kill(store: Int, for: Int64, keepsFile: Bool)
    /// The process is stopped and goes on after so long.
    case hang(store: Int, for: Int64)
    /// The store that the next merge of the mover is sent to hangs with it for so long.
    case hangWithMerge(for: Int64)
    /// The replica cannot reach the store for so long.
    case cutStore(replica: Int, store: Int, for: Int64)
    /// What the replica sends to the store is held up in the network for so long, and arrives then.
    case delayStore(replica: Int, store: Int, for: Int64)
    /// The replica cannot reach Consul for so long.
    case cutConsul(replica: Int, for: Int64)
    /// Nobody can reach Consul for so long.
    case consulAway(for: Int64)
    /// The replica's process is stopped and goes on after so long.
    case stopReplica(Int, for: Int64)
    /// The replica's process is killed and started again after so long.
    case killReplica(Int, for: Int64)
    /// The membership becomes these stores, by these addresses.
    case ring([Int], renamed: Bool)
    /// The membership becomes these stores by what one replica reads, whatever the others do, until the next `ring`.
    case ringSeen(by: Int, [Int])
    /// The operator gives the store up, if it is down.
    case giveUp(store: Int)
    /// The scrape of a store fails for what all its groups hold: the mover rewrites them.
    case heal(store: Int)
    /// Shards refuse what the mover pushes, for so long.
    case refuse(store: Int, for: Int64)
}

/// A history that can be run.
public struct Scenario: Sendable {
    /// What a reader calls it.
    public var name: String
    /// What chance is drawn from.
    public var seed: UInt64
    /// How many replicas there are.
    public var replicaCount = 2
    /// How many machines with stores there are.
    public var storeCount = 4
    /// The stores on the ring at first.
    public var ring = [0, 1, 2]
    /// What happens when, in ascending order of time.
    public var happenings: [(at: Int64, what: Happening)] = []
    /// Whether late work after a hang is done in any order.
    public var shuffles = false
    /// Whether pushes may be executed twice.
    public var duplicates = false
    /// Whether clients push on a group while another push on it is under way.
    public var isConcurrent = true
    /// How much slower news from Consul comes.
    public var lag: Int64 = 1
    /// How often stores write their files; 0: at every push.
    public var fileInterval: Int64 = 0
    /// How long a store takes to answer a listing of a moment before.
    public var listingTime: Int64 = 0
    /// How far the replicas' clocks are apart.
    public var clockOffsets: [Int64] = []
    /// Replicas with another version or `hash.key`.
    public var haveOtherSettings: Set<Int> = []
    /// Whether stores hold groups from before there was a register, wherever they are.
    public var hasOldGroups = false
    /// A store, not on the ring at first, that holds every group from before.
    public var storeWithOldGroups: Int?
    /// Whether there is a Consul at all.
    public var hasConsul = true
    /// The greatest delay of a mover's push in the network.
    public var pushDelay: Int64 = 3

    /// A history in which nothing happens yet.
    public init(name: String, seed: UInt64) { (self.name, self.seed) = (name, seed) }
}

/// Which faults a random history may have.
public struct Configuration: Sendable {
    /// What a reader calls it.
    public var name: String
    var faults: [Fault]
    var replicas = 2
    var concurrent = false
    var rings = true
    /// Whether no history of it may be wrong.
    public var isStrict = true
    var change: @Sendable (inout Scenario) -> Void = { _ in }

    enum Fault: Sendable {
        case kill, killAll, loseFile, hang, cutStore, delayStore, cutConsul, consulAway, stopReplica, killReplica,
            isolate, refuse, heal
    }
}

extension Configuration {
    /// All configurations; those that are not strict have faults that Pushgateway's API does not allow to be mended.
    public static let all: [Configuration] = [
        Configuration(name: "calm", faults: []),
        Configuration(name: "calm-one", faults: [], replicas: 1),
        Configuration(name: "concurrent", faults: [], concurrent: true),
        Configuration(name: "fail", faults: [.kill]),
        Configuration(name: "fail-one", faults: [.kill], replicas: 1, change: { $0.hasConsul = false }),
        Configuration(name: "hang", faults: [.hang]),
        Configuration(name: "shuffle", faults: [.hang], change: { $0.shuffles = true }),
        Configuration(name: "lag", faults: [], replicas: 3, change: { $0.lag = 40 }),
        Configuration(name: "lag-fail", faults: [.kill], replicas: 3, change: { $0.lag = 40 }),
        Configuration(name: "duplicates", faults: [], change: { $0.duplicates = true }),
        Configuration(name: "stopped", faults: [.stopReplica]),
        Configuration(name: "killed-replica", faults: [.killReplica], replicas: 3),
        Configuration(name: "part", faults: [.cutStore]),
        Configuration(name: "cut", faults: [.cutConsul], replicas: 3),
        Configuration(name: "away", faults: [.consulAway], replicas: 2),
        Configuration(name: "refused", faults: [.refuse]),
        Configuration(name: "heal", faults: [.heal], concurrent: true),
        Configuration(name: "heal-fail", faults: [.heal, .kill, .hang], replicas: 3, concurrent: true),
        Configuration(
            name: "heal-one",
            faults: [.heal, .kill],
            replicas: 1,
            concurrent: true,
            change: { $0.hasConsul = false }
        ),
        Configuration(name: "slow-listing", faults: [.kill], change: { $0.listingTime = 1000 }),
        Configuration(
            name: "mix",
            faults: [.kill, .hang, .stopReplica, .killReplica],
            replicas: 3,
            change: { ($0.lag, $0.duplicates) = (20, true) }
        ),
        Configuration(name: "mix-part", faults: [.kill, .hang, .cutStore, .refuse], replicas: 3, concurrent: true),
        Configuration(name: "still", faults: [.kill, .hang, .stopReplica], replicas: 2, rings: false),
        Configuration(
            name: "without-consul",
            faults: [.kill, .hang],
            replicas: 1,
            change: { $0.hasConsul = false }
        ),
        Configuration(name: "file", faults: [.kill], isStrict: false, change: { $0.fileInterval = 1500 }),
        Configuration(name: "lose-file", faults: [.loseFile], isStrict: false),
        Configuration(name: "all-killed", faults: [.killAll], isStrict: false),
        Configuration(name: "late", faults: [.delayStore], replicas: 3, isStrict: false),
        Configuration(name: "isolated", faults: [.isolate], isStrict: false),
        Configuration(name: "cut-fail", faults: [.cutConsul, .kill], replicas: 3, isStrict: false),
        Configuration(name: "away-fail", faults: [.consulAway, .kill], isStrict: false),
    ]

    /// A random history.
    public func scenario(seed: UInt64) -> Scenario {
        var chance = Chance(seed ^ 0x5555)
        var scenario = Scenario(name: name, seed: seed)
        (scenario.replicaCount, scenario.isConcurrent) = (replicas, concurrent)
        scenario.hasOldGroups = seed % 2 == 0
        change(&scenario)
        let end: Int64 = 15_000
        for _ in 0..<40 {
            let key = chance.below(World.keyCount)
            let at = chance.between(1500, end)
            let method: PushMethod = [.put, .put, .put, .post, .post, .post, .post, .delete, .delete][chance.below(9)]
            let families = method == .delete ? [] : Array(0..<3).filter { _ in chance.happens(600) }
            let replica = chance.below(replicas)
            let push: Happening =
                method != .delete && chance.happens(80)
                ? .wrongPush(method, key: key, families: families, replica: replica)
                : .push(method, key: key, families: families, replica: replica)
            scenario.happenings.append((at, push))
        }
        var isLarge = false
        for _ in 0..<(rings ? chance.below(4) : 0) {
            isLarge.toggle()
            let stores = isLarge ? [0, 1, 2, 3] : chance.happens(500) ? [0, 1, 2] : [1, 2, 3]
            scenario.happenings.append((chance.between(1500, end), .ring(stores, renamed: chance.happens(100))))
        }
        for _ in 0..<(faults.isEmpty ? 0 : 1 + chance.below(4)) {
            let fault = faults[chance.below(faults.count)]
            let at = chance.between(1500, end)
            let long = chance.happens(300) ? chance.between(2000, 12_000) : chance.between(20, 2500)
            let (store, replica) = (chance.below(4), chance.below(replicas))
            scenario.happenings += happenings(fault, store, replica, long).map { (at, $0) }
        }
        scenario.happenings.sort { $0.at < $1.at }
        return scenario
    }

    private func happenings(_ fault: Fault, _ store: Int, _ replica: Int, _ long: Int64) -> [Happening] {
        switch fault {
        case .kill: [.kill(store: store, for: long, keepsFile: true)]
        case .loseFile: [.kill(store: store, for: long, keepsFile: false)]
        case .killAll: (0..<4).map { .kill(store: $0, for: long, keepsFile: true) }
        case .hang: [.hang(store: store, for: long)]
        case .cutStore: [.cutStore(replica: replica, store: store, for: long)]
        case .delayStore: [.delayStore(replica: replica, store: store, for: long)]
        case .cutConsul: [.cutConsul(replica: replica, for: long)]
        case .consulAway: [.consulAway(for: long)]
        case .stopReplica: [.stopReplica(replica, for: long)]
        case .killReplica: [.killReplica(replica, for: long)]
        case .isolate:
            [.cutConsul(replica: replica, for: long)]
                + (0..<4).map { .cutStore(replica: replica, store: $0, for: long) }
        case .refuse: [.refuse(store: store, for: long)]
        case .heal: (0..<4).map { .heal(store: $0) }
        }
    }
}
