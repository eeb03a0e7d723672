// Retry, failover, time limits and queue limits, decided by the real forwarder between raw clients and scripted shards.
import Foundation
import Glibc
import Testing

import MovingCore

@testable import ShardEngine

@Suite(.serialized) struct ForwardingTests {
    @Test func passesBothWaysWhatBelongsToTheMessage() throws {
        let answer =
            "HTTP/1.1 400 Bad Request\r\nX-Why: because\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 4\r\n\r\nno.\n"
        let shard = ScriptedShard { _, _ in .send(answer) }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let connection = connectToLoopback(port: engine.port)
        defer { close(connection) }
        let path = "/metrics/job/a%2Fb/x/%C3%A9?q=1&r=%20"
        sendAll(
            connection,
            "POST \(path) HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nKeep-Alive: 5\r\nConnection: keep-alive, X-Drop\r\n"
                + "X-Drop: 1\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nX-Two:  2 \r\n\r\n"
                + "3\r\na 1\r\n1\r\n\n\r\n0\r\n\r\n"
        )
        let response = try #require(readMessage(connection))
        #expect(
            shard.requests == [
                "POST \(path) HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nX-Two: 2\r\nContent-Length: 4\r\n\r\na 1\n"
            ]
        )
        #expect(response == "HTTP/1.1 400 Bad Request\r\nX-Why: because\r\nContent-Length: 4\r\n\r\nno.\n")
    }

    @Test func sendsAgainOnceWhenTheConnectionBreaks() throws {
        let shard = ScriptedShard { connection, _ in connection == 0 ? .close : .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        #expect(engine.push("/metrics/job/a").status == 200)
        #expect(shard.requests.count == 2 && shard.connectionCount == 2)
    }

    @Test func sendsAllOfABrokenPipelineAgain() throws {
        let shard = ScriptedShard { connection, request in connection == 0 && request == 3 ? .close : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = 1 }
        defer { engine.stop() }
        let statuses = engine.pushAtOnce((0..<40).map { "/metrics/job/a\($0)" })
        #expect(statuses.count == 40 && statuses.allSatisfy { $0 == 200 })
    }

    @Test func givesUpWhenTheConnectionBreaksTwice() throws {
        let shard = ScriptedShard { _, _ in .sendAndClose("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf") }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let answer = engine.push("/metrics/job/a")
        #expect(answer.status == 502 && answer.text.contains("shard \(shard.address)"))
        #expect(shard.requests.count == 2)
    }

    @Test func failsOverWhenConnectionsAreReset() throws {
        let dying = ScriptedShard(health: .reset) { _, _ in .reset }
        let other = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [dying.address, other.address])
        defer { engine.stop() }
        #expect(engine.push(engine.path(ownedBy: dying.address)).status == 200)
        #expect(other.puts.count == 1)
    }

    @Test func failsOverWhenConnectionsAreRefused() throws {
        let gone = RefusingAddress()
        let other = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [gone.address, other.address])
        defer { engine.stop() }
        for number in 0..<3 { #expect(engine.push(engine.path(ownedBy: gone.address, number)).status == 200) }
        #expect(other.puts.count == 3)
        let address = gone.address
        let (isSuspect, failovers) = engine.onLoop { worker in
            let view = worker.forwarder.follower?.following.view
            let failovers = worker.forwarder.pools[address]?.metrics.failovers ?? 0
            return (view?.isDown(StoreID(byAddress: address)) ?? false, failovers)
        }
        #expect(isSuspect && failovers == 3)
    }

    @Test func refusesWhenFailoverIsOff() throws {
        let gone = RefusingAddress()
        let other = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [gone.address, other.address]) { $0.forward.failover = false }
        defer { engine.stop() }
        let answer = engine.push(engine.path(ownedBy: gone.address))
        #expect(answer.status == 502 && answer.text.contains("\(gone.address)") && answer.text.contains("refused"))
        #expect(other.requests.isEmpty)
    }

    @Test func refusesWhenNoShardIsLeft() throws {
        let shards = (0..<3).map { _ in RefusingAddress() }
        let engine = try EngineUnderTest(shards: shards.map(\.address))
        defer { engine.stop() }
        for _ in 0..<3 { #expect(engine.push("/metrics/job/a").status == 502) }
    }

    @Test func refusesOnAnEmptyRing() throws {
        let engine = try EngineUnderTest(shards: [])
        defer { engine.stop() }
        let answer = engine.push("/metrics/job/a")
        #expect(answer.status == 503 && answer.text.contains("Retry-After: "))
    }

    @Test func limitsTheWaitForAnAnswer() throws {
        let shard = ScriptedShard { connection, _ in connection == 0 ? .answerLater(500) : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) {
            $0.forward.responseTimeout = .milliseconds(300)
            $0.forward.connectionsPerShard = 1
        }
        defer { engine.stop() }
        let start = MonotonicTime.now()
        let answer = engine.push("/metrics/job/a")
        let wait = MonotonicTime.now().since(start)
        #expect(answer.status == 504 && answer.text.contains("\(shard.address)"))
        #expect(wait >= .milliseconds(300) && wait < .milliseconds(490))
        // The late answer must not be taken for the next push's: its connection is reset.
        usleep(300_000)
        #expect(engine.push("/metrics/job/a").status == 200)
        #expect(shard.requests.count == 2 && shard.connectionCount == 2)
    }

    @Test func limitsTheTimeToConnect() throws {
        // With a full backlog the kernel lets further connections wait for ever.
        let (listener, port) = listenOnLoopback(backlog: 0)
        let fillers = (0..<2).map { _ in
            let filler = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
            return filler
        }
        for filler in fillers { connectWithoutWaiting(filler, port) }
        defer { for descriptor in fillers + [listener] { close(descriptor) } }
        usleep(50_000)
        let stuck = ShardAddress(host: "127.0.0.1", port: port)
        let other = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [stuck, other.address]) {
            $0.forward.connectTimeout = .milliseconds(200)
        }
        defer { engine.stop() }
        let start = MonotonicTime.now()
        #expect(engine.push(engine.path(ownedBy: stuck)).status == 200)
        #expect(MonotonicTime.now().since(start) >= .milliseconds(200))
        #expect(other.puts.count == 1)
    }

    @Test func answersForGarbageAndSendsTheRestAgain() throws {
        let shard = ScriptedShard { connection, _ in connection == 0 ? .send("what?\r\n\r\n") : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = 1 }
        defer { engine.stop() }
        let statuses = engine.pushAtOnce((0..<10).map { "/metrics/job/a\($0)" })
        #expect(statuses.filter { $0 == 502 }.count == 1 && statuses.filter { $0 == 200 }.count == 9)
    }

    @Test func limitsTheQueue() throws {
        let shard = ScriptedShard { _, _ in .answerLater(300) }
        let engine = try EngineUnderTest(shards: [shard.address]) {
            $0.forward.connectionsPerShard = 1
            $0.forward.pipelineDepth = 1
            $0.forward.queuePerShard = 2
        }
        defer { engine.stop() }
        // The first opens the connection and is under way before the others come.
        let first = connectToLoopback(port: engine.port)
        sendAll(first, engine.request("/metrics/job/first"))
        usleep(100_000)
        let statuses = engine.pushAtOnce((0..<5).map { "/metrics/job/a\($0)" })
        #expect(statuses.filter { $0 == 200 }.count == 2 && statuses.filter { $0 == 503 }.count == 3)
        #expect(engine.parse(readMessage(first)).status == 200)
        close(first)
    }

    @Test func dropsWhatNobodyWaitsFor() throws {
        let shard = ScriptedShard { _, _ in .answerLater(300) }
        let engine = try EngineUnderTest(shards: [shard.address]) {
            $0.forward.connectionsPerShard = 1
            $0.forward.pipelineDepth = 1
        }
        defer { engine.stop() }
        let clients = ["sent", "queued", "last"].map { name in
            let connection = connectToLoopback(port: engine.port)
            sendAll(connection, engine.request("/metrics/job/\(name)"))
            usleep(60_000)
            return connection
        }
        close(clients[0])
        close(clients[1])
        #expect(engine.parse(readMessage(clients[2])).status == 200)
        close(clients[2])
        let jobs = shard.requests.map { $0.split(separator: " ")[1] }
        #expect(jobs == ["/metrics/job/sent", "/metrics/job/last"])
        #expect(engine.onLoop { $0.metrics.inFlight } == 0)
    }

    @Test func givesLargeBodiesAConnectionOfTheirOwn() throws {
        let shard = ScriptedShard { connection, _ in connection == 0 ? .answerLater(500) : .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let slow = connectToLoopback(port: engine.port)
        sendAll(slow, engine.request("/metrics/job/slow"))
        usleep(50_000)
        let start = MonotonicTime.now()
        let body = String(repeating: "a_metric 1\n", count: 40_000)
        #expect(engine.push("/metrics/job/large", body: body).status == 200)
        #expect(MonotonicTime.now().since(start) < .milliseconds(400))
        #expect(shard.requests.last?.hasSuffix(body) == true)
        #expect(engine.parse(readMessage(slow)).status == 200)
        close(slow)
    }

    @Test func sendsLargeBodiesThroughOneConnectionToo() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = 1 }
        defer { engine.stop() }
        let body = String(repeating: "a_metric 1\n", count: 20_000)
        let queue = DispatchQueue(label: "small pushes")
        let group = DispatchGroup()
        queue.async(group: group) { _ = engine.pushAtOnce((0..<50).map { "/metrics/job/a\($0)" }) }
        let statuses = engine.pushAtOnce((0..<5).map { "/metrics/job/large\($0)" }, body: body)
        group.wait()
        #expect(statuses == [200, 200, 200, 200, 200])
        #expect(shard.requests.count == 55)
    }

    private func connectWithoutWaiting(_ descriptor: Int32, _ port: Int) {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = inet_addr("127.0.0.1")
        _ = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                connect(descriptor, address, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}
