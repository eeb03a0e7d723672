// How other threads reach a loop: they leave work and ring its descriptor.
// The ring builder and the resolver post their results here; signals and other loops do too. It also knows which thread
// drives the loop, so that others can tell whether they are on it.
import CEvent
import Glibc
import Synchronization

/// Work for a loop, left by any thread.
public final class LoopMailbox: Sendable {
    /// The thread that drives the loop; 0 while none does.
    private let driver = Atomic<pthread_t>(0)
    /// Becomes readable when there is work.
    let descriptor: Int32
    private let posted = Mutex<[@Sendable () -> Void]>([])

    init() {
        descriptor = shardd_eventfd()
        precondition(descriptor >= 0, "no descriptor left for an event loop")
    }

    deinit {
        close(descriptor)
    }

    /// Whether this thread may touch what belongs to the loop: it drives the loop, or no thread does, as before the loop runs.
    var isOnLoop: Bool {
        let thread = driver.load(ordering: .relaxed)
        return thread == 0 || thread == pthread_self()
    }

    /// Traps, in debug builds, on any thread but that of the loop.
    @inline(__always)
    func assertOnLoop(file: StaticString = #fileID, line: UInt = #line) {
        assert(isOnLoop, "on another thread than that of the loop", file: file, line: line)
    }

    /// The calling thread is the loop's for as long as `body` runs.
    func drive<Result>(_ body: () -> Result) -> Result {
        assert(isOnLoop, "another thread drives the loop")
        let before = driver.exchange(pthread_self(), ordering: .relaxed)
        defer { driver.store(before, ordering: .relaxed) }
        return body()
    }

    /// Has the loop run `work` on its own thread, soon, in the order of posting.
    public func post(_ work: @escaping @Sendable () -> Void) {
        posted.withLock { $0.append(work) }
        eventfd_write(descriptor, 1)
    }

    /// Runs what was posted; called by the loop only.
    func runPosted() {
        assertOnLoop()
        var count: eventfd_t = 0
        eventfd_read(descriptor, &count)
        let works = posted.withLock { works in
            defer { works.removeAll() }
            return works
        }
        for work in works { work() }
    }
}
