// HTTP requests one after the other, in plain sequence, for work that has a thread and a loop to itself: reconciling.
// It drives its loop while it waits; what else runs there has to bear that.
import Synchronization

/// Makes requests and waits for what comes of them; confined to the thread of its loop.
final class HTTPSession {
    let loop: EventLoop
    let resolver: Resolver
    private let isCancelled = Atomic(false)

    /// - Parameter loop: one that nobody runs.
    init(loop: EventLoop) {
        self.loop = loop
        resolver = Resolver(loop: loop)
    }

    /// Whether everything is to end: requests fail and pauses are over at once.
    var isOver: Bool { isCancelled.load(ordering: .relaxed) }

    /// Ends everything; to be called on the thread of the loop, from its mailbox.
    func cancel() {
        loop.assertOnLoop()
        isCancelled.store(true, ordering: .relaxed)
    }

    /// Makes one request.
    func send(_ request: HTTPRequest) -> HTTPOutcome {
        sendAll([request], atOnce: 1)[0] ?? .failed("shardd is stopping")
    }

    /// Makes one request that may take its time, and gives up once a check, made now and again meanwhile, is not answered.
    func send(_ request: HTTPRequest, checkedBy check: HTTPRequest) -> HTTPOutcome {
        var outcome: HTTPOutcome?
        let call = HTTPCall(loop: loop, resolver: resolver, request) { outcome = $0 }
        while outcome == nil, !isOver {
            pause(check.timeout) { outcome != nil }
            if outcome == nil, case .failed(let reason) = send(check), outcome == nil { return .failed(reason) }
        }
        withExtendedLifetime(call) {}
        return outcome ?? .failed("shardd is stopping")
    }

    /// Makes the requests, so many at a time; the outcomes are in their order.
    ///
    /// - Parameters:
    ///   - mayStart: whether the request at this index may still be made; is asked just before.
    ///   - onEnd: is called as soon as the request at this index has ended.
    /// - Returns: nil for a request that was not made.
    func sendAll(
        _ requests: [HTTPRequest],
        atOnce limit: Int,
        mayStart: (Int) -> Bool = { _ in true },
        onEnd: @escaping (Int, HTTPOutcome) -> Void = { _, _ in }
    ) -> [HTTPOutcome?] {
        loop.assertOnLoop()
        var outcomes = [HTTPOutcome?](repeating: nil, count: requests.count)
        var calls: [Int: HTTPCall] = [:]
        var next = 0
        while !isOver, next < requests.count || !calls.isEmpty {
            while next < requests.count, calls.count < limit {
                let index = next
                next += 1
                guard mayStart(index) else { continue }
                calls[index] = HTTPCall(loop: loop, resolver: resolver, requests[index]) { outcome in
                    outcomes[index] = outcome
                    calls[index] = nil
                    onEnd(index, outcome)
                }
            }
            if !calls.isEmpty { loop.turn() }
        }
        for index in calls.keys { outcomes[index] = .failed("shardd is stopping") }
        return outcomes
    }

    /// Does nothing for so long, or until `isEnough`.
    func pause(_ span: TimeSpan, until isEnough: () -> Bool = { false }) {
        loop.assertOnLoop()
        var isOver = false
        let timer = Timer(loop: loop) { isOver = true }
        timer.schedule(after: span)
        while !isOver, !self.isOver, !isEnough() { loop.turn() }
    }
}
