// One listing of one store, from the question who it is to the question whether it still is the same. Store calls own it until it
// has ended.
//
// A Pushgateway that does not check pushes answers them before it has done them, in their order. So a push of shardd's own goes
// first, and what is listed counts once that push is among it. One that checks pushes has done it when it answers.
import Dispatch
import MovingCore

/// A listing under way; loop-confined.
final class StoreListingCall {
    /// What the store holds, the numbers of its groups of marks and how it is healed, or why that is not known.
    enum End {
        case listed(Listing, numbers: Set<Epoch>, StoreRewrites)
        case failed(String)
    }

    private let loop: EventLoop
    private let ask: StoreQuestions
    private let decoding: DispatchQueue
    private let look: HealingLook?
    private let done: (End) -> Void
    private let deadline: MonotonicTime
    private var start: StartTime?
    /// What must be in the listing; nil where pushes are done when they are answered.
    private var barrier: String?
    private var listing: StoreListing?
    /// How many of the questions that are asked at a time have not been answered.
    private var awaited = 0
    private var watch: Timer?
    private var pause: Timer?
    private var attempts = 0
    private var unanswered = 0
    private var hasPushed = false
    private var isOver = false

    init(
        loop: EventLoop,
        ask: StoreQuestions,
        decoding: DispatchQueue,
        toHeal look: HealingLook?,
        _ done: @escaping (End) -> Void
    ) {
        self.loop = loop
        self.look = look
        self.ask = ask
        self.decoding = decoding
        self.done = done
        deadline = .now().advanced(by: StoreListingCall.limit)
        awaited = 2
        ask.start { [weak self] start in self?.began(start) }
        pushBarrier()
    }

    // MARK: Before

    private func began(_ start: StartTime?) {
        guard let start else { return fail("it does not tell when it was started") }
        self.start = start
        oneAnswered { list() }
    }

    private func pushBarrier() {
        let name = BarrierGroup.newName()
        hasPushed = true
        ask.send(.put, BarrierGroup.path, BarrierGroup.body(name), within: StoreListingCall.barrierLimit) {
            [weak self] end in
            self?.barrierEnded(name, end)
        }
    }

    private func barrierEnded(_ name: String, _ end: StoreRequest.End) {
        switch end {
        // One that has checked a push has done all that was before it, also when it finds the push to be wrong: then 1.11
        // breaks the connection in place of an answer.
        case .answered(let response) where response.status == 200 || response.status == 400: barrier = nil
        case .broken: barrier = nil
        case .answered(let response) where response.status == 202: barrier = name
        case .answered(let response): return fail("it answers a push \(response.status)")
        case .refused(let reason), .late(let reason): return fail(reason)
        }
        oneAnswered { list() }
    }

    /// Goes on when it was the last one.
    private func oneAnswered(_ next: () -> Void) {
        guard !isOver else { return }
        awaited -= 1
        if awaited == 0 { next() }
    }

    // MARK: Listing

    private func list() {
        get("/api/v1/metrics") { [unowned self] end in
            switch end {
            case .answered(let response) where response.status == 200:
                decode(response.pieces, { [look] in StoreListing($0, toHeal: look) }, { [unowned self] in listed($0) })
            case .answered(let response): fail("it answered \(response.status)")
            case .refused(let reason), .broken(let reason), .late(let reason): fail(reason)
            }
        }
    }

    private func listed(_ listing: StoreListing?) {
        guard let listing else { return fail("its answer is not what it should be") }
        if let barrier, !listing.barriers.contains(barrier) { return listAgain() }
        self.listing = listing
        // Of one whose scrape fails it is not known, and what is rewritten goes without.
        if listing.hasHistograms, look == nil { askForNativeHistograms() } else { end() }
    }

    /// It has yet to do what it has answered, or another replica has listed it at the same time.
    private func listAgain() {
        attempts += 1
        guard attempts < StoreListingCall.mostAttempts else { return fail("it does not list what is pushed to it") }
        pause = Timer(loop: loop) { [unowned self] in
            awaited = 1
            pushBarrier()
        }
        pause?.schedule(after: .milliseconds(UInt64(5 * attempts)))
    }

    private func askForNativeHistograms() {
        get("/metrics", accept: NativeHistograms.accept) { [unowned self] end in
            var body: [[UInt8]]?
            if case .answered(let response) = end, response.status < 500 {
                // One that speaks text alone, or serves its metrics elsewhere, does not tell: most have none.
                let type = response.header("Content-Type")
                let isTold = response.status == 200 && type?.hasPrefix(NativeHistograms.contentType) == true
                body = isTold ? response.pieces : []
            }
            let read = { @Sendable [listing, isKnown = body != nil] (body: UnsafeRawBufferPointer) in
                var listing = listing
                listing?.leaveOut(native: isKnown ? NativeHistograms.names(in: body) : nil)
                return listing
            }
            decode(body ?? [], read) { [unowned self] in
                self.listing = $0
                self.end()
            }
        }
    }

    /// Asks for something that may take its time, and sees to it meanwhile that the store is still there.
    private func get(_ target: String, accept: String? = nil, _ then: @escaping (StoreRequest.End) -> Void) {
        let left = deadline.since(.now())
        guard left > .zero else { return fail("it takes too long") }
        startWatch()
        ask.get(target, accept: accept, leavesPieces: true, within: left) { [weak self] end in
            guard let self, !isOver else { return }
            watch = nil
            then(end)
        }
    }

    private func decode(
        _ pieces: [[UInt8]],
        _ read: @escaping @Sendable (UnsafeRawBufferPointer) -> StoreListing?,
        _ then: @escaping (StoreListing?) -> Void
    ) {
        let (this, then) = (WeakLoopBound(self, on: loop.mailbox), LoopBound(then, on: loop))
        decoding.async {
            let body = pieces.reduce(into: []) { $0 += $1 }
            let listing = body.withUnsafeBytes(read)
            this.post { call in
                if !call.isOver { then.value(listing) }
            }
        }
    }

    private func startWatch() {
        unanswered = 0
        watch = Timer(loop: loop) { [unowned self] in
            ask.start { [weak self] start in
                guard let self, let watch, !isOver else { return }
                unanswered = start == nil ? unanswered + 1 : 0
                if unanswered == StoreListingCall.mostUnanswered { return fail("it has stopped answering") }
                watch.schedule(after: StoreListingCall.watchTime)
            }
        }
        watch?.schedule(after: StoreListingCall.watchTime)
    }

    // MARK: After

    private func end() {
        awaited = 2
        removeBarrier { [weak self] in self?.oneAnswered { self?.conclude() } }
        ask.start { [weak self] start in
            guard let self, !isOver else { return }
            guard start == self.start else {
                return fail(start == nil ? "it does not tell when it was started" : "it was started anew meanwhile")
            }
            oneAnswered { conclude() }
        }
    }

    private func conclude() {
        guard let start, let listing else { preconditionFailure("a listing that ends without one") }
        isOver = true
        var whole = Listing(start: start, groups: listing.groups, marks: listing.marks)
        whole.remedies = listing.rewrites.remedies
        done(.listed(whole, numbers: listing.numbers, listing.rewrites))
    }

    private func removeBarrier(_ then: @escaping () -> Void) {
        hasPushed = false
        ask.send(.delete, BarrierGroup.path, [], within: StoreListingCall.barrierLimit) { _ in then() }
    }

    private func fail(_ reason: String) {
        guard !isOver else { return }
        isOver = true
        watch = nil
        if hasPushed { removeBarrier {} }
        done(.failed(reason))
    }

    /// For a store that goes on answering who it is.
    private static let limit = TimeSpan.seconds(60)
    /// A large Pushgateway that checks pushes takes a while for each.
    private static let barrierLimit = TimeSpan.seconds(5)
    private static let mostAttempts = 20
    private static let watchTime = TimeSpan.seconds(1)
    private static let mostUnanswered = 2
}
