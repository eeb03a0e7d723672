// Redirects in answer to pushes: the path that the client is told, and that nothing of it is passed on.
import Testing

@testable import ShardEngine

@Suite(.serialized) struct RedirectTests {
    private func answer(_ status: Int, _ headers: String) -> String {
        "HTTP/1.1 \(status) Whatever\r\n\(headers)Content-Length: 0\r\n\r\n"
    }

    @Test(arguments: [
        ("Location: /metrics/job/x\r\n", "/metrics/job/x"),
        ("location:\t/metrics/job/x\t \r\n", "/metrics/job/x"),
        ("Location: http://shard:9091/metrics/job/x\r\n", "/metrics/job/x"),
        ("Location: https://[::1]:9091/metrics/job/x?a=/b#c\r\n", "/metrics/job/x?a=/b"),
        ("Location: //shard/metrics/job/x\r\n", "/metrics/job/x"),
        ("Location: http://shard?a\r\n", "/?a"),
        ("Location: x\r\n", "/metrics/job/a/x"),
        ("Location: ../x/./y\r\n", "/metrics/job/x/y"),
        ("Location: /metrics/job/../job/x/..\r\n", "/metrics/job/"),
        ("Location: ?b=2\r\n", "/metrics/job/a/b?b=2"),
        ("Location: #here\r\n", "/metrics/job/a/b?q"),
    ])
    func leadsToAPathOfShardds(headers: String, path: String) throws {
        let text = Array(answer(301, headers).utf8)
        var parser = ResponseParser()
        guard case .response(let response) = text.withUnsafeBytes({ parser.parse($0) }) else {
            Issue.record("no response")
            return
        }
        let redirect = text.withUnsafeBytes {
            Redirect(response, head: UnsafeRawBufferPointer(rebasing: $0[response.head]))
        }
        #expect(redirect.path(from: "/metrics/job/a/b?q") == path)
    }

    @Test(arguments: [301, 302, 303, 307, 308])
    func areAnsweredWithTheRightPath(status: Int) throws {
        let shard = ScriptedShard { [text = answer(status, "Location: /metrics/job/x\r\n")] _, _ in .send(text) }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        for _ in 0..<2 {
            let answer = engine.push("/metrics/job/y")
            #expect(answer.status == 400 && !answer.text.contains("Location"))
            let line = "it answers pushes on this path with a redirect (\(status)): the path to use is /metrics/job/x"
            #expect(answer.text.hasSuffix("\r\n\r\nshard \(shard.address): \(line)\n"))
        }
        // The connection is as good as before, and the shard's own status is counted as its.
        let address = shard.address
        let counted = engine.onLoop { $0.forwarder.pools[address]?.metrics.answers.entries.map(\.status) }
        #expect(shard.connectionCount == 1 && counted == [status])
        #expect(engine.onLoop { $0.metrics.inFlight } == 0)
    }

    @Test func aProxyThatWantsAnotherSchemeIsNamed() throws {
        let shard = ScriptedShard { [text = answer(308, "Location: https://h/metrics/job/x\r\n")] _, _ in .send(text) }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let (status, text) = engine.push("/metrics/job/x")
        #expect(status == 400 && text.contains("to https://h/metrics/job/x: the path to use is /metrics/job/x,"))
    }

    @Test(arguments: [300, 304, 305, 306, 399])
    func otherStatusesOfThatKindAreGarbage(status: Int) throws {
        let shard = ScriptedShard { [text = answer(status, "Location: /a\r\n")] _, _ in .send(text) }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer { engine.stop() }
        let answer = engine.push("/metrics/job/x")
        #expect(answer.status == 502 && answer.text.contains("shard \(shard.address): it answered garbage"))
    }
}
