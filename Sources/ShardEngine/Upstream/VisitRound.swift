// What a request does at shards other than its owner while these may hold a copy of its group. The forwarder makes a round
// where a handover is under way, or where the owner is passed over; `Exchange.round` is how exchanges know of it.
//
// Before the owner gets the request, the shards that owned the group get it too, all at once: that a copy is written before
// the owner is what lets the reconciler see, by a second look at the copy, whether the owner has changed meanwhile. After
// the owner has done a PUT or DELETE, what others hold is void: they are sent a DELETE, or, where they cannot be reached,
// it is remembered that they have missed one. Then the client gets the owner's answer.

/// One request's round; confined to its worker's loop.
final class VisitRound {
    private let request: Exchange
    private var visits: [Exchange] = []
    private var outstanding = 0
    private var isAfterOwner = false
    /// Shards whose copies are void once the owner has done the request, as indices into the routes' pools.
    private var voided: [Int]
    private var heldAnswer: HeldAnswer?
    private let path: [UInt8]

    private struct HeldAnswer {
        var bytes: [UInt8]
        var response: ParsedResponse
        var chunkedBody: [UInt8]
    }

    /// Copies that are void.
    struct Voided {
        var path: [UInt8]
        var shards: [ShardAddress]
        /// The shard that does the request.
        var doneBy: ShardAddress
    }

    init(of request: Exchange, voided: [Int] = []) {
        self.request = request
        self.voided = voided
        path = request.connection.map { Array(RequestTarget($0.forwardedTarget).path) } ?? []
    }

    // MARK: Before the owner

    /// Makes the visits that come first, and then gives the request to its owner.
    func start(_ places: [(shard: Int, isRemoval: Bool)]) {
        outstanding = places.count + 1
        for (shard, isRemoval) in places { visit(shard, isRemoval: isRemoval) }
        visitEnded()
    }

    private func visit(_ shard: Int, isRemoval: Bool) {
        let pool = request.routes.pools[shard]
        guard pool.isVisitable else { return missed(by: shard) }
        let mayRemove = request.routes.mayRemove(at: shard, by: request.method, besides: request.shard)
        guard !isRemoval || mayRemove else { return visitEnded() }
        let visit = Exchange(visiting: shard, of: request, isRemoval: isRemoval, in: self)
        visits.append(visit)
        pool.submit(visit)
    }

    /// A visit has ended.
    ///
    /// - Parameter status: what the shard answered; nil when it did not.
    func ended(_ visit: Exchange, status: Int?) {
        if status == nil { visit.pool.pauseVisits() }
        // What the shard refuses, its owner may take: then the copy is not what it should be.
        if !isAfterOwner, !visit.isRemoval, let status, status >= 300 { isVoided(by: visit.shard) }
        if status == nil || visit.isRemoval && (status ?? 0) >= 300 { missed(by: visit.shard) } else { visitEnded() }
    }

    private func missed(by shard: Int) {
        if isAfterOwner {
            request.forwarder.missed(request, by: request.routes.pools[shard]) { self.visitEnded() }
        } else {
            isVoided(by: shard)
            visitEnded()
        }
    }

    private func visitEnded() {
        outstanding -= 1
        guard outstanding == 0, !request.isAbandoned else { return }
        visits = []
        if isAfterOwner {
            passOn()
        } else {
            request.restartClock()
            request.forwarder.submitVisited(request)
        }
    }

    /// What the shard holds will be void: it has not got the request.
    func isVoided(by shard: Int) {
        if !voided.contains(shard) { voided.append(shard) }
    }

    // MARK: After the owner

    /// Keeps the owner's answer until what others hold is removed.
    ///
    /// - Returns: whether the answer is kept; otherwise there is nothing to remove.
    func holds(_ bytes: UnsafeRawBufferPointer, _ response: ParsedResponse, _ chunkedBody: UnsafeRawBufferPointer)
        -> Bool
    {
        let shards = request.routes.otherStores(voided, than: request.shard)
        guard !shards.isEmpty, request.method != .post, response.status < 300 else { return false }
        isAfterOwner = true
        outstanding = shards.count + 1
        for shard in shards { visit(shard, isRemoval: true) }
        outstanding -= 1
        guard outstanding > 0 else { return false }
        heldAnswer = HeldAnswer(
            bytes: Array(bytes.prefix(response.consumed)),
            response: response,
            chunkedBody: Array(chunkedBody)
        )
        return true
    }

    private func passOn() {
        guard let answer = heldAnswer else { return }
        answer.bytes.withUnsafeBytes { bytes in
            answer.chunkedBody.withUnsafeBytes { request.passOn(bytes, answer.response, chunkedBody: $0) }
        }
        request.forwarder.recycle(request)
    }

    /// What is void if the owner does the request, or is already, as it has; nil when nothing is.
    var left: Voided? {
        let pools = request.routes.pools
        let shards = request.routes.otherStores(voided, than: request.shard).map { pools[$0].shard }
        if request.method == .post || shards.isEmpty { return nil }
        return Voided(path: path, shards: shards, doneBy: pools[request.shard].shard)
    }

    /// Nobody waits any more: what has not been sent need not be, but what is void is still to go.
    func abandon() {
        for visit in visits { visit.abandon() }
        if isAfterOwner, let left { request.forwarder.missed(left) }
    }
}
