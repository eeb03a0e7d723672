// What is kept from one client or push for the next: what parses requests, and connections to shards.
import Foundation
import Glibc
import Testing

@testable import ShardEngine

@Suite(.serialized) struct ConnectionReuseTests {
    /// Ways in which a connection may end, each with what the client sends before it goes.
    private static let endings = [
        "",
        "PUT /metrics/job/a HTT",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: h\r\nX-Left: 1\r\n",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\nhalf a body",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "no request\r\n\r\n",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "GET /other HTTP/1.0\r\n\r\n",
        "GET /other HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET http://h/other HTTP/1.1\r\nHost: h\r\n\r\nPUT /metrics/job/a HTTP/1.1\r\n",
    ]

    @Test func aClientMeetsNothingOfTheOnesBefore() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        for (round, ending) in (Self.endings + Self.endings).enumerated() {
            let before = (0..<5).map { _ in connectToLoopback(port: engine.port) }
            before.forEach { sendAll($0, ending) }
            usleep(20_000)
            before.forEach { close($0) }
            usleep(20_000)
            for number in 0..<10 {
                let path = "/metrics/job/r\(round)/n/\(number)"
                let connection = connectToLoopback(port: engine.port)
                sendAll(
                    connection,
                    "PUT \(path) HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 2\r\n\r\n1\n"
                )
                let answer = try #require(readMessage(connection))
                #expect(answer.hasPrefix("HTTP/1.1 200 ") && answer.contains("Connection: close\r\n"))
                var rest: UInt8 = 0
                #expect(recv(connection, &rest, 1, 0) == 0)
                close(connection)
                #expect(
                    shard.requests.last == "PUT \(path) HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n1\n",
                    "after \(ending)"
                )
            }
        }
        usleep(50_000)
        #expect(engine.onLoop { $0.server.connectionCount } == 0)
        #expect(shard.requests.count == 200)
    }

    @Test func aClientThatLeavesWhileItsPushWaitsIsNoticed() throws {
        let shard = ScriptedShard { _, request in request == 0 ? .answerLater(1500) : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) {
            $0.forward.connectionsPerShard = 1
            $0.forward.pipelineDepth = 1
        }
        defer { engine.stop() }
        // A connection is read as it is accepted.
        #expect(engine.push("/other").status == 404)
        let connections = (0..<3).map { number in
            let connection = connectToLoopback(port: engine.port)
            sendAll(connection, engine.request("/metrics/job/a\(number)"))
            usleep(20_000)
            return connection
        }
        connections.forEach { close($0) }
        usleep(600_000)
        #expect(engine.onLoop { $0.server.connectionCount } == 0)
        #expect(engine.push("/metrics/job/b").status == 200)
        // Those that were queued are dropped.
        #expect(shard.requests.count == 2)
    }

    /// Clients that each have a parser, with a request that its shard does not answer; there are no more of them.
    private func takeAllParsers(of engine: EngineUnderTest, with hung: ScriptedShard) -> [Int32] {
        // As many as are made at a time.
        let count = 4
        engine.onLoop { $0.server.parsers.limit = count }
        return (0..<count).map { number in
            let connection = connectToLoopback(port: engine.port)
            sendAll(connection, engine.request(engine.path(ownedBy: hung.address, number)))
            return connection
        }
    }

    @Test func aRequestWithoutAParserWaitsForOne() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let hung = ScriptedShard { _, _ in .hang }
        let engine = try EngineUnderTest(shards: [shard.address, hung.address])
        defer { engine.stop() }
        #expect(engine.push("/other").status == 404)
        let taken = takeAllParsers(of: engine, with: hung)
        usleep(50_000)
        let waiting = (0..<6).map { number in
            let connection = connectToLoopback(port: engine.port)
            sendAll(connection, engine.request(engine.path(ownedBy: shard.address, number)))
            return connection
        }
        usleep(50_000)
        #expect(shard.requests.isEmpty)
        #expect(engine.onLoop { $0.server.connectionCount } == 10)
        // One that has said all it had to say, and one whose parser is free now.
        close(waiting[0])
        close(taken[0])
        for connection in waiting[1...] {
            #expect(readMessage(connection)?.hasPrefix("HTTP/1.1 200 ") == true)
        }
        (waiting[1...] + taken[1...]).forEach { close($0) }
        usleep(400_000)
        #expect(engine.onLoop { $0.server.connectionCount } == 0)
        #expect(shard.requests.count == 6)
    }

    @Test func aCrowdHasParsersMadeForIt() throws {
        let shard = ScriptedShard { _, _ in .hang }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let start = MonotonicTime.now()
        let clients = (0..<200).map { number in
            let client = connectToLoopback(port: engine.port)
            sendAll(client, engine.request("/metrics/job/a\(number)"))
            return client
        }
        defer { clients.forEach { close($0) } }
        while engine.onLoop({ $0.forwarder.metrics.inFlight }) < 200, MonotonicTime.now().since(start) < .seconds(5) {
            usleep(10_000)
        }
        // No sweep had to come for it, of which there are four a second.
        #expect(MonotonicTime.now().since(start) < .seconds(1))
    }

    @Test func clientsWithoutAWholeRequestNeedNoParser() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let hung = ScriptedShard { _, _ in .hang }
        let engine = try EngineUnderTest(shards: [shard.address, hung.address])
        defer { engine.stop() }
        #expect(engine.push("/other").status == 404)
        let taken = takeAllParsers(of: engine, with: hung)
        defer { taken.forEach { close($0) } }
        let starts = [
            "", "PUT /metrics/job/a HTTP/1.1\r\n", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\na 1",
        ]
        let unfinished = (0..<9).map { number in
            let connection = connectToLoopback(port: engine.port)
            sendAll(connection, starts[number % 3])
            return connection
        }
        usleep(50_000)
        #expect(engine.onLoop { $0.server.connectionCount } == 13)
        #expect(engine.onLoop { $0.server.connections.filter { $0?.isWaiting == true }.isEmpty })
        unfinished.forEach { close($0) }
        usleep(50_000)
        #expect(engine.onLoop { $0.server.connectionCount } == 4)
    }

    @Test func whatComesWithAnAnswerIsReadAfterWhatCameBefore() throws {
        let shard = ScriptedShard { _, request in request == 1 ? .answerLater(50) : .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let messages = (0..<3).map { engine.request("/metrics/job/a\($0)", body: "a \($0)\nb 1\n") }
        let connection = connectToLoopback(port: engine.port)
        defer { close(connection) }
        // From its first answer on the loop watches a connection.
        sendAll(connection, engine.request("/metrics/job/first"))
        #expect(readMessage(connection) != nil)
        sendAll(connection, messages[0] + messages[1].dropLast(6))
        usleep(20_000)
        // While the loop does nothing else the answer comes, and then the rest: it finds both ready, in that order.
        let rest = messages[1].suffix(6) + messages[2]
        engine.onLoop { _ in
            usleep(100_000)
            sendAll(connection, String(rest))
            usleep(20_000)
        }
        for _ in messages { #expect(readMessage(connection)?.hasPrefix("HTTP/1.1 200 ") == true) }
        #expect(shard.requests.dropFirst().map { $0.suffix(8) } == messages.map { $0.suffix(8) })
    }

    @Test func requestsSentAtOnceDoNotWaitForOtherEvents() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        #expect(engine.push("/metrics/job/a").status == 200)
        let connection = connectToLoopback(port: engine.port)
        defer { close(connection) }
        let start = MonotonicTime.now()
        sendAll(connection, (0..<20).map { engine.request("/metrics/job/a\($0)") }.joined())
        for _ in 0..<20 { #expect(readMessage(connection) != nil) }
        // One sweep of the forwarder's for each would be two seconds.
        #expect(MonotonicTime.now().since(start) < .seconds(1))
    }

    @Test func largeBodiesTakeTurnsOnAConnection() throws {
        let shard = ScriptedShard { _, _ in .answerLater(5) }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = 1 }
        defer { engine.stop() }
        let body = String(repeating: "a 1\n", count: 50_000)
        let statuses = engine.pushAtOnce((0..<12).map { "/metrics/job/a\($0)" }, body: body)
        #expect(statuses.count == 12 && statuses.allSatisfy { $0 == 200 })
        #expect(shard.requests.count == 12 && shard.connectionCount == 1)
    }
}
