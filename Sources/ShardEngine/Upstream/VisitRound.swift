// The visits that a request makes to shards that may hold a copy of its group, before its owner gets it. The forwarder
// starts a round while a handover is under way; its exchanges are told apart by `Exchange.round`.
//
// All visits are made at once; when the last has ended, the request goes to its owner, whose answer the client gets.
// That a copy is written before the owner is what lets the reconciler see, by a second look at the copy, whether the
// owner has changed meanwhile.

/// One request's visits; confined to its worker's loop.
final class VisitRound {
    private let request: Exchange
    private var visits: [Exchange] = []
    private var outstanding = 0

    init(of request: Exchange) {
        self.request = request
    }

    /// Makes the visits; a shard that is suspect is not asked.
    func start(_ places: [(shard: Int, isRemoval: Bool)]) {
        outstanding = places.count + 1
        for (shard, isRemoval) in places {
            let pool = request.routes.pools[shard]
            guard !pool.isSuspect else {
                request.forwarder.missed(request, by: pool)
                ended()
                continue
            }
            let visit = Exchange(visiting: shard, of: request, isRemoval: isRemoval, in: self)
            visits.append(visit)
            pool.submit(visit)
        }
        ended()
    }

    /// A visit has ended.
    ///
    /// - Parameter status: what the shard answered; nil when it did not.
    func ended(_ visit: Exchange, status: Int?) {
        let isDone = status.map { $0 < 300 } ?? false
        if !isDone, visit.isRemoval || status == nil { request.forwarder.missed(request, by: visit.pool) }
        ended()
    }

    private func ended() {
        outstanding -= 1
        if outstanding == 0, !request.isAbandoned { request.forwarder.submit(request) }
    }

    /// Nobody waits any more: what has not been sent need not be.
    func abandon() {
        for visit in visits { visit.abandon() }
    }
}
