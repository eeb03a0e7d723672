// A one-shot timer on a loop (libevent's evtimer). Its owner keeps it; letting go of it cancels it.
import CEvent

/// Calls back once, some time after it was scheduled; loop-confined.
public final class Timer {
    private let check: LoopCheck
    private var event: UnsafeMutablePointer<event>?
    private let fire: () -> Void

    /// Makes a timer that is not yet scheduled.
    public init(loop: EventLoop, _ fire: @escaping () -> Void) {
        loop.assertOnLoop()
        check = LoopCheck(loop)
        self.fire = fire
        event = event_new(
            loop.base,
            -1,
            0,
            { _, _, context in
                guard let context else { return }
                // Its owner may let go of it while it fires.
                let timer = Unmanaged<Timer>.fromOpaque(context).takeUnretainedValue()
                withExtendedLifetime(timer) { timer.fire() }
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        precondition(event != nil, "out of memory")
    }

    deinit {
        check.assertOnLoop()
        if let event { event_free(event) }
    }

    /// Fires once after `delay`, in place of any earlier schedule.
    public func schedule(after delay: TimeSpan) {
        check.assertOnLoop()
        var time = timeval(
            tv_sec: Int(delay.nanoseconds / 1_000_000_000),
            tv_usec: Int(delay.nanoseconds % 1_000_000_000 / 1000)
        )
        event_add(event, &time)
    }

    /// Takes back the schedule, if there is one.
    public func cancel() {
        check.assertOnLoop()
        event_del(event)
    }
}
