// Large bodies: they arrive as they were sent, and those that have to wait for others neither wait for ever nor are lost.
import Foundation
import Glibc
import Testing

@testable import ShardEngine

@Suite(.serialized) struct LargeBodyTests {
    private static let body = (0..<20_000).map { "a\($0) \($0)\n" }.joined()

    @Test func arriveAsTheyWereSentHoweverTheyAreSplit() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let body = Self.body
        let message = engine.request("/metrics/job/large", body: body) + engine.request("/metrics/job/small")
        let headSize = message.utf8.count - body.utf8.count - engine.request("/metrics/job/small").utf8.count
        let bytes = Array(message.utf8)
        let connection = connectToLoopback(port: engine.port)
        defer { close(connection) }
        let atOnce = InboundConnection.sizeReadWithHead
        let splits = [
            [], [headSize], [headSize + 1], [atOnce - 1], [atOnce], [atOnce + 1], [headSize + body.utf8.count],
            [headSize + body.utf8.count - 1], [headSize + body.utf8.count + 1], [100_000, 100_001, 150_000],
        ]
        for (round, split) in splits.enumerated() {
            var start = 0
            for end in split + [bytes.count] {
                sendAll(connection, String(decoding: bytes[start..<end], as: UTF8.self))
                usleep(5000)
                start = end
            }
            #expect(readMessage(connection)?.hasPrefix("HTTP/1.1 200 ") == true, "split at \(split)")
            #expect(readMessage(connection)?.hasPrefix("HTTP/1.1 200 ") == true, "split at \(split)")
            #expect(shard.requests.count == 2 * round + 2)
            #expect(shard.requests.suffix(2).map { $0.hasSuffix("\r\n\r\n" + body) } == [true, false])
        }
        usleep(50_000)
        #expect(engine.onLoop { $0.server.bodies.bytes } == 0)
    }

    @Test func waitInTheirSocketsForOthersToPass() throws {
        let shard = ScriptedShard { _, _ in .hang }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = 32 }
        defer { engine.stop() }
        engine.onLoop { $0.server.bodies.holdTime = .seconds(60) }
        let clients = (0..<16).map { _ in connectToLoopback(port: engine.port) }
        for (number, client) in clients.enumerated() {
            Thread.detachNewThread { sendAll(client, engine.request("/metrics/job/a\(number)", body: Self.body)) }
            usleep(20_000)
        }
        usleep(100_000)
        let passed = shard.requests.count
        #expect(passed < 16 && passed * Self.body.utf8.count > 1 << 20, "\(passed) have passed")
        #expect(engine.onLoop { $0.server.connectionCount } == 16)
        // One that waits goes, and one that is on its way: the next one takes its place.
        close(clients[passed])
        close(clients[0])
        usleep(100_000)
        #expect(shard.requests.count == passed + 1)
        #expect(shard.requests.last?.hasPrefix("PUT /metrics/job/a\(passed + 1) ") == true)
        for client in clients.indices where client != 0 && client != passed { close(clients[client]) }
        usleep(100_000)
        #expect(engine.onLoop { $0.server.connectionCount } == 0)
        #expect(engine.onLoop { $0.server.bodies.bytes } == 0)
    }

    @Test func doNotWaitForAShardThatHangs() throws {
        let hung = ScriptedShard { _, _ in .hang }
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [hung.address, shard.address]) {
            $0.forward.connectionsPerShard = 32
        }
        defer { engine.stop() }
        let clients = (0..<24).map { _ in connectToLoopback(port: engine.port) }
        defer { clients.forEach { close($0) } }
        for (number, client) in clients.enumerated() {
            let request = engine.request(engine.path(ownedBy: hung.address, number), body: Self.body)
            Thread.detachNewThread { sendAll(client, request) }
        }
        let start = MonotonicTime.now()
        #expect(engine.push(engine.path(ownedBy: shard.address), body: Self.body).status == 200)
        #expect(MonotonicTime.now().since(start) < .seconds(2))
        usleep(200_000)
        #expect(hung.requests.count == 24)
    }
}
