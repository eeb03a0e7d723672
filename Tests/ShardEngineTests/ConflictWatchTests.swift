import Testing

@testable import ShardEngine

@Suite struct ConflictWatchTests {
    @Test func aShardIsAskedSeldomAndOneThatFailsOftenAtFirst() {
        func pause(_ taken: TimeSpan, _ attempts: Int) -> Double {
            ConflictWatch.pause(taken: taken, attempts > 0, attempts: attempts).seconds
        }
        #expect(pause(.milliseconds(20), 0) == 5 && pause(.seconds(2), 0) == 20)
        #expect(pause(.milliseconds(20), 1) == 1 && pause(.milliseconds(750), 3) == 1.5)
        #expect(pause(.milliseconds(20), 8) == 8 && pause(.milliseconds(20), 1000) == 64)
    }
}
