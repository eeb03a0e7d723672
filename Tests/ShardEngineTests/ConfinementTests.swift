// What debug builds check of confinement: each test that is to trap runs in a process of its own.
import Dispatch
import Foundation
import Testing

@testable import ShardEngine

/// Does nothing but run a loop on a thread of its own.
private final class BackgroundLoop: @unchecked Sendable {
    let loop = EventLoop()
    private let thread: LoopThread

    init() {
        thread = LoopThread(loop)
        let isRunning = DispatchSemaphore(value: 0)
        loop.mailbox.post { isRunning.signal() }
        isRunning.wait()
    }

    func stop() {
        loop.mailbox.post { [self] in loop.stop() }
        thread.join()
    }
}

/// Notes on which side it ends.
private final class Ending: @unchecked Sendable {
    private let mailbox: LoopMailbox
    private let ended: @Sendable (_ isOnLoop: Bool) -> Void

    init(_ mailbox: LoopMailbox, _ ended: @escaping @Sendable (_ isOnLoop: Bool) -> Void) {
        self.mailbox = mailbox
        self.ended = ended
    }

    deinit {
        ended(mailbox.isOnLoop)
    }
}

@Suite struct ConfinementTests {
    @Test func beforeAndAfterALoopRunsAnyThreadMayTouchWhatIsItsOwn() {
        let background = BackgroundLoop()
        let isOnLoop = background.loop.mailbox.isOnLoop
        background.stop()
        #expect(!isOnLoop && background.loop.mailbox.isOnLoop)
        background.loop.assertOnLoop()
        _ = background.loop.now
    }

    @Test func aLoopIsItsThreadsBetweenTurnsToo() {
        let loop = EventLoop()
        loop.drive {
            let seen = ResultBox<Bool>()
            let done = DispatchSemaphore(value: 0)
            Thread.detachNewThread { [mailbox = loop.mailbox] in
                seen.result = mailbox.isOnLoop
                done.signal()
            }
            done.wait()
            #expect(seen.result == false && loop.mailbox.isOnLoop)
        }
    }

    /// The last copy ends elsewhere: what it has carried must not.
    @Test func whatALoopHasIsLetGoOfOnTheLoop() {
        let background = BackgroundLoop()
        let (seen, done) = (ResultBox<Bool>(), DispatchSemaphore(value: 0))
        let made = ResultBox<LoopBound<Ending>>()
        let mailbox = background.loop.mailbox
        mailbox.post {
            let ending = Ending(mailbox) {
                seen.result = $0
                done.signal()
            }
            made.result = LoopBound(ending, on: mailbox)
            mailbox.post { done.signal() }
        }
        // The loop is done with the object.
        done.wait()
        made.result = nil
        done.wait()
        #expect(seen.result == true)
        background.stop()
    }

    /// Large bodies are judged on another thread, which may be done with one after the loop is; their memory is the loop's.
    @Test func bodiesThatAnotherThreadHasReadEndOnTheLoop() throws {
        let shard = ScriptedShard { _, _ in .answer }
        let engine = try EngineUnderTest(shards: [shard.address])
        defer {
            engine.stop()
            shard.stop()
        }
        let body = String(repeating: "a 1\n", count: 80_000)
        for _ in 0..<10 {
            let statuses = engine.pushAtOnce((0..<20).map { "/metrics/job/job_\($0)" }, body: body)
            #expect(statuses.count == 20 && statuses.allSatisfy { $0 == 200 })
        }
    }

    @Test func aValueOfAnotherLoopTraps() async {
        let trap = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let background = BackgroundLoop()
            let made = ResultBox<LoopBound<Int>>()
            let done = DispatchSemaphore(value: 0)
            let mailbox = background.loop.mailbox
            mailbox.post {
                made.result = LoopBound(1, on: mailbox)
                done.signal()
            }
            done.wait()
            _ = made.result?.value
        }
        #expect(says(trap, "on another thread than that of the loop"))
    }

    @Test func anObjectOfAnotherLoopTraps() async {
        let trap = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let loop = EventLoop()
            let object = ResultBox<Int>()
            let bound = WeakLoopBound(object, on: loop.mailbox)
            let thread = LoopThread(loop) { usleep(10_000_000) }
            while loop.mailbox.isOnLoop { usleep(1000) }
            _ = bound.object
            withExtendedLifetime((thread, object)) {}
        }
        #expect(says(trap, "on another thread than that of the loop"))
    }

    @Test func aTimerOfAnotherLoopTraps() async {
        let trap = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let background = BackgroundLoop()
            _ = Timer(loop: background.loop) {}
        }
        #expect(says(trap, "on another thread than that of the loop"))
    }

    @Test func drivingALoopThatAnotherThreadDrivesTraps() async {
        let trap = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            BackgroundLoop().loop.turn()
        }
        #expect(says(trap, "another thread drives the loop"))
    }

    @Test func anEntryPointOfAnotherLoopTraps() async {
        let trap = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            let shard = ShardAddress(host: "127.0.0.1", port: 9)
            let engine = try EngineUnderTest(shards: [shard])
            let made = ResultBox<Worker>()
            made.result = engine.onLoop { ResultBox($0) }.result
            _ = made.result?.forwarder.shard(for: 0)
        }
        #expect(says(trap, "on another thread than that of the loop"))
    }

    @Test func aValueOfAQueueTrapsElsewhere() async {
        let queue = DispatchQueue(label: "test")
        let bound = QueueBound(1, on: queue)
        #expect(queue.sync { bound.value } == 1)
        let trap = await #expect(processExitsWith: .failure, observing: [\.standardErrorContent]) {
            _ = QueueBound(1, on: DispatchQueue(label: "test")).value
        }
        #expect(trap != nil)
    }

    /// Whether it is the check that has ended the process.
    private func says(_ trap: ExitTest.Result?, _ reason: String) -> Bool {
        trap.map { String(decoding: $0.standardErrorContent, as: UTF8.self).contains(reason) } ?? false
    }
}
