// The rules of discovery as values: Consul's index, its catalogue, backoff, the health of a fixed set of shards.
import Testing

@testable import ShardEngine

@Suite struct ConsulIndexTests {
    /// What is sent after each of these answers, with a star where Consul has lost its state.
    private func trace(_ headers: String?...) -> [String] {
        var index = ConsulIndex()
        return headers.map { header in
            let isLost = index.update(header)
            return "\(index.value)" + (isLost ? "*" : "")
        }
    }

    @Test func asksForAnAnswerAtOnceBeforeTheFirst() {
        #expect(ConsulIndex().value == 0)
    }

    @Test func followsTheIndex() {
        #expect(trace("17", "17", "23") == ["17", "17", "23"])
    }

    @Test func startsAnewWhenTheIndexGoesBackwards() {
        #expect(trace("23", "5", "5", "6") == ["23", "0*", "5", "6"])
    }

    @Test func noticesThatTheIndexWentBackwardsDuringAnOutage() {
        var index = ConsulIndex()
        _ = index.update("23")
        index.restart()
        #expect(index.value == 0)
        let isLost = index.update("5")
        #expect(isLost)
        #expect(index.value == 0)
    }

    @Test func takesNoAnswerWithoutAnIndexForALoss() {
        #expect(trace("23", nil, "24", "", "24") == ["23", "1", "24", "1", "24"])
    }

    @Test(arguments: ["0", nil, "", "x", "-3", "99999999999999999999999"])
    func isNeverBelowOneAfterAnAnswer(header: String?) {
        #expect(trace(header) == ["1"])
    }
}

@Suite struct ExpectationTests {
    private let one = ShardAddress(host: "a", port: 1)
    private let other = ShardAddress(host: "b", port: 1)
    private let start = MonotonicTime(nanoseconds: 1000)

    /// Whether answers are followed: what they name, and when.
    private func followed(
        _ expected: [[ShardAddress]],
        _ answers: (named: [ShardAddress], after: TimeSpan)...
    ) -> [Bool] {
        var expectation = Expectation()
        for shards in expected { expectation.add(shards, until: start.advanced(by: .seconds(10))) }
        return answers.map { expectation.isMet(by: $0.named, at: start.advanced(by: $0.after)) }
    }

    @Test func expectsNothingAtFirst() {
        #expect(followed([], ([one], .zero)) == [true])
    }

    @Test func waitsForAllThatIsExpected() {
        let results = followed(
            [[one], [other]],
            ([one], .seconds(1)),
            ([other], .seconds(2)),
            ([one, other], .seconds(3)),
            ([one], .seconds(4))
        )
        #expect(results == [false, false, true, true])
    }

    @Test func waitsNoLongerThanItsTime() {
        #expect(followed([[one]], ([other], .seconds(9.9)), ([other], .seconds(10))) == [false, true])
    }
}

@Suite struct ConsulCatalogTests {
    private func entry(node: String, service: String, port: Int) -> String {
        #"{"Node":{"Address":"\#(node)","Node":"n"},"Service":{"ID":"i","Address":"\#(service)","Port":\#(port)},"Checks":[]}"#
    }

    private func instances(_ entries: String...) -> HealthyInstances? {
        HealthyInstances(decoding: Array("[\(entries.joined(separator: ","))]".utf8))
    }

    private func decode(_ entries: String...) -> [String]? {
        HealthyInstances(decoding: Array("[\(entries.joined(separator: ","))]".utf8))?.shards.map(\.text)
    }

    @Test func takesTheServicesAddressOrElseTheNodes() {
        let shards = decode(
            entry(node: "10.0.0.1", service: "10.0.0.9", port: 1),
            entry(node: "10.0.0.1", service: "", port: 2)
        )
        #expect(shards == ["10.0.0.1:2", "10.0.0.9:1"])
    }

    @Test func bracketsIPv6() {
        #expect(decode(entry(node: "fe80::1", service: "", port: 9091)) == ["[fe80::1]:9091"])
        #expect(decode(entry(node: "a", service: "[::1]", port: 9091)) == ["[::1]:9091"])
    }

    @Test func takesOneOfTwoWithOneAddress() {
        #expect(decode(entry(node: "a", service: "b", port: 1), entry(node: "c", service: "b", port: 1)) == ["b:1"])
    }

    @Test func tellsWhatIsWrongWithThoseThatDoNotPass() {
        func entry(_ port: Int, _ checks: String) -> String {
            #"{"Node":{"Address":"n"},"Service":{"Address":"b","Port":\#(port)},"Checks":[\#(checks)]}"#
        }
        let passing = #"{"CheckID":"serfHealth","Status":"passing","Output":"alive"}"#
        let failing = #"{"CheckID":"service:b_1","Status":"critical","Output":"HTTP GET x: 401 Unauthorized\nmore"}"#
        let maintained = #"{"CheckID":"_service_maintenance:b_1","Status":"critical","Notes":"moving"}"#
        let found = instances(
            entry(1, "\(passing),\(failing)"),
            entry(2, "\(failing),\(maintained)"),
            entry(3, passing),
            // Registered twice, once by an agent that cannot reach it.
            entry(4, failing),
            entry(4, passing)
        )
        #expect(found?.shards.map(\.port) == [3, 4])
        #expect(
            found?.faults == [
                ShardAddress(host: "b", port: 1):
                    "its check service:b_1 in Consul is critical: HTTP GET x: 401 Unauthorized",
                ShardAddress(host: "b", port: 2): "it is in maintenance in Consul: moving",
            ]
        )
    }

    @Test func knowsAnEmptyAnswer() {
        #expect(decode() == [])
    }

    @Test func leavesOutWhatNoPushCanBeSentTo() {
        let found = instances(
            entry(node: "a", service: "b c", port: 1),
            entry(node: "a", service: "b", port: 0),
            entry(node: "a", service: "b", port: 65536),
            entry(node: "a", service: "http://b", port: 1),
            entry(node: "", service: "", port: 1),
            entry(node: "a", service: "b", port: 1)
        )
        #expect(found?.shards.map(\.text) == ["b:1"])
        #expect(found?.unusable == ["b c:1", "b:0", "b:65536", "[http://b]:1", ":1"])
    }

    @Test(arguments: [
        "", "null", "{}", "[1]", "[{}]", "<html>", "[{\"Node\":{\"Address\":\"a\"}}]",
        "[{\"Node\":{\"Address\":\"a\"},\"Service\":{\"Address\":\"b\",\"Port\":\"x\"}}]",
        "[{\"Node\":{\"Address\":\"a\"},\"Service\":{\"Address\":\"b\",\"Port\":1}}",
    ])
    func refusesWhatIsNoCatalogue(body: String) {
        #expect(HealthyInstances(decoding: Array(body.utf8)) == nil)
    }
}

@Suite struct BackoffTests {
    @Test func doublesUpToItsLimitWithJitter() {
        var backoff = Backoff(first: .milliseconds(100), limit: .seconds(1))
        for full: UInt64 in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next()
            #expect(wait >= .milliseconds(full / 2) && wait <= .milliseconds(full))
        }
        for _ in 0..<100 {
            let wait = backoff.next()
            #expect(wait <= .seconds(1))
        }
        backoff.reset()
        let again = backoff.next()
        #expect(again <= .milliseconds(100))
    }

    @Test func differsFromReplicaToReplica() {
        let waits = (0..<20).map { _ in
            var backoff = Backoff(first: .seconds(10), limit: .seconds(60))
            return backoff.next()
        }
        #expect(Set(waits).count > 1)
    }
}

/// A membership that expectations may change as they look at it.
private final class Health {
    private var membership: StaticMembership

    init(shards: [ShardAddress], fall: Int, rise: Int) {
        membership = StaticMembership(shards: shards, fall: fall, rise: rise)
    }

    var shards: [ShardAddress] { membership.shards }

    var faults: [ShardAddress: String] { membership.faults }

    func record(_ shard: ShardAddress, isHealthy: Bool) -> Bool {
        membership.record(shard, fault: isHealthy ? nil : "it answered 500")
    }

    func replace(_ shards: [ShardAddress], fall: Int, rise: Int) {
        membership.replace(shards, fall: fall, rise: rise)
    }
}

@Suite struct StaticMembershipTests {
    private let one = ShardAddress(host: "a", port: 1)
    private let other = ShardAddress(host: "b", port: 1)

    @Test func fallsAndRises() {
        let membership = Health(shards: [one, other], fall: 2, rise: 3)
        #expect(!membership.record(one, isHealthy: false))
        #expect(membership.shards == [one, other])
        #expect(membership.record(one, isHealthy: false))
        #expect(membership.shards == [other])
        #expect(!membership.record(one, isHealthy: true))
        #expect(!membership.record(one, isHealthy: true))
        // A failure in between starts the count again.
        #expect(!membership.record(one, isHealthy: false))
        #expect(!membership.record(one, isHealthy: true))
        #expect(!membership.record(one, isHealthy: true))
        #expect(membership.record(one, isHealthy: true))
        #expect(membership.shards == [one, other])
    }

    @Test func aShardFailsItsProbesOnceItHasLeftOrIfItWasNeverHealthy() {
        let membership = Health(shards: [one, other], fall: 2, rise: 1)
        #expect(membership.faults.isEmpty)
        _ = membership.record(one, isHealthy: true)
        _ = membership.record(one, isHealthy: false)
        _ = membership.record(other, isHealthy: false)
        #expect(membership.faults == [other: "it answered 500"])
        _ = membership.record(one, isHealthy: false)
        #expect(membership.faults == [one: "it answered 500", other: "it answered 500"])
        _ = membership.record(one, isHealthy: true)
        _ = membership.record(other, isHealthy: true)
        #expect(membership.faults.isEmpty)
    }

    @Test func aSuccessInBetweenForgivesAFailure() {
        let membership = Health(shards: [one, other], fall: 2, rise: 1)
        for _ in 0..<5 {
            #expect(!membership.record(one, isHealthy: false))
            #expect(!membership.record(one, isHealthy: true))
        }
        #expect(membership.shards == [one, other])
    }

    @Test func keepsTheLastShardsWhenAllFail() {
        let membership = Health(shards: [one, other], fall: 1, rise: 1)
        #expect(membership.record(one, isHealthy: false))
        #expect(membership.record(other, isHealthy: false))
        #expect(membership.shards == [other])
        #expect(membership.record(one, isHealthy: true))
        #expect(membership.shards == [one])
    }

    @Test func keepsAllWhenAllFailTogether() {
        let membership = Health(shards: [one, other], fall: 2, rise: 1)
        for round in 0..<4 {
            for shard in [one, other] {
                #expect(membership.record(shard, isHealthy: false) == (round == 1))
                #expect(membership.shards == [one, other])
            }
        }
        #expect(membership.record(other, isHealthy: true))
        #expect(membership.shards == [other])
    }

    @Test func leavesAShardOutOnceAnotherIsKnownToBeHealthy() {
        let membership = Health(shards: [one, other], fall: 2, rise: 1)
        #expect(!membership.record(one, isHealthy: false))
        #expect(!membership.record(other, isHealthy: false))
        #expect(membership.record(one, isHealthy: false))
        #expect(membership.shards == [one, other])
        #expect(!membership.record(other, isHealthy: true))
        #expect(membership.shards == [other])
    }

    @Test func keepsTheHealthOfShardsThatStay() {
        let membership = Health(shards: [one, other], fall: 1, rise: 1)
        _ = membership.record(one, isHealthy: false)
        let new = ShardAddress(host: "c", port: 1)
        membership.replace([one, new], fall: 1, rise: 1)
        #expect(membership.shards == [new])
        membership.replace([one], fall: 1, rise: 1)
        #expect(membership.shards == [one])
    }

    @Test func keepsTheLastShardsThroughAReload() {
        let membership = Health(shards: [one, other], fall: 1, rise: 1)
        _ = membership.record(one, isHealthy: false)
        _ = membership.record(other, isHealthy: false)
        membership.replace([one, other], fall: 3, rise: 1)
        #expect(membership.shards == [other])
    }
}

@Suite struct RegistrationTests {
    @Test func namesServicesByHostAndPort() {
        #expect(registrationID(ShardAddress(host: "10.0.0.1", port: 9091)) == "10.0.0.1_9091")
        #expect(registrationID(ShardAddress(host: "::1", port: 9091)) == "::1_9091")
    }

    @Test func writesDurationsAsGoReadsThem() {
        #expect(consulDuration(.seconds(5)) == "5000ms")
        #expect(consulDuration(.milliseconds(250)) == "250ms")
    }
}
