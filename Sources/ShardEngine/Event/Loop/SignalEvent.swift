// A process signal delivered on the loop. The server keeps one for each signal it answers.
import CEvent

/// Calls back on the loop each time the process gets a signal.
final class SignalEvent {
    private let check: LoopCheck
    private var event: UnsafeMutablePointer<event>?
    private let received: () -> Void

    init(loop: EventLoop, signal: Int32, _ received: @escaping () -> Void) {
        loop.assertOnLoop()
        check = LoopCheck(loop)
        self.received = received
        event = event_new(
            loop.base,
            signal,
            Int16(EV_SIGNAL | EV_PERSIST),
            { _, _, context in
                guard let context else { return }
                Unmanaged<SignalEvent>.fromOpaque(context).takeUnretainedValue().received()
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        precondition(event != nil, "out of memory")
        event_add(event, nil)
    }

    deinit {
        check.assertOnLoop()
        if let event { event_free(event) }
    }
}
