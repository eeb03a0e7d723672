// Which shards a run may take at their word.
import Testing

@testable import ShardEngine

@Suite struct RestartsTests {
    private let shard = ShardAddress(host: "10.0.0.1", port: 9091)

    /// What a look at the shard says of it, one look after the other.
    private func looks(_ startTimes: [String?], wasAway: Bool = false, grace: TimeSpan = .seconds(9)) -> [Bool] {
        var restarts = Restarts()
        return startTimes.map { restarts.isTrusted(shard, startTime: $0, wasAway: wasAway, grace: grace) }
    }

    @Test func aShardThatWasThereAllAlongIsTrusted() {
        #expect(looks(["1", "1", nil]) == [true, true, false])
    }

    @Test func oneThatHasJustComeBackIsNot() {
        #expect(looks(["1", "2", "2"]) == [true, false, false])
        #expect(looks(["1", nil, "1"]) == [true, false, false])
        #expect(looks(["1", "2", "2"], grace: .zero) == [true, true, true])
    }

    @Test func noneThatWasAwayForAnotherReplica() {
        #expect(looks(["1", "1"], wasAway: true) == [false, false])
        #expect(looks(["1", "1"], wasAway: true, grace: .zero) == [false, true])
    }
}
