import Testing

@testable import ShardEngine

@Suite struct ConflictWatchTests {
    @Test func aShardIsAskedSeldomAndOneThatFailsOftenAtFirst() {
        func pause(_ taken: TimeSpan, _ failures: Int) -> Double {
            ConflictWatch.pause(taken: taken, failures: failures).seconds
        }
        #expect(pause(.milliseconds(20), 0) == 5 && pause(.seconds(2), 0) == 20)
        #expect(pause(.milliseconds(20), 1) == 1 && pause(.milliseconds(500), 3) == 1.5)
        #expect(pause(.milliseconds(20), 8) == 8 && pause(.milliseconds(20), 1000) == 64)
    }
}
