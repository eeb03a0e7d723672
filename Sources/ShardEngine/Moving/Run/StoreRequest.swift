// One request of shardd's own to a store, and what came of it. Store calls and their listings make them; a store that breaks the
// connection without an answer is asked once more on a fresh one, as everything that is asked of stores may be asked twice.

/// A request under way; loop-confined. Letting go of it cancels it.
final class StoreRequest {
    /// What came of it.
    enum End {
        case answered(HTTPResponse)
        /// It has not been taken, as there was no connection: the reason.
        case refused(String)
        /// The connection has been closed without an answer, twice: the reason.
        case broken(String)
        /// It has been sent and not answered in time: the store may have done it, or do it late.
        case late(String)
    }

    private let loop: EventLoop
    private let resolver: Resolver
    private var request: HTTPRequest
    private let deadline: MonotonicTime
    private let done: (End) -> Void
    private var call: HTTPCall?
    private var isRepeated = false

    /// Starts the request; `done` is called once, in a later turn and within the request's timeout.
    init(loop: EventLoop, resolver: Resolver, _ request: HTTPRequest, _ done: @escaping (End) -> Void) {
        self.loop = loop
        self.resolver = resolver
        self.request = request
        self.done = done
        deadline = .now().advanced(by: request.timeout)
        send()
    }

    private func send() {
        call = HTTPCall(loop: loop, resolver: resolver, request) { [unowned self] in ended($0) }
    }

    private func ended(_ outcome: HTTPOutcome) {
        switch outcome {
        case .response(let response): done(.answered(response))
        case .failed(let reason) where call?.hasWaitedInVain == true: done(.late(reason))
        case .failed(let reason):
            request.timeout = deadline.since(.now())
            guard !isRepeated, request.timeout > .zero else {
                return done(call?.isSent == true ? .broken(reason) : .refused(reason))
            }
            isRepeated = true
            send()
        }
    }
}
