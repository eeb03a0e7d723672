// What one push does to a connection to a shard, and that others on it get their own answers all the same. Scripted shards,
// for faults that a real Pushgateway does not have; Tests/System/test_bad_pushes.py has the real ones.
import Foundation
import Glibc
import Testing

import MovingCore

@testable import ShardEngine

@Suite(.serialized) struct BadPushTests {
    private static func isBad(_ request: String) -> Bool { request.contains("/metrics/job/bad") }

    /// Clients push good ones, each after the other, while bad ones come; returns all statuses.
    private func push(
        _ engine: EngineUnderTest,
        besideBadEvery interval: UInt32,
        isBadTheSame: Bool = true,
        seconds: Double = 1
    ) -> (good: [Int], bad: [Int]) {
        let end = MonotonicTime.now().advanced(by: .seconds(seconds))
        let lock = NSLock()
        let statuses = ResultBox<(good: [Int], bad: [Int])>()
        statuses.result = ([], [])
        let group = DispatchGroup()
        for client in 0..<6 {
            group.enter()
            Thread.detachNewThread {
                let connection = connectToLoopback(port: engine.port)
                while MonotonicTime.now() < end {
                    sendAll(connection, engine.request("/metrics/job/good\(client)"))
                    let status = engine.parse(readMessage(connection, timeout: 15)).status
                    lock.withLock { statuses.result?.good.append(status) }
                    if status == 0 { break }
                }
                close(connection)
                group.leave()
            }
        }
        var number = 0
        while MonotonicTime.now() < end {
            group.enter()
            number += 1
            let path = "/metrics/job/bad" + (isBadTheSame ? "" : "\(number)")
            Thread.detachNewThread {
                let status = engine.push(path, timeout: 15).status
                lock.withLock { statuses.result?.bad.append(status) }
                group.leave()
            }
            usleep(interval * 1000)
        }
        group.wait()
        return statuses.result ?? ([], [])
    }

    private func isSuspect(_ engine: EngineUnderTest, _ shard: ScriptedShard) -> Bool {
        let address = shard.address
        return engine.onLoop { $0.forwarder.follower?.following.view.isDown(StoreID(byAddress: address)) ?? true }
    }

    @Test(
        arguments: [
            ScriptedShard.Step.close, .reset, .send("what?\r\n\r\n"),
            .sendAndClose("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        ],
        [1, 2, 8]
    )
    func whatBreaksConnectionsCostsOthersNothing(step: ScriptedShard.Step, limit: Int) throws {
        let shard = ScriptedShard { _, _, request in Self.isBad(request) ? step : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = limit }
        defer { engine.stop() }
        let (good, bad) = push(engine, besideBadEvery: 20)
        #expect(good.count > 100 && good.allSatisfy { $0 == 200 })
        #expect(bad.count > 20 && bad.allSatisfy { $0 == 502 })
        #expect(!isSuspect(engine, shard))
    }

    @Test func whatBreaksConnectionsGoesToNoOtherShard() throws {
        let shards = (0..<2).map { _ in ScriptedShard { _, _, request in Self.isBad(request) ? .reset : .answer } }
        let engine = try EngineUnderTest(shards: shards.map(\.address))
        defer { engine.stop() }
        #expect(engine.push("/metrics/job/bad").status == 502)
        #expect(shards.map(\.requests.count).sorted() == [0, 2])
        #expect(shards.map(\.healthChecks).sorted() == [0, 1])
        #expect(!isSuspect(engine, shards[0]) && !isSuspect(engine, shards[1]))
    }

    @Test func aRefusalThatEndsWithAResetCounts() throws {
        let refusal = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n400 Bad Request"
        // The rest of the body is never read, so that closing is a reset.
        let (listener, port) = listenOnLoopback()
        defer { close(listener) }
        Thread.detachNewThread {
            while case let connection = accept(listener, nil, nil), connection >= 0 {
                var byte: UInt8 = 0
                recv(connection, &byte, 1, 0)
                sendAll(connection, refusal)
                close(connection)
            }
        }
        let engine = try EngineUnderTest(shards: [ShardAddress(host: "127.0.0.1", port: port)])
        defer { engine.stop() }
        for size in [10, 20_000, 3_000_000] {
            let answer = engine.push("/metrics/job/a", body: String(repeating: "#", count: size))
            #expect(answer.status == 400 && answer.text.hasSuffix("400 Bad Request"), "\(size) bytes")
        }
    }

    @Test func otherPushesAreSentAgainHoweverOftenAShardBreaks() throws {
        // Every connection ends before its third answer, with all that is behind it.
        let shard = ScriptedShard { _, request in request == 2 ? .close : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = 1 }
        defer { engine.stop() }
        for _ in 0..<5 {
            let statuses = engine.pushAtOnce((0..<60).map { "/metrics/job/a\($0)" })
            #expect(statuses.count == 60 && statuses.allSatisfy { $0 == 200 })
        }
        let address = shard.address
        #expect(engine.onLoop { $0.forwarder.pools[address]?.metrics.retries ?? 0 } > 10)
    }

    @Test(arguments: [1, 8])
    func whatIsNeverAnsweredHoldsUpOthersOnlyForAMoment(limit: Int) throws {
        let shard = ScriptedShard { _, _, request in Self.isBad(request) ? .hang : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.connectionsPerShard = limit }
        defer {
            shard.stop()
            engine.stop()
        }
        _ = engine.push("/metrics/job/first")
        let bad = (0..<3).map { _ in connectToLoopback(port: engine.port) }
        defer { bad.forEach { close($0) } }
        let start = MonotonicTime.now()
        for connection in bad { sendAll(connection, engine.request("/metrics/job/bad")) }
        let statuses = engine.pushAtOnce((0..<18).map { "/metrics/job/good\($0)" })
        #expect(statuses.count == 18 && statuses.allSatisfy { $0 == 200 })
        #expect(MonotonicTime.now().since(start) < .seconds(limit == 1 ? 7 : 2))
        #expect(!isSuspect(engine, shard))
    }

    @Test(arguments: [20, 200] as [UInt32], [true, false])
    func pushesPassWhileOthersThatAreNeverAnsweredKeepComing(interval: UInt32, isBadTheSame: Bool) throws {
        let shard = ScriptedShard { _, _, request in Self.isBad(request) ? .hang : .answer }
        let engine = try EngineUnderTest(shards: [shard.address]) { $0.forward.responseTimeout = .seconds(4) }
        defer {
            shard.stop()
            engine.stop()
        }
        let (good, bad) = push(engine, besideBadEvery: interval, isBadTheSame: isBadTheSame, seconds: 4)
        #expect(good.count > 100 && good.allSatisfy { $0 == 200 })
        #expect(bad.allSatisfy { $0 == 504 })
    }

    @Test func whatWaitsForASlowShardIsNotSentAgain() throws {
        let lock = NSLock()
        // One push at a time, as a Pushgateway that checks ten thousand groups for each.
        let shard = ScriptedShard { _, _, _ in
            _ = lock.withLock { usleep(150_000) }
            return .answer
        }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let statuses = engine.pushAtOnce((0..<40).map { "/metrics/job/a\($0)" })
        #expect(statuses.count == 40 && statuses.allSatisfy { $0 == 200 })
        #expect(shard.requests.count == 40)
    }

    @Test func aShardThatIsStoppedIsSentNothingAgain() throws {
        let shard = ScriptedShard(health: .hang) { _, request in request == 0 ? .answer : .hang }
        let engine = try EngineUnderTest(shards: [shard.address]) {
            $0.forward.responseTimeout = .seconds(2)
            $0.forward.connectionsPerShard = 2
        }
        defer {
            shard.stop()
            engine.stop()
        }
        _ = engine.push("/metrics/job/first")
        let statuses = engine.pushAtOnce((0..<20).map { "/metrics/job/a\($0)" })
        #expect(statuses.count == 20 && statuses.allSatisfy { $0 == 504 })
        let address = shard.address
        #expect(engine.onLoop { $0.forwarder.pools[address]?.metrics.retries } == 0)
        #expect(!isSuspect(engine, shard))
    }

    // MARK: What no push has asked for

    @Test func whatIsSaidBeforeAPushIsSentIsNoAnswer() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        for words in [ScriptedShard.odd, String(ScriptedShard.odd.prefix(20)), "\r\n"] {
            #expect(engine.push("/metrics/job/a").status == 200)
            shard.say(words)
            usleep(30_000)
            let answer = engine.push("/metrics/job/a")
            #expect(answer.status == 200 && !answer.text.contains("odd"))
            // In the turn in which the push comes, and while the loop is busy before it.
            engine.onLoop { _ in
                shard.say(words)
                usleep(30_000)
            }
            #expect(!engine.push("/metrics/job/a").text.contains("odd"))
            let client = connectToLoopback(port: engine.port)
            engine.onLoop { _ in
                sendAll(client, engine.request("/metrics/job/b"))
                shard.say(words)
                usleep(30_000)
            }
            #expect(readMessage(client)?.contains("odd") == false)
            close(client)
        }
        let address = shard.address
        #expect(engine.onLoop { $0.forwarder.pools[address]?.metrics.retries } == 0)
    }

    @Test func bytesBehindAnAnswerAreNotTheNextOne() throws {
        let shard = ScriptedShard { _, _, request in
            .send(ScriptedShard.ok + (Self.isBad(request) ? ScriptedShard.odd : ""))
        }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        for number in 0..<5 {
            #expect(engine.push("/metrics/job/bad").status == 200)
            let answer = engine.push("/metrics/job/good\(number)")
            #expect(answer.status == 200 && !answer.text.contains("odd"))
        }
    }

    @Test func aLongerAnswerThanAnnouncedCostsOthersNothing() throws {
        let long = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more"
        let shard = ScriptedShard { _, _, request in Self.isBad(request) ? .send(long) : .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let (good, bad) = push(engine, besideBadEvery: 10)
        #expect(good.allSatisfy { $0 == 200 } && bad.allSatisfy { $0 == 200 })
    }

    // MARK: How connections end

    /// The next connection on which a push comes, which has been read; health checks are answered.
    private func acceptPush(_ listener: Int32) -> Int32 {
        while case let connection = accept(listener, nil, nil), connection >= 0 {
            guard readMessage(connection)?.hasPrefix("GET") == true else { return connection }
            sendAll(connection, ScriptedShard.ok)
            close(connection)
        }
        return -1
    }

    @Test func aConnectionWithAnUnansweredPushIsResetAndAnIdleOneClosed() throws {
        let (listener, port) = listenOnLoopback()
        defer { close(listener) }
        let engine = try EngineUnderTest(shards: [ShardAddress(host: "127.0.0.1", port: port)]) {
            $0.forward.responseTimeout = .milliseconds(300)
        }
        let client = connectToLoopback(port: engine.port)
        defer { close(client) }
        sendAll(client, engine.request("/metrics/job/a"))
        let given = acceptPush(listener)
        // It is given up.
        #expect(engine.parse(readMessage(client)).status == 504)
        var byte: UInt8 = 0
        #expect(recv(given, &byte, 1, 0) == -1 && errno == ECONNRESET)
        sendAll(client, engine.request("/metrics/job/b"))
        let idle = acceptPush(listener)
        sendAll(idle, ScriptedShard.ok)
        #expect(engine.parse(readMessage(client)).status == 200)
        engine.stop()
        #expect(recv(idle, &byte, 1, 0) == 0)
    }

    @Test func theEndOfTheProcessResetsWhatIsUnanswered() throws {
        let (listener, port) = listenOnLoopback()
        defer { close(listener) }
        let engine = try EngineUnderTest(shards: [ShardAddress(host: "127.0.0.1", port: port)])
        let client = connectToLoopback(port: engine.port)
        defer { close(client) }
        sendAll(client, engine.request("/metrics/job/a"))
        let connection = acceptPush(listener)
        engine.stop()
        var byte: UInt8 = 0
        #expect(recv(connection, &byte, 1, 0) == -1 && errno == ECONNRESET)
    }

    @Test func theKernelGivesUpWithTheTimeLimit() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        #expect(engine.push("/metrics/job/a").status == 200)
        let address = shard.address
        func patience() -> [UInt32] {
            engine.onLoop { worker in worker.forwarder.pools[address]?.pipelines.map(\.patience) ?? [] }
        }
        #expect(patience() == [10_000])
        engine.onLoop { $0.forwarder.settings.responseTimeout = .seconds(3) }
        #expect(patience() == [3000])
    }
}

extension ScriptedShard {
    /// An answer that must reach nobody.
    static let odd = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nodd!"
}
