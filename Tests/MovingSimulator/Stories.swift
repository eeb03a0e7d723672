// The stories that outside tests found in the first way of moving groups, each written down as what happens when.

/// Pushes that come all the time: each group is pushed through every replica in turn.
private func traffic(_ scenario: inout Scenario, from: Int64 = 1500, to: Int64, every: Int64 = 300, replicas: Int) {
    var chance = Chance(scenario.seed)
    var time = from
    var count = 0
    while time < to {
        let method: PushMethod = [.put, .post, .post, .delete][chance.below(4)]
        let families = method == .delete ? [] : [chance.below(3), chance.below(3)]
        let push = Happening.push(method, key: count % World.keyCount, families: families, replica: count % replicas)
        scenario.happenings.append((time, push))
        (time, count) = (time + every, count + 1)
    }
}

/// A story: with traffic, and what else happens.
private func told(
    _ name: String,
    seed: UInt64,
    replicas: Int = 2,
    every: Int64 = 300,
    _ happenings: [(at: Int64, what: Happening)],
    _ change: (inout Scenario) -> Void = { _ in }
) -> Scenario {
    var scenario = Scenario(name: name, seed: seed)
    scenario.replicaCount = replicas
    scenario.isConcurrent = false
    traffic(&scenario, to: 16_000, every: every, replicas: replicas)
    scenario.happenings += happenings
    change(&scenario)
    scenario.happenings.sort { $0.at < $1.at }
    return scenario
}

/// All named stories, from a seed.
public func stories(seed: UInt64) -> [Scenario] {
    membershipStories(seed) + failureStories(seed) + replicaStories(seed) + cutOffStories(seed)
}

private func membershipStories(_ seed: UInt64) -> [Scenario] {
    [
        told(
            "one store under two names",
            seed: seed,
            [(2000, .secondName(store: 1)), (6000, .ring([0, 1, 2, 3], renamed: false))]
        ),
        told(
            "servers renamed",
            seed: seed,
            [(3000, .ring([0, 1, 2], renamed: true)), (9000, .ring([0, 1, 2], renamed: true))]
        ),
        told(
            "an address handed on",
            seed: seed,
            [(3000, .handOn(from: 0, to: 3)), (3001, .ring([0, 1, 2, 3], renamed: false))]
        ),
        told(
            "an address handed on by a shard that leaves",
            seed: seed,
            [(3000, .handOn(from: 0, to: 3)), (3001, .ring([1, 2, 3], renamed: false))]
        ),
        told(
            "two changes of the ring within one hold",
            seed: seed,
            [
                (3000, .ring([0, 1, 2, 3], renamed: false)), (3400, .ring([0, 2, 3], renamed: false)),
                (3800, .ring([0, 1, 2], renamed: false)),
            ]
        ),
        told(
            "a removal while a store that has yet to be adopted is down",
            seed: seed,
            replicas: 3,
            every: 100_000,
            [
                // The one that moves is another.
                (100, .killReplica(2, for: 1500)), (2900, .cutConsul(replica: 2, for: 2600)),
                (3000, .ring([0, 1, 2, 3], renamed: false)), (4500, .kill(store: 3, for: 12_000, keepsFile: true)),
                (8000, .ring([1, 2, 3], renamed: false)),
            ]
                + (0..<World.keyCount).map {
                    (5000 + Int64($0), .push($0 % 2 == 0 ? .delete : .put, key: $0, families: [], replica: 0))
                }
        ) { $0.storeWithOldGroups = 3 },
        told(
            "a store that is killed while it is adopted, and loses its file",
            seed: seed,
            [
                (3000, .ring([0, 1, 2, 3], renamed: false)),
                (3400 + Int64(seed % 40) * 10, .kill(store: 3, for: 3000, keepsFile: false)),
            ]
        ),
        told(
            "groups are rewritten again and again while clients push them",
            seed: seed,
            every: 15,
            (0..<40).map { (2000 + 300 * Int64($0), .heal(store: $0 % 3)) }
                + [(6000, .ring([0, 1, 2, 3], renamed: false)), (9000, .kill(store: 1, for: 1500, keepsFile: true))]
        ),
        told("groups from before", seed: seed, [(5000, .ring([0, 1, 2, 3], renamed: false))]) {
            $0.hasOldGroups = true
        },
    ]
}

private func failureStories(_ seed: UInt64) -> [Scenario] {
    [
        told(
            "an absence shorter than an announcement",
            seed: seed,
            [(4000, .ring([0, 1, 2, 3], renamed: false)), (4350, .kill(store: 1, for: 40, keepsFile: true))]
        ),
        told(
            "a shard that hangs through an announcement and answers late",
            seed: seed,
            every: 120,
            [(4000, .hang(store: 1, for: 3000)), (4200, .ring([0, 1, 2, 3], renamed: false))]
        ) { $0.shuffles = true },
        told(
            "a shard that hangs through an announcement and answers late, and a client that pushes again",
            seed: seed,
            [(4000, .hang(store: 1, for: 1500)), (4200, .ring([0, 1, 2, 3], renamed: false))]
                + (0..<World.keyCount).map {
                    (4100 + Int64($0), .pushUntilTaken(.put, key: $0, families: [0, 1], replica: $0 % 2))
                }
        ) { $0.shuffles = true },
        mergedLate(seed),
        told(
            "all shards killed at once, with files",
            seed: seed,
            (0..<3).map { (5000, .kill(store: $0, for: 1000, keepsFile: true)) }
        ),
        told(
            "all shards killed at once, without files",
            seed: seed,
            (0..<3).map { (5000, .kill(store: $0, for: 1000, keepsFile: false)) }
        ),
        told("a shard that loses its file", seed: seed, [(5000, .kill(store: 1, for: 1000, keepsFile: false))]),
        told(
            "a backup is killed with an old file, then the owner",
            seed: seed,
            every: 150,
            [
                (4000, .ring([0, 1, 2, 3], renamed: false)), (6300, .kill(store: 0, for: 40, keepsFile: true)),
                (6300, .kill(store: 1, for: 40, keepsFile: true)), (6300, .kill(store: 2, for: 40, keepsFile: true)),
                (6600, .kill(store: 3, for: 2000, keepsFile: true)),
            ]
        ) { $0.fileInterval = 2500 },
        markOfACopyWithoutAuthority(seed),
        told(
            "clients that have gone",
            seed: seed,
            [(4000, .ring([0, 1, 2, 3], renamed: false))]
                + (0..<30).map {
                    (
                        4100 + 100 * Int64($0),
                        .pushAndLeave(.put, key: $0 % World.keyCount, families: [0], replica: $0 % 2)
                    )
                }
                + [(5000, .kill(store: 1, for: 500, keepsFile: true))]
        ),
        told(
            "a mark's name taken by a client, and 400s to pushes of the mover",
            seed: seed,
            [
                (4000, .ring([0, 1, 2, 3], renamed: false)), (4000, .refuse(store: 3, for: 4000)),
                (9000, .refuse(store: 0, for: 3000)),
            ]
        ),
    ]
}

private func replicaStories(_ seed: UInt64) -> [Scenario] {
    [
        told(
            "a replica that hangs through a shard's failure and return",
            seed: seed,
            [(4000, .stopReplica(1, for: 7000)), (4500, .kill(store: 1, for: 2000, keepsFile: true))]
        ),
        told(
            "a replica is stopped with pushes under way while their slots go away and come back",
            seed: seed,
            every: 1500,
            [
                (2000, .ring([0, 1, 2, 3], renamed: false)), (3890, .hang(store: 3, for: 1700)),
                (4850, .stopReplica(1, for: 14_000)),
            ]
                + (0..<World.keyCount).flatMap { key -> [(at: Int64, what: Happening)] in
                    [
                        (3900 + Int64(key), .pushAndLeave(.post, key: key, families: [2], replica: 0)),
                        (4810 + Int64(key), .push(.put, key: key, families: [0, 1], replica: 1)),
                    ]
                }
        ) { $0.isConcurrent = true },
        told(
            "the replica that moves hangs through a hand-over",
            seed: seed,
            [
                (4000, .ring([0, 1, 2, 3], renamed: false)), (4500, .stopReplica(0, for: 6000)),
                (4520, .stopReplica(1, for: 700)),
            ]
        ),
        told(
            "clocks thirty seconds and an hour apart",
            seed: seed,
            replicas: 3,
            [
                (4000, .ring([0, 1, 2, 3], renamed: false)), (6000, .killReplica(0, for: 2000)),
                (9000, .killReplica(1, for: 2000)), (12_000, .kill(store: 2, for: 1500, keepsFile: true)),
            ]
        ) { $0.clockOffsets = [0, 30_000, 3_600_000] },
        told(
            "replicas with different files",
            seed: seed,
            replicas: 3,
            [
                (3000, .ringSeen(by: 0, [0, 1, 2, 3])), (3000, .ringSeen(by: 1, [0, 1])),
                (3000, .ringSeen(by: 2, [1, 2])), (6000, .killReplica(Int(seed % 3), for: 3000)),
                (9000, .killReplica(Int(seed / 3 % 3), for: 2000)), (12_000, .ring([0, 1, 2, 3], renamed: false)),
            ]
        ),
    ]
}

private func cutOffStories(_ seed: UInt64) -> [Scenario] {
    [
        told(
            "a replica cut off from Consul through a change of the ring",
            seed: seed,
            replicas: 3,
            [(4000, .cutConsul(replica: 1, for: 8000)), (4300, .ring([0, 1, 2, 3], renamed: false))]
        ),
        told(
            "one replica cut off from one shard",
            seed: seed,
            replicas: 3,
            [(4000, .cutStore(replica: 1, store: 1, for: 5000))]
        ),
        told(
            "Consul away for all through a shard's failure",
            seed: seed,
            replicas: 1,
            [(4000, .consulAway(for: 8000)), (5000, .kill(store: 1, for: 2000, keepsFile: true))]
        ),
        told(
            "a replica cut off from Consul through a shard's failure and return",
            seed: seed,
            replicas: 3,
            [(4000, .cutConsul(replica: 1, for: 8000)), (5000, .kill(store: 1, for: 2000, keepsFile: true))]
        ),
        told(
            "one replica cut off from one shard, and its old requests arrive late",
            seed: seed,
            replicas: 3,
            every: 100,
            [(4000, .delayStore(replica: 1, store: 1, for: 5000))]
        ),
        told(
            "one replica cut off from Consul and one shard, and its old requests arrive late",
            seed: seed,
            replicas: 3,
            every: 100,
            [(4000, .cutConsul(replica: 1, for: 6000)), (4000, .delayStore(replica: 1, store: 1, for: 5000))]
        ),
        told(
            "one replica cut off from everything, and its old requests arrive late",
            seed: seed,
            replicas: 3,
            every: 100,
            [(4000, .cutConsul(replica: 1, for: 6000))]
                + (0..<4).map { (4000, .delayStore(replica: 1, store: $0, for: 5000)) }
        ),
    ]
}

/// Two replicas with different `hash.key`: nothing may move.
public func storyOfOtherSettings(seed: UInt64) -> Scenario {
    told("replicas with different hash.key", seed: seed, [(4000, .ring([0, 1, 2, 3], renamed: false))]) {
        $0.haveOtherSettings = [1]
    }
}

/// One store is absent throughout. Another that stands in for it hangs with PUTs while it has a backup, and does them late, when
/// its copy is void, and wiped: their marks stay, and void what the absent store has once the other stands in again. As if the
/// PUTs, which were not acknowledged, had been done by half.
private func markOfACopyWithoutAuthority(_ seed: UInt64) -> Scenario {
    let absent = Int(seed % 3)
    let first = (absent + 1 + Int(seed / 3 % 2)) % 3
    let second = 3 - absent - first
    var scenario = Scenario(name: "a push that hung leaves its mark on a copy without authority", seed: seed)
    scenario.shuffles = true
    scenario.isConcurrent = false
    scenario.happenings = [
        (4000, .kill(store: absent, for: 20_000, keepsFile: true)),
        (5500, .kill(store: first, for: 2000, keepsFile: true)), (9000, .hang(store: first, for: 1300)),
        (13_000, .kill(store: second, for: 2000, keepsFile: true)),
    ]
    for key in 0..<World.keyCount {
        let at = Int64(key) * 20
        scenario.happenings.append((2000 + at, .push(.put, key: key, families: [0, 1], replica: key % 2)))
        scenario.happenings.append((9010 + at, .push(.put, key: key, families: [2], replica: key % 2)))
    }
    scenario.happenings.sort { $0.at < $1.at }
    return scenario
}

/// The mover merges what a returned store has into the one that stands in, which hangs just then, and wakes with the merge
/// undone when clients push again: they must not be answered by it before it is failed over.
private func mergedLate(_ seed: UInt64) -> Scenario {
    var happenings: [(at: Int64, what: Happening)] = [
        (4000, .kill(store: Int(seed % 3), for: 1500, keepsFile: true)),
        (4500, .hangWithMerge(for: 810 + Int64(seed / 3 % 10) * 20)),
    ]
    for key in 0..<World.keyCount {
        let push = { (replica: Int) in Happening.push(.post, key: key, families: [0, 1, 2], replica: replica) }
        happenings.append((2000 + Int64(key), push(0)))
        happenings.append((6900 + Int64(key), push(key % 3)))
    }
    return told(
        "a shard hangs with what the mover merges, and wakes before it is failed over",
        seed: seed,
        replicas: 3,
        every: 100_000,
        happenings
    ) { ($0.shuffles, $0.isConcurrent, $0.lag) = (true, true, 20) }
}
