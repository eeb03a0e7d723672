// The replica's way to the register in Consul, against a real Consul agent; and what it writes there, as values.
import Foundation
import MovingCore
import Testing

@testable import ShardEngine

@Suite struct NoteCodingTests {
    @Test func isReadAsItWasWritten() throws {
        var note = Note(epoch: 57, settings: .max - 1)
        let plain = StoredNote(note: note, node: "")
        #expect(StoredNote(decoding: plain.encoded()) == plain)
        (note.busy, note.touched) = ([17: 52, 1023: 1], [0, 9, 1023])
        let full = StoredNote(note: note, node: "a node")
        #expect(StoredNote(decoding: full.encoded()) == full)
        let lines = "epoch 57\nsettings fffffffffffffffe\nnode a node\nbusy 17@52 1023@1\ntouched 0 9 1023\n"
        #expect(String(decoding: full.encoded(), as: UTF8.self) == "shardd-note 1\n" + lines)
    }

    @Test(arguments: [
        "", "shardd-note 2\nepoch 1\nsettings 0\n", "shardd-note 1\nepoch 1\n", "shardd-note 1\nsettings 0\n",
        "shardd-note 1\nepoch x\nsettings 0\n", "shardd-note 1\nepoch 1\nsettings 0\nbusy 70000@1\n",
        "shardd-note 1\nepoch 1\nsettings 0\nbusy 1\n", "shardd-note 1\nepoch 1\nsettings 0\nmood good\n",
    ])
    func isRefusedWhereNotAllOfItIsUnderstood(_ text: String) {
        #expect(StoredNote(decoding: Array(text.utf8)) == nil)
    }
}

@Suite struct ReadOrderTests {
    @Test func anOlderStateIsNotAccepted() {
        var order = ReadOrder()
        let (watch, write) = (order.begin(), order.begin())
        let isWriteAccepted = order.accepts(index: 30, of: write)
        let accepted = [UInt64(28), 30, 31].map { order.accepts(index: $0, of: watch) }
        #expect(isWriteAccepted)
        #expect(accepted == [false, false, true])
    }

    @Test func theIndexMayGoBackwards() {
        var order = ReadOrder()
        let early = order.begin()
        let accepted = [UInt64(30), 5].map { order.accepts(index: $0, of: order.begin()) }
        let isEarlyAccepted = order.accepts(index: 4, of: early)
        #expect(accepted == [true, true])
        #expect(!isEarlyAccepted)
    }

    @Test func whatWasAskedBeforeTheBarrierTellsNothing() {
        var order = ReadOrder()
        let early = order.begin()
        order.bar()
        let accepted = [order.accepts(index: 30, of: early), order.accepts(index: 20, of: order.begin())]
        #expect(accepted == [false, true])
    }
}

@Suite struct TierKeysTests {
    @Test func onlyNotesNameReplicas() {
        let keys = TierKeys(serviceName: "x")
        #expect(keys.note(of: 0xab) == "shardd/x/register/00000000000000ab")
        #expect(keys.replica("shardd/x/register/00000000000000ab") == 0xab)
        for key in ["", "/", "/ab", "/00000000000000AB", "/00000000000000ab/x", "x/00000000000000ab"] {
            #expect(keys.replica("shardd/x/register" + key) == nil)
        }
    }
}

@Suite struct SettingsNumberTests {
    private func number(_ version: String = "1", _ key: HashKey = .group, vnodes: Int = 500) -> UInt64 {
        var configuration = Configuration()
        (configuration.hash.key, configuration.hash.vnodes) = (key, vnodes)
        return configuration.settingsNumber(version: version)
    }

    @Test func tellsVersionsAndHashingApart() {
        #expect(number() == number())
        #expect(number("2") >> 32 != number() >> 32)
        #expect(number("2") << 32 == number() << 32)
        for other in [number("1", .path), number(vnodes: 499)] {
            #expect(other != number())
            #expect(other >> 32 == number() >> 32)
        }
    }
}

@Suite struct LockValueTests {
    /// What version 0.1 decodes, all of it required.
    private struct Run: Decodable {
        struct AwayRing: Decodable {}

        var run: Int
        var phase: String
        var ring: [String]
        var vnodes: Int
        var startedAt: Double
        var kept: [UInt32]
        var unreached: [String: Double]
        var cleared: [String]
        var awayRings: [AwayRing]
        var draining: [String]
        var shards: [String]
        var settledAt: Double
        var replica: String
    }

    @Test func isARunByNoRingForVersion01() throws {
        let run = try JSONDecoder().decode(Run.self, from: Data(LockValue(0xab).encoded()))
        #expect(run.run > 1_700_000_000)
        #expect(run.phase == "copying")
        #expect(run.ring.isEmpty && run.vnodes == 0 && run.draining.isEmpty)
        #expect(run.replica == "00000000000000ab")
    }
}

/// One agent for all tests that leave it running.
private let sharedAgent = Result { try ConsulAgent() }

@Suite(.serialized) struct ConsulRegisterTests {
    /// Of one test; with characters that have to be escaped.
    private let tier = "push gate/é?\(UInt64.random(in: 0...(.max)))"

    private var agent: ConsulAgent { get throws { try sharedAgent.get() } }

    private func register(_ epoch: Epoch, _ address: String = "10.0.0.1:9091") -> Register {
        let text = "shardd-register 1\nepoch \(epoch)\nbirth 1\nstore 1 7 \(address)\nring 5 0=\(address)\n"
        guard let register = try? Register(decoding: Array(text.utf8)) else { preconditionFailure("no register") }
        return register
    }

    /// Where a key of the tier is.
    private func path(_ key: String) -> String {
        let name = tier.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
        return "/v1/kv/shardd/\(name)/\(key)"
    }

    private func joined(_ replica: TierReplica, peers: Int = 0) throws {
        _ = try #require(replica.wait { $0.peers.count == peers && $0.peers.allSatisfy(\.isLive) })
    }

    @Test func onlyOneCreatesTheRegister() throws {
        let replicas = [TierReplica(try agent, tier: tier), TierReplica(try agent, tier: tier)]
        for replica in replicas { try joined(replica, peers: 1) }
        #expect(replicas.allSatisfy { $0.last?.register == nil && $0.last?.registerFault == nil })
        let results = ResultBox<[TierSnapshot?]>([nil, nil])
        let lock = NSLock()
        DispatchQueue.concurrentPerform(iterations: 2) { index in
            let result = replicas[index].write(register(1, "10.0.0.\(index):9091"), expecting: nil)
            lock.withLock { results.result?[index] = result }
        }
        let written = (results.result ?? []).compactMap { $0 }
        #expect(written.count == 1)
        #expect(written.first?.peers.count == 1)
        for replica in replicas { #expect(replica.wait { $0.register == written.first?.register } != nil) }
        for replica in replicas { replica.leave() }
    }

    @Test func aWriteReachesTheOthersAtOnceAndIsRefusedToWhoHasNotSeenIt() throws {
        let (one, other) = (
            TierReplica(try agent, tier: tier), TierReplica(try agent, tier: tier, datacenter: "dc1")
        )
        for replica in [one, other] { try joined(replica, peers: 1) }
        _ = try #require(one.write(register(1), expecting: nil))
        var slowest = TimeSpan.zero
        for epoch in Epoch(2)...11 {
            let writer = epoch % 2 == 0 ? one : other
            let reader = epoch % 2 == 0 ? other : one
            _ = try #require(reader.wait { $0.register?.epoch == epoch - 1 })
            let result = try #require(writer.write(register(epoch), expecting: epoch - 1))
            #expect(result.register?.epoch == epoch)
            slowest = max(slowest, try #require(reader.wait { $0.register?.epoch == epoch }))
        }
        #expect(slowest < .milliseconds(100))
        #expect(one.write(register(5), expecting: 4) == nil)
        // Written by another one meanwhile, which this replica does not know yet: Consul refuses.
        let text = String(decoding: register(11, "10.0.0.9:1").encoded(), as: UTF8.self)
        let (agent, path) = (try agent, path("register"))
        let late: TierSnapshot? = one.waitOnLoop { [self] consul, done in
            agent.call(.put, path, text)
            consul.write(register(12), expecting: 11, done)
        }
        #expect(late == nil)
        #expect(one.wait { $0.register == register(11, "10.0.0.9:1") } != nil)
        for replica in [one, other] {
            let indexes = replica.seen.snapshots.map(\.index)
            #expect(indexes == indexes.sorted())
            #expect(replica.seen.losses.isEmpty)
            replica.leave()
        }
    }

    @Test func notesReachTheOthers() throws {
        let (one, other) = (TierReplica(try agent, tier: tier), TierReplica(try agent, tier: tier))
        for replica in [one, other] { try joined(replica, peers: 1) }
        var note = Note(epoch: 3, settings: 9)
        (note.busy, note.touched) = ([5: 2], [7])
        #expect(one.writeNote(note))
        #expect(other.wait { $0.peers == [Peer(id: one.id, isLive: true, note: note)] } != nil)
        // Goodbye: it is no member any more, at once.
        let start = MonotonicTime.now()
        one.leave()
        #expect(MonotonicTime.now().since(start) < .seconds(1))
        #expect(try #require(other.wait { $0.peers.isEmpty }) < .milliseconds(200))
        #expect(try !agent.call(.get, "/v1/agent/services").text.contains(TierKeys.name(of: one.id)))
        other.leave()
    }

    @Test func whatCannotBeDecodedIsTold() throws {
        let replica = TierReplica(try agent, tier: tier)
        try joined(replica)
        try agent.call(.put, path("register"), "shardd-register 2\n")
        try agent.call(.put, path("register/00000000000000ab"), "shardd-note 2\n")
        // What the old way of moving groups leaves, and what is not this tier's.
        try agent.call(.put, path("reconcile"), "{}")
        try agent.call(.put, path("rest"), "x")
        #expect(replica.wait { $0.registerFault != nil && $0.peers.count == 1 } != nil)
        let last = try #require(replica.last)
        #expect(last.register == nil)
        #expect(last.registerFault == "line 1: not a register of version 1")
        #expect(last.peers == [Peer(id: 0xab, isLive: false, note: StoredNote.unknown.note)])
        #expect(replica.write(register(1), expecting: nil) == nil)
        replica.leave()
    }

    @Test func ringsOfVersion01AreToldUntilTheyAreGone() throws {
        let replica = TierReplica(try agent, tier: tier)
        try joined(replica)
        #expect(replica.last?.hasOldReplicas == false)
        try agent.call(.put, path("rings/37-c067cc7c"), "{}")
        #expect(try #require(replica.wait { $0.hasOldReplicas }) < .milliseconds(200))
        // Without the lock it leaves them to the replica that has it.
        try agent.call(.delete, path("rings/37-c067cc7c"))
        #expect(replica.wait { !$0.hasOldReplicas } != nil)
        replica.leave()
    }

    @Test func theLockIsHandedOverByAGoodbye() throws {
        let one = TierReplica(try agent, tier: tier, wantsLock: true)
        _ = try #require(one.wait { $0.hasLock })
        let other = TierReplica(try agent, tier: tier, wantsLock: true)
        try joined(other, peers: 1)
        #expect(other.last?.hasLock == false)
        one.leave()
        let taken = try #require(other.wait { $0.hasLock })
        #expect(taken < .milliseconds(300))
        // And by who does not want it any more.
        let third = TierReplica(try agent, tier: tier, wantsLock: true)
        try joined(third, peers: 1)
        other.onLoop { $0.wantsLock = false }
        #expect(try #require(third.wait { $0.hasLock }) < .milliseconds(300))
        for replica in [other, third] { replica.leave() }
    }

    @Test func theLockIsTakenOverFromADeadReplicaThatIsNoMemberSoonAfter() throws {
        let one = TierReplica(try agent, tier: tier, wantsLock: true)
        _ = try #require(one.wait { $0.hasLock })
        let other = TierReplica(try agent, tier: tier, wantsLock: true, datacenter: "dc1")
        try joined(other, peers: 1)
        one.kill()
        let taken = try #require(other.wait { $0.hasLock })
        #expect(other.last?.peers.first?.isLive == false)
        let removed = try #require(other.wait { $0.peers.isEmpty })
        #expect(taken < .seconds(6))
        #expect(removed > .seconds(2) && removed < .seconds(4))
        other.leave()
    }

    @Test func aStoppedReplicaJoinsAgainAndReadsBeforeItGoesOn() throws {
        let one = TierReplica(try agent, tier: tier, wantsLock: true)
        _ = try #require(one.wait { $0.hasLock })
        let other = TierReplica(try agent, tier: tier, wantsLock: true)
        try joined(other, peers: 1)
        _ = try #require(other.write(register(1), expecting: nil))
        _ = try #require(one.wait { $0.register?.epoch == 1 })
        // A short stop: the session still lives.
        #expect(one.stop(seconds: 1.7)?.hasLock == true)
        // A long one: the other takes the lock, writes the register, and gives the stopped one up.
        let writer = Thread {
            _ = other.wait { $0.hasLock }
            _ = other.write(self.register(2), expecting: 1)
        }
        writer.start()
        let told = try #require(one.stop(seconds: 6.5))
        #expect(other.seen.snapshots.contains { $0.register?.epoch == 2 && $0.peers.isEmpty })
        #expect(told.register?.epoch == 2)
        #expect(!told.hasLock)
        #expect(told.peers.count == 1)
        #expect(one.seen.losses.isEmpty)
        #expect(other.wait { $0.peers.count == 1 && $0.peers[0].isLive } != nil)
        for replica in [one, other] { replica.leave() }
    }

    @Test func whoseServiceIsDeregisteredByHandJoinsAgain() throws {
        let (one, other) = (TierReplica(try agent, tier: tier), TierReplica(try agent, tier: tier))
        for replica in [one, other] { try joined(replica, peers: 1) }
        let service = ReplicaSession.serviceID(TierKeys.name(of: one.id))
        let agent = try agent
        let count = other.seen.snapshots.count
        #expect(agent.call(.put, "/v1/agent/service/deregister/\(service)").status == 200)
        let isBack = waitUntil { agent.call(.get, "/v1/agent/services").text.contains(service) }
        #expect(try #require(isBack) < .milliseconds(500))
        let isSeen = waitUntil { other.seen.snapshots.dropFirst(count).contains { $0.peers.first?.isLive == false } }
        #expect(isSeen != nil)
        #expect(other.wait { $0.peers.count == 1 && $0.peers[0].isLive } != nil)
        // The same with the note alone.
        let name = TierKeys.name(of: one.id)
        #expect(agent.call(.delete, path("register/\(name)")).status == 200)
        #expect(waitUntil { one.writeNote(Note(epoch: 5)) } != nil)
        #expect(other.wait { $0.peers.first?.note.epoch == 5 && $0.peers[0].isLive } != nil)
        #expect(one.seen.losses.isEmpty && other.seen.losses.isEmpty)
        for replica in [one, other] { replica.leave() }
    }

    @Test func anAgentThatIsGoneIsToldOnceAndAgainWhenItIsBack() throws {
        let agent = try ConsulAgent(isLasting: true)
        let (one, other) = (TierReplica(agent, tier: tier, wantsLock: true), TierReplica(agent, tier: tier))
        for replica in [one, other] { try joined(replica, peers: 1) }
        let written = try #require(one.write(register(1), expecting: nil))
        _ = try #require(other.wait { $0.register?.epoch == 1 })
        agent.kill()
        let told = try #require(waitUntil { one.seen.losses.count == 1 })
        #expect(told < .seconds(3))
        #expect(one.write(register(2), expecting: 1) == nil)
        let counts = [one, other].map(\.seen.snapshots.count)
        usleep(2_000_000)
        try agent.start()
        for (replica, count) in zip([one, other], counts) {
            #expect(waitUntil { replica.seen.snapshots.count > count } != nil)
            #expect(replica.wait { $0.register == written.register && $0.peers.count == 1 } != nil)
            #expect(replica.seen.losses.count == 1)
        }
        #expect(one.wait { $0.peers[0].isLive && $0.hasLock } != nil)
        #expect(one.write(register(2), expecting: 1) != nil)
        for replica in [one, other] { replica.leave() }
    }

    @Test func anAgentThatHangsIsToldBeforeTheSessionEnds() throws {
        let agent = try ConsulAgent()
        let (one, other) = (TierReplica(agent, tier: tier), TierReplica(agent, tier: tier))
        for replica in [one, other] { try joined(replica, peers: 1) }
        try agent.pause(true)
        for replica in [one, other] {
            let told = try #require(waitUntil { replica.seen.losses.count == 1 })
            #expect(told < .seconds(3))
        }
        #expect(!one.writeNote(Note(epoch: 4)))
        usleep(3_000_000)
        let counts = [one, other].map(\.seen.snapshots.count)
        try agent.pause(false)
        for (replica, count) in zip([one, other], counts) {
            #expect(waitUntil { replica.seen.snapshots.count > count } != nil)
            #expect(replica.wait { $0.peers.count == 1 && $0.peers[0].isLive } != nil)
            #expect(replica.seen.losses.count == 1)
        }
        #expect(other.wait { $0.peers.first?.note.epoch == 4 } != nil)
        for replica in [one, other] { replica.leave() }
    }

    @Test func aReplicaThatIsCutOffStaysAMemberUntilItIsGivenUp() throws {
        let replica = TierReplica(try agent, tier: tier)
        try joined(replica)
        // Of an agent that is not in the catalogue any more.
        let note = StoredNote(note: Note(epoch: 3), node: "a node that is gone")
        let text = String(decoding: note.encoded(), as: UTF8.self)
        try agent.call(.put, path("register/00000000000000ab"), text)
        let peer = Peer(id: 0xab, isLive: false, note: note.note)
        #expect(replica.wait { $0.peers == [peer] } != nil)
        usleep(3_500_000)
        #expect(replica.last?.peers == [peer])
        replica.onLoop { $0.giveUpReplica = .seconds(4) }
        let removed = try #require(replica.wait { $0.peers.isEmpty })
        #expect(removed < .seconds(2))
        replica.leave()
    }

    @Test func aReplicaWhoseAgentIsGoneStaysAMember() throws {
        let server = try ConsulAgent()
        let client = try ConsulAgent(clientOf: server)
        let (one, other) = (TierReplica(server, tier: tier, wantsLock: true), TierReplica(client, tier: tier))
        for replica in [one, other] { try joined(replica, peers: 1) }
        _ = try #require(other.write(register(1), expecting: nil))
        client.kill()
        // The servers have to find out that the agent is gone.
        #expect(one.wait(40) { $0.peers.count == 1 && !$0.peers[0].isLive } != nil)
        #expect(waitUntil { other.seen.losses.count == 1 } != nil)
        usleep(4_500_000)
        #expect(one.last?.peers.count == 1)
        try client.start()
        #expect(one.wait { $0.peers.count == 1 && $0.peers[0].isLive } != nil)
        #expect(one.seen.snapshots.allSatisfy { $0.register == nil || $0.peers.count == 1 })
        for replica in [one, other] { replica.leave() }
    }

    @Test func anAgentThatHasLostItsStateIsFollowed() throws {
        let agent = try ConsulAgent()
        let replica = TierReplica(agent, tier: tier)
        try joined(replica)
        for epoch in Epoch(1)...50 { _ = replica.write(register(epoch), expecting: epoch == 1 ? nil : epoch - 1) }
        _ = try #require(replica.wait { $0.register?.epoch == 50 })
        let index = try #require(replica.last?.index)
        agent.kill()
        try agent.start()
        #expect(replica.wait { $0.register == nil } != nil)
        #expect(try #require(replica.last).index < index)
        // What it first hears is that nothing is there; then it joins again, and may write.
        #expect(waitUntil { replica.write(register(1), expecting: nil) != nil } != nil)
        replica.leave()
    }
}
