// What the mover asks of stores: listings, start times, pushes. Whoever carries out the core's actions owns one, and tells the core
// what it answers; every answer comes in a later turn.
import Dispatch
import MovingCore

/// Calls to stores; loop-confined.
final class StoreCalls {
    private let loop: EventLoop
    private let resolver: Resolver
    /// Of every request to a store.
    var headers: [(name: String, value: String)] = []
    /// The numbers of all groups of marks that the last listing of an address has shown, or that may be there since.
    private(set) var markNumbers: [ShardAddress: Set<Epoch>] = [:]
    /// How an address has to be healed, by the last listing to that end.
    private(set) var rewrites: [ShardAddress: StoreRewrites] = [:]
    private var requests: [Int: StoreRequest] = [:]
    private var listings: [Int: StoreListingCall] = [:]
    private var lastNumber = 0
    /// Tens of megabytes are read of a large store: not on the loop.
    private let decoding = DispatchQueue(label: "shardd.store-calls", attributes: .concurrent)

    init(loop: EventLoop, resolver: Resolver) {
        self.loop = loop
        self.resolver = resolver
    }

    /// All that the store holds, after all that it had answered before; nil and why, when that is not known.
    ///
    /// - Parameter look: how it is found what has to be rewritten, where the store is to be healed.
    func list(
        _ address: ShardAddress,
        toHeal look: HealingLook? = nil,
        _ done: @escaping (Listing?, _ reason: String?) -> Void
    ) {
        lastNumber += 1
        let number = lastNumber
        let ask = StoreQuestions(calls: self, address: address)
        listings[number] = StoreListingCall(loop: loop, ask: ask, decoding: decoding, toHeal: look) {
            [unowned self] end in
            listings[number] = nil
            switch end {
            case .listed(let listing, let numbers, let found):
                markNumbers[address] = numbers
                if look != nil { rewrites[address] = found }
                done(listing, nil)
            case .failed(let reason):
                done(nil, "\(address) cannot be listed: \(reason)")
            }
        }
    }

    /// When the store's process was started, in nanoseconds since 1970: within a second at most, nil when it does not tell.
    func readStart(_ address: ShardAddress, _ done: @escaping (StartTime?) -> Void) {
        StoreQuestions(calls: self, address: address).start(done)
    }

    /// Makes a push, and has it ended within a second: by an answer, or by a reset of its connection.
    func push(_ send: Send, at address: ShardAddress, _ done: @escaping (PushResult, _ reason: String?) -> Void) {
        if let obstacle = send.obstacle { return soon { done(.rejected, obstacle) } }
        switch send.what {
        case .put(let key, let families): push(.put, key.text, families, at: address, done)
        case .post(let key, let families): push(.post, key.text, families, at: address, done)
        case .delete(let key):
            request(.delete, key.text, [], at: address) { [unowned self] in conclude($0, at: address, done) }
        case .mark(let mark, let number):
            request(.post, MarkGroup.path(number), MarkGroup.body(mark), at: address) { [unowned self] in
                conclude($0, at: address, done)
            }
        }
    }

    /// Marks a store as a member of the tier, in place of its marks of before; `done` tells whether that is done.
    func markMember(
        _ identity: StoreIdentity,
        birth: String,
        at address: ShardAddress,
        _ done: @escaping (Bool) -> Void
    ) {
        guard let mark = identity.mark else { preconditionFailure("a member without a mark") }
        let path = StoreMark.memberPath(mark, birth: birth)
        readStart(address) { [unowned self] start in
            guard start == identity.start else { return done(false) }
            request(.put, path, StoreMark.body(mark), at: address) { [unowned self] end in
                guard case .answered(let response) = end, (200..<300).contains(response.status) else {
                    return done(false)
                }
                readStart(address) { [unowned self] start in
                    guard start == identity.start else {
                        // Another process, which has perhaps another store, may have taken it just now.
                        if start != nil { request(.delete, path, [], at: address) { _ in } }
                        return done(false)
                    }
                    for tier in identity.tiers where tier != birth {
                        request(.delete, StoreMark.memberPath(mark, birth: tier), [], at: address) { _ in }
                    }
                    request(.delete, StoreMark.path(mark), [], at: address) { _ in done(true) }
                }
            }
        }
    }

    /// Groups of marks with these numbers may be there, too.
    func expectMarks(_ numbers: Set<Epoch>, at address: ShardAddress) {
        if !numbers.isEmpty { markNumbers[address, default: []].formUnion(numbers) }
    }

    /// Whether there may be groups of marks with smaller numbers.
    func mayHaveMarks(below number: Epoch, at address: ShardAddress) -> Bool {
        markNumbers[address]?.contains { $0 < number } ?? false
    }

    /// Deletes the groups of marks with smaller numbers; what has failed is still known to be there.
    func deleteMarks(
        below number: Epoch,
        at address: ShardAddress,
        _ done: @escaping (PushResult, _ reason: String?) -> Void
    ) {
        guard let next = markNumbers[address]?.filter({ $0 < number }).min() else { return soon { done(.done, nil) } }
        request(.delete, MarkGroup.path(next), [], at: address) { [unowned self] end in
            conclude(end, at: address) { [unowned self] result, reason in
                guard result == .done else { return done(result, reason) }
                markNumbers[address]?.remove(next)
                deleteMarks(below: number, at: address, done)
            }
        }
    }

    /// Makes a request of whatever kind, and keeps it until it has ended.
    func make(_ request: HTTPRequest, _ done: @escaping (StoreRequest.End) -> Void) {
        lastNumber += 1
        let number = lastNumber
        requests[number] = StoreRequest(loop: loop, resolver: resolver, request) { [unowned self] end in
            requests[number] = nil
            done(end)
        }
    }

    // MARK: Pushes

    private func push(
        _ method: Method,
        _ path: String,
        _ families: [Family],
        at address: ShardAddress,
        _ done: @escaping (PushResult, String?) -> Void
    ) {
        let deadline = MonotonicTime.now().advanced(by: StoreCalls.pushLimit)
        request(method, path, GroupState.body(families), at: address) { [unowned self] end in
            // Where pushes are not checked none is refused for what it holds, and this one would be taken.
            guard GroupState.hasFailed(families), case .answered(let response) = end, response.status == 200 else {
                return conclude(end, at: address, done)
            }
            let left = deadline.since(.now())
            guard left > .zero else { return done(.late, "no response in time") }
            StoreQuestions(calls: self, address: address).send(
                .post,
                path,
                GroupState.failingBody,
                contentType: GroupState.failingContentType,
                within: left
            ) { [unowned self] end in
                switch end {
                case .answered(let response) where response.status == 400: done(.done, nil)
                // 1.11 notes the failure, and breaks the connection in place of an answer.
                case .broken: done(.done, nil)
                default: conclude(end, at: address, done)
                }
            }
        }
    }

    private func request(
        _ method: Method,
        _ path: String,
        _ body: [UInt8],
        at address: ShardAddress,
        _ done: @escaping (StoreRequest.End) -> Void
    ) {
        StoreQuestions(calls: self, address: address).send(method, path, body, within: StoreCalls.pushLimit, done)
    }

    private func conclude(
        _ end: StoreRequest.End,
        at address: ShardAddress,
        _ done: @escaping (PushResult, String?) -> Void
    ) {
        switch end {
        case .refused(let reason): done(.refused, reason)
        case .late(let reason): done(.late, reason)
        case .broken(let reason):
            // Pushgateway 1.11 breaks the connection where it should answer that a push is wrong. Its process tells.
            StoreQuestions(calls: self, address: address).start(within: StoreCalls.doubtLimit) {
                done($0 == nil ? .refused : .rejected, reason)
            }
        case .answered(let response) where (200..<300).contains(response.status): done(.done, nil)
        case .answered(let response):
            let text = String(decoding: response.body.prefix(600), as: UTF8.self).replacing("\n", with: " ")
            done(response.status < 500 ? .rejected : .late, "it answered \(response.status): \(text)")
        }
    }

    /// In a later turn: whoever has asked is in the middle of something.
    private func soon(_ work: @escaping () -> Void) {
        LoopBound(work, on: loop).post { $0() }
    }

    /// With the question below, and with what turns may take, within a second.
    private static let pushLimit = TimeSpan.milliseconds(800)
    /// For the question whether a store is there that has broken a connection.
    private static let doubtLimit = TimeSpan.milliseconds(150)
}
