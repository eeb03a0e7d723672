// How other threads reach a loop: they leave work and ring its descriptor.
// The ring builder and the resolver post their results here; signals and other loops do too.
import CEvent
import Glibc
import Synchronization

/// Work for a loop, left by any thread.
public final class LoopMailbox: Sendable {
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

    /// Has the loop run `work` on its own thread, soon, in the order of posting.
    public func post(_ work: @escaping @Sendable () -> Void) {
        posted.withLock { $0.append(work) }
        eventfd_write(descriptor, 1)
    }

    /// Runs what was posted; called by the loop only.
    func runPosted() {
        var count: eventfd_t = 0
        eventfd_read(descriptor, &count)
        let works = posted.withLock { works in
            defer { works.removeAll() }
            return works
        }
        for work in works { work() }
    }
}

/// Carries a loop-confined value through another thread and back; only the loop it belongs to may open it.
public struct LoopBound<Value>: @unchecked Sendable {
    /// The value; touch it on its own loop only.
    public let value: Value

    /// Wraps a value on its own loop.
    public init(_ value: Value) {
        self.value = value
    }
}

/// Carries a loop-confined object through another thread and back without keeping it alive: it must not end there.
struct WeakLoopBound<Object: AnyObject>: @unchecked Sendable {
    /// The object, if it is still there; touch it on its own loop only.
    private(set) weak var object: Object?

    init(_ object: Object) {
        self.object = object
    }
}
