// How turns follow one another.
import Testing

@testable import ShardEngine

@Suite struct EventLoopTests {
    /// How long twenty turns take in which something is ready at once.
    private func time(of loop: EventLoop) -> TimeSpan {
        let timer = Timer(loop: loop) {}
        let start = MonotonicTime.now()
        for _ in 0..<20 {
            timer.schedule(after: .zero)
            loop.turn()
        }
        return MonotonicTime.now().since(start)
    }

    @Test func turnsFollowAtOnceOrAtAPace() {
        let loop = EventLoop()
        #expect(time(of: loop) < .milliseconds(60))
        loop.turnPeriod = .milliseconds(5)
        #expect(time(of: loop) >= .milliseconds(95))
        loop.turnPeriod = .zero
        #expect(time(of: loop) < .milliseconds(60))
    }

    @Test func whatComesAfterAPauseDoesNotWait() {
        let loop = EventLoop()
        loop.turnPeriod = .milliseconds(200)
        let timer = Timer(loop: loop) {}
        timer.schedule(after: .milliseconds(250))
        loop.turn()
        timer.schedule(after: .milliseconds(250))
        let start = MonotonicTime.now()
        loop.turn()
        // It slept within the quarter of a second, not after it.
        #expect(MonotonicTime.now().since(start) < .milliseconds(400))
    }
}
