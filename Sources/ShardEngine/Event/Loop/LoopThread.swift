// A thread that drives one loop. The workers beside the first have one each; the first runs on the main thread. The search for
// empty instances has one too.
import Glibc

/// A running loop on a thread of its own.
final class LoopThread {
    private var thread = pthread_t()

    /// Starts the loop on a new thread; whatever belongs to the loop is that thread's from now on.
    convenience init(_ loop: EventLoop) {
        let bound = LoopBound(loop, on: loop)
        self.init(loop) { bound.value.run() }
    }

    /// Starts a thread for something that drives the loop itself, turn by turn.
    init(_ loop: EventLoop, _ body: @escaping @Sendable () -> Void) {
        let run = ThreadBody { [mailbox = loop.mailbox] in mailbox.drive(body) }
        let context = Unmanaged.passRetained(run).toOpaque()
        let result = pthread_create(
            &thread,
            nil,
            { context in
                if let context { Unmanaged<ThreadBody>.fromOpaque(context).takeRetainedValue().run() }
                return nil
            },
            context
        )
        precondition(result == 0, "no thread can be started")
    }

    /// Waits until the loop has stopped; what belonged to it is the caller's again.
    func join() {
        pthread_join(thread, nil)
    }
}

/// What a thread does, as something that C can carry.
private final class ThreadBody: Sendable {
    let run: @Sendable () -> Void

    init(_ run: @escaping @Sendable () -> Void) {
        self.run = run
    }
}
