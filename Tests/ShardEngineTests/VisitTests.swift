// What requests do at other shards than their owner while a handover is under way, as the shards see it.
import Foundation
import Testing

@testable import ShardEngine

@Suite(.serialized) struct VisitTests {
    /// Two shards, the first of which owned everything before.
    private final class Pair {
        let old: ScriptedShard
        let new: ScriptedShard
        let engine: EngineUnderTest
        let path: String
        let missed = ResultBox<[String]>()

        init(
            _ visit: Visit,
            old: ScriptedShard = ScriptedShard { _, _ in .answer },
            new: ScriptedShard = ScriptedShard { _, _ in .answer },
            isReconcileDue: Bool = false,
            processes: [String?] = ["one", "two"]
        ) throws {
            (self.old, self.new) = (old, new)
            engine = try EngineUnderTest(shards: [old.address, new.address]) {
                $0.forward.responseTimeout = .seconds(2)
            }
            path = engine.path(ownedBy: new.address)
            var stores = StoreMap()
            for (shard, process) in zip([old, new], processes) {
                stores.identities[shard.address] = process.map { StoreIdentity(process: $0) }
            }
            missed.result = []
            let rings = RingSet(
                ring: engine.ring,
                others: [OtherRing(ring: Ring(shards: [old.address], vnodes: 10), visit: visit)],
                isReconcileDue: isReconcileDue,
                stores: stores
            )
            engine.onLoop { [missed] worker in
                worker.forwarder.use(rings)
                worker.forwarder.onMissed = { shard, path, _, done in
                    missed.result?.append("\(shard) \(String(decoding: path, as: UTF8.self))")
                    done()
                }
            }
        }

        func send(_ method: String, body: String = "a 1\n") -> Int {
            let connection = connectToLoopback(port: engine.port)
            defer { close(connection) }
            let head = "\(method) \(path) HTTP/1.1\r\nHost: test\r\nContent-Length: \(body.utf8.count)\r\n\r\n"
            sendAll(connection, head + body)
            return engine.parse(readMessage(connection, timeout: 10)).status
        }

        var oldMethods: [Substring] { old.requests.map { $0.prefix { $0 != " " } } }
        var newMethods: [Substring] { new.requests.map { $0.prefix { $0 != " " } } }
    }

    @Test func copiesAreWrittenBeforeTheOwner() throws {
        let pair = try Pair(.copy, old: ScriptedShard { _, _ in .answerLater(100) })
        defer { pair.engine.stop() }
        let started = Date()
        #expect(pair.send("POST") == 200)
        #expect(Date().timeIntervalSince(started) >= 0.1)
        #expect(pair.send("PUT") == 200 && pair.send("DELETE", body: "") == 200)
        #expect(pair.oldMethods == ["POST", "PUT", "DELETE"] && pair.newMethods == ["POST", "PUT", "DELETE"])
        #expect(pair.old.requests[0] == pair.new.requests[0])
    }

    @Test func copiesOfLargeBodiesAreWholeToo() throws {
        let pair = try Pair(.copy)
        defer { pair.engine.stop() }
        let body = String(repeating: "a 1\n", count: 50_000)
        #expect(pair.send("PUT", body: body) == 200)
        #expect(pair.old.requests == pair.new.requests && pair.new.requests[0].hasSuffix(body))
    }

    @Test func everyRequestSweeps() throws {
        let pair = try Pair(.sweep)
        defer { pair.engine.stop() }
        #expect(pair.send("POST") == 200 && pair.send("PUT") == 200)
        #expect(pair.oldMethods == ["DELETE", "DELETE"] && pair.newMethods == ["POST", "PUT"])
        #expect(pair.old.requests[0].contains("Content-Length: 0\r\n"))
    }

    /// Under two addresses, or where nobody can tell, a DELETE might remove the push itself.
    @Test(arguments: [["one", "one"], ["one", nil], [nil, "two"], [nil, nil]], [Visit.sweep, .removal])
    func nothingIsRemovedButFromAnotherStore(processes: [String?], visit: Visit) throws {
        let pair = try Pair(visit, processes: processes)
        defer { pair.engine.stop() }
        #expect(pair.send("POST") == 200 && pair.send("PUT") == 200)
        #expect(pair.oldMethods.isEmpty && pair.newMethods == ["POST", "PUT"])
    }

    /// By one ring the store is still copied to, by another, under another address, its copies are swept.
    @Test func whatIsStillCopiedUnderOneAddressIsNotSweptUnderAnother() throws {
        let pair = try Pair(.sweep)
        defer { pair.engine.stop() }
        let other = ScriptedShard { _, _ in .answer }
        defer { other.stop() }
        var stores = StoreMap()
        for (shard, process) in [(pair.old, "one"), (other, "one"), (pair.new, "two")] {
            stores.identities[shard.address] = StoreIdentity(process: process)
        }
        for (copied, swept) in [(other, pair.old), (pair.old, other)] {
            let rings = RingSet(
                ring: pair.engine.ring,
                others: [
                    OtherRing(ring: Ring(shards: [swept.address], vnodes: 10), visit: .sweep),
                    OtherRing(ring: Ring(shards: [swept.address], vnodes: 10), visit: .removal),
                    OtherRing(ring: Ring(shards: [copied.address], vnodes: 10), visit: .copy),
                ],
                stores: stores
            )
            pair.engine.onLoop { $0.forwarder.use(rings) }
            let before = swept.requests.count
            #expect(pair.send("POST") == 200 && pair.send("PUT") == 200)
            #expect(copied.requests.suffix(2).map { $0.prefix { $0 != " " } } == ["POST", "PUT"])
            #expect(swept.requests.count == before)
        }
    }

    /// A client's DELETE is forwarded wherever the group may be, but for the store that has had it.
    @Test func aClientsDeleteGoesToStoresThatCannotBeTold() throws {
        let unknown = try Pair(.removal, processes: [nil, nil])
        defer { unknown.engine.stop() }
        #expect(unknown.send("DELETE", body: "") == 200 && unknown.oldMethods == ["DELETE"])
        let same = try Pair(.copy, processes: ["one", "one"])
        defer { same.engine.stop() }
        #expect(same.send("POST") == 200 && same.send("DELETE", body: "") == 200)
        #expect(same.oldMethods.isEmpty && same.newMethods == ["POST", "DELETE"])
    }

    @Test func whatIsStillCopiedIsNotSwept() throws {
        let pair = try Pair(.sweep)
        defer { pair.engine.stop() }
        let all = Ring(shards: [pair.old.address], vnodes: 10)
        let rings = RingSet(
            ring: pair.engine.ring,
            others: [.sweep, .copy, .removal].map { OtherRing(ring: all, visit: $0) }
        )
        pair.engine.onLoop { $0.forwarder.use(rings) }
        #expect(pair.send("POST") == 200 && pair.send("PUT") == 200)
        #expect(pair.oldMethods == ["POST", "PUT"])
    }

    @Test func onlyWhatReplacesRemoves() throws {
        let pair = try Pair(.removal)
        defer { pair.engine.stop() }
        #expect(pair.send("POST") == 200 && pair.oldMethods.isEmpty)
        #expect(pair.send("PUT") == 200 && pair.send("DELETE", body: "") == 200)
        #expect(pair.oldMethods == ["DELETE", "DELETE"])
    }

    @Test func aRefusedPutRemovesNothing() throws {
        let refusal = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
        let pair = try Pair(.removal, new: ScriptedShard { _, _ in .send(refusal) })
        defer { pair.engine.stop() }
        #expect(pair.send("PUT") == 400 && pair.oldMethods.isEmpty)
    }

    @Test(arguments: [301, 307])
    func aVisitThatIsAnsweredWithARedirectIsNotDone(status: Int) throws {
        let redirect = "HTTP/1.1 \(status) Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
        let pair = try Pair(.removal, old: ScriptedShard { _, _ in .send(redirect) })
        defer { pair.engine.stop() }
        #expect(pair.send("PUT") == 200 && pair.oldMethods == ["DELETE"])
        let missed = pair.engine.onLoop { [missed = pair.missed] _ in missed.result ?? [] }
        #expect(missed == ["\(pair.old.address) \(pair.path)"])
    }

    @Test func anOwnerThatAnswersWithARedirectHasNotDoneTheRequest() throws {
        let redirect = "HTTP/1.1 301 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
        let pair = try Pair(.removal, new: ScriptedShard { _, _ in .send(redirect) })
        defer { pair.engine.stop() }
        #expect(pair.send("PUT") == 400 && pair.oldMethods.isEmpty)
    }

    @Test func aDeleteGoesToAllWhileAReconcileIsDue() throws {
        let pair = try Pair(.removal, isReconcileDue: true)
        defer { pair.engine.stop() }
        #expect(pair.send("DELETE", body: "") == 200)
        #expect(pair.oldMethods == ["DELETE"] && pair.newMethods == ["DELETE"])
    }

    @Test func aShardThatIsDeadIsRememberedToHaveMissed() throws {
        let pair = try Pair(.copy)
        defer { pair.engine.stop() }
        pair.old.stop()
        #expect(pair.send("POST") == 200 && pair.send("PUT") == 200)
        let missed = pair.engine.onLoop { [missed = pair.missed] _ in missed.result ?? [] }
        #expect(missed == ["\(pair.old.address) \(pair.path)"])
    }

    @Test func manyPushesPastADeadOwnerAreEachAnsweredOnce() throws {
        let pair = try Pair(.removal)
        defer { pair.engine.stop() }
        pair.new.stop()
        for _ in 0..<3 {
            let statuses = pair.engine.pushAtOnce((0..<20).map { pair.engine.path(ownedBy: pair.new.address, $0) })
            #expect(statuses.count == 20 && statuses.allSatisfy { $0 == 200 })
        }
    }

    @Test(arguments: [300, 2500])
    func whatIsVoidIsRememberedThoughNobodyWaitsForTheAnswer(milliseconds: UInt32) throws {
        let pair = try Pair(.removal, new: ScriptedShard { _, _ in .answerLater(milliseconds) })
        defer { pair.engine.stop() }
        let connection = connectToLoopback(port: pair.engine.port)
        sendAll(connection, "PUT \(pair.path) HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\na 1\n")
        // By then the owner has it; the later answer is too late for a client that waits.
        usleep(milliseconds < 2000 ? 150_000 : 2_300_000)
        close(connection)
        usleep(400_000)
        let missed = pair.engine.onLoop { [missed = pair.missed] _ in missed.result ?? [] }
        #expect(missed == ["\(pair.old.address) \(pair.path)"])
        #expect(pair.oldMethods.filter { $0 == "PUT" }.isEmpty)
    }

    @Test func aShardThatHangsHoldsUpOnlyTheFirst() throws {
        let pair = try Pair(.copy, old: ScriptedShard { _, _ in .hang })
        defer {
            pair.old.stop()
            pair.engine.stop()
        }
        #expect(pair.send("PUT") == 200)
        let started = Date()
        #expect(pair.send("PUT") == 200)
        #expect(Date().timeIntervalSince(started) < 0.3)
    }
}
