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
    }

    private var event: UnsafeMutablePointer<event>?
    private let ready: (DescriptorEvent) -> Void

    init(loop: EventLoop, descriptor: Int32, interest: Interest, _ ready: @escaping (DescriptorEvent) -> Void) {
        self.ready = ready
        let what = interest == .read ? Int16(EV_READ | EV_PERSIST) : Int16(EV_WRITE)
        event = event_new(
            loop.base,
            descriptor,
            what,
            { _, _, context in
                guard let context else { return }
                let this = Unmanaged<DescriptorEvent>.fromOpaque(context).takeUnretainedValue()
                this.ready(this)
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        precondition(event != nil, "out of memory")
    }

    deinit {
        if let event { event_free(event) }
    }

    /// Starts waiting.
    func start() {
        event_add(event, nil)
    }

    /// Stops waiting. Call it before the descriptor is closed.
    func stop() {
        event_del(event)
    }
}
