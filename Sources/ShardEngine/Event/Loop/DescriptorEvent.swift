// Readiness of a raw descriptor. Pipelines, the mailbox and lingering connections use it; the owner keeps the descriptor.
import CEvent

/// Calls back whenever a descriptor is ready; loop-confined.
final class DescriptorEvent {
    /// What to wait for.
    enum Interest {
        /// Readable, again and again.
        case read
        /// Writable, once for each `start()`.
        case write
        /// Readable, or broken, but only when that is new: for a socket whose other side has sent all that it will send. No
        /// other event may wait for the descriptor meanwhile.
        case change

        fileprivate var flags: Int16 {
            switch self {
            case .read: Int16(EV_READ | EV_PERSIST)
            case .write: Int16(EV_WRITE)
            case .change: Int16(EV_READ | EV_PERSIST | EV_ET)
            }
        }
    }

    private unowned(unsafe) let loop: EventLoop
    private let check: LoopCheck
    private let interest: Interest
    private var event: UnsafeMutablePointer<event>?
    private let ready: (DescriptorEvent) -> Void

    init(loop: EventLoop, descriptor: Int32, interest: Interest, _ ready: @escaping (DescriptorEvent) -> Void) {
        loop.assertOnLoop()
        self.loop = loop
        check = LoopCheck(loop)
        self.interest = interest
        self.ready = ready
        let this = Unmanaged.passUnretained(self).toOpaque()
        event = event_new(loop.base, descriptor, interest.flags, DescriptorEvent.callBack, this)
        precondition(event != nil, "out of memory")
    }

    deinit {
        check.assertOnLoop()
        if let event { event_free(event) }
    }

    /// Is for another descriptor from now on; to be called while it does not wait.
    func retarget(to descriptor: Int32) {
        check.assertOnLoop()
        let this = Unmanaged.passUnretained(self).toOpaque()
        event_assign(event, loop.base, descriptor, interest.flags, DescriptorEvent.callBack, this)
    }

    /// Starts waiting.
    func start() {
        check.assertOnLoop()
        event_add(event, nil)
    }

    /// Stops waiting. Call it before the descriptor is closed.
    func stop() {
        check.assertOnLoop()
        event_del(event)
    }

    private static let callBack: event_callback_fn = { _, _, context in
        guard let context else { return }
        let this = Unmanaged<DescriptorEvent>.fromOpaque(context).takeUnretainedValue()
        this.ready(this)
    }
}
