// How turns follow one another.
import Glibc
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

    @Test func aTurnThatComesLateIsKnown() {
        let loop = EventLoop()
        loop.watchForLateTurns()
        var beat: ShardEngine.Timer?
        beat = Timer(loop: loop) { beat?.schedule(after: .milliseconds(100)) }
        beat?.schedule(after: .milliseconds(100))
        var seen: [Bool] = []
        loop.atTurnEnd { [unowned loop] in seen.append(loop.isTurnLate) }
        // One that waits long for something to do is not late.
        for _ in 0..<8 { loop.turn() }
        usleep(600_000)
        loop.turn()
        loop.turn()
        let timer = Timer(loop: loop) { usleep(600_000) }
        timer.schedule(after: .zero)
        loop.turn()
        #expect(seen == [Bool](repeating: false, count: 8) + [true, false, true])
        beat = nil
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
