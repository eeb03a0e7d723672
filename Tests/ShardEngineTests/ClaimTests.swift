// What replicas tell each other of families: the log as Consul keeps it, and two replicas with a real agent.
import Logging
import Testing

@testable import ShardEngine

@Suite struct ClaimLogTests {
    private func claim(_ name: String, _ kind: FamilyKind = .gauge, shapes: Int? = 1) -> FamilyClaim {
        let known = shapes.map { (0..<$0).map { SeriesShape(keyNames: UInt64($0), allNames: .max - UInt64($0)) } }
        return FamilyClaim(name: Array(name.utf8), kind: kind, shapes: known)
    }

    @Test func isReadAsItWasWritten() {
        var log = ClaimLog(id: 7)
        log.append([claim("x"), claim("", .histogram, shapes: 0), claim("ü", .counter, shapes: nil)])
        #expect(ClaimLog(decoding: log.encoded) == log)
        #expect(ClaimLog(decoding: ClaimLog(id: 1).encoded) == ClaimLog(id: 1))
    }

    @Test func whatIsCutShortOrOfAnotherVersionIsNone() {
        var log = ClaimLog(id: 7)
        log.append([claim("xyz", shapes: 2)])
        // Where a whole claim is missing nothing tells.
        for count in 0..<log.encoded.count where count != ClaimLog(id: 7).encoded.count {
            #expect(ClaimLog(decoding: Array(log.encoded.prefix(count))) == nil, "\(count)")
        }
        #expect(ClaimLog(decoding: [2] + log.encoded.dropFirst()) == nil)
    }

    @Test func tellsWhatHasComeSince() {
        var log = ClaimLog(id: 7)
        log.append([claim("a")])
        let former = log
        log.append([claim("b"), claim("c")])
        #expect(log.claims(since: former).map(Array.init) == [claim("b"), claim("c")])
        #expect(log.claims(since: log)?.isEmpty == true)
        #expect(former.claims(since: log) == nil, "an earlier one")
        #expect(log.claims(since: nil) == nil)
        #expect(former.claims(since: ClaimLog(id: 8)).map(Array.init) == [claim("a")], "the first of all")
        var another = ClaimLog(id: 8)
        another.append([claim("a")])
        #expect(log.claims(since: another) == nil, "another one")
    }

    @Test func keepsTheLatestAndTellsWhereSomeAreMissing() {
        var log = ClaimLog(id: 7)
        let first = log
        let name = String(repeating: "n", count: 1000)
        for _ in 0..<400 { log.append([claim(name)]) }
        #expect(log.encoded.count < 1 << 19 && log.next == 400 && log.first > 0)
        #expect(log.claims(since: first) == nil)
        log.append((0..<200).map { _ in claim(name) })
        #expect(log.next == 600 && log.encoded.count < 1 << 19)
    }
}

@Suite struct ClaimKeeperTests {
    /// A replica's keeper, and what it was told.
    private final class Member {
        let session = HTTPSession(loop: EventLoop())
        var told: [String] = []
        var gaps = 0
        private(set) var keeper: ClaimKeeper!

        init(_ agent: ConsulAgent) {
            var settings = Configuration.Consul()
            (settings.host, settings.serviceName) = (agent.host, "pushgateway")
            keeper = ClaimKeeper(
                session: session,
                settings: settings,
                logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
                onGap: { [unowned self] in gaps += 1 },
                onClaims: { [unowned self] in told += $0.map { String(decoding: $0.name, as: UTF8.self) } }
            )
        }

        func claim(_ name: String) -> ClaimKeeper.Outcome {
            keeper.add([FamilyClaim(name: Array(name.utf8), kind: .gauge, shapes: [])])
        }

        func hear(within seconds: Double, until isEnough: () -> Bool) -> Bool {
            session.pause(.seconds(seconds), until: isEnough)
            return isEnough()
        }
    }

    @Test func whoHasNotHeardOfAClaimIsTold() throws {
        let agent = try ConsulAgent()
        let (one, other) = (Member(agent), Member(agent))
        #expect(one.claim("x") == .stored)
        #expect(other.claim("y") == .overtaken, "it had not heard of x")
        #expect(other.told == ["x"])
        #expect(other.claim("y") == .stored)
        #expect(one.hear(within: 5) { one.told == ["y"] }, "the watch tells")
        #expect(one.claim("z") == .stored)
        #expect(other.hear(within: 5) { other.told == ["x", "z"] })
        let third = Member(agent)
        #expect(third.told == ["x", "y", "z"], "who comes later hears of all")
        #expect([one, other, third].allSatisfy { $0.gaps == 0 })
    }

    @Test func whereClaimsAreGoneAllIsDoubted() throws {
        let agent = try ConsulAgent()
        let (one, other) = (Member(agent), Member(agent))
        #expect(one.claim("x") == .stored)
        agent.call(.delete, "/v1/kv/shardd/?recurse")
        #expect(other.claim("y") == .stored)
        #expect(one.hear(within: 5) { one.gaps > 0 && one.told.contains("y") })
    }

    @Test func withoutConsulNothingIsClaimedAndLaterAllIsDoubted() throws {
        let agent = try ConsulAgent()
        let one = Member(agent)
        #expect(one.claim("x") == .stored)
        agent.kill()
        let whileAway = one.claim("y")
        #expect(whileAway == .failed)
        #expect(!one.hear(within: 1) { one.gaps > 0 })
        try agent.start()
        #expect(one.hear(within: 20) { one.gaps > 0 })
        let later = one.claim("z")
        #expect(later == .stored)
    }
}
