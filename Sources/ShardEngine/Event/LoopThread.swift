// A thread that drives one loop. The workers beside the first have one each; the first runs on the main thread.
import Glibc

/// A running loop on a thread of its own.
final class LoopThread {
    private var thread = pthread_t()

    /// Starts the loop on a new thread; whatever belongs to the loop is that thread's from now on.
    init(_ loop: EventLoop) {
        let context = Unmanaged.passRetained(loop).toOpaque()
        let result = pthread_create(
            &thread,
            nil,
            { context in
                if let context { Unmanaged<EventLoop>.fromOpaque(context).takeRetainedValue().run() }
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
