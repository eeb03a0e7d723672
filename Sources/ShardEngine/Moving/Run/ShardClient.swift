// The requests that reconciling makes of shards: what do you hold, take this, drop that. Runs own one.

/// Speaks to shards for one run; confined to the thread of its session.
final class ShardClient {
    /// How a shard took a push or a DELETE.
    enum Answer: Equatable {
        /// It has done it: by when, by its own clock, in nanoseconds since 1970, and whether it has checked the push for
        /// consistency first.
        case done(by: Int64, isChecked: Bool)
        /// It has not: the reason, and whether it would be the same another time.
        case refused(String, isForGood: Bool)
        /// It has not answered, and may have done it or not: the reason.
        case failed(String)
    }

    /// Something to do at a shard.
    struct Order {
        var shard: ShardAddress
        var method: Method
        var path: String
        var body: [UInt8] = []
        var contentType = FamilyEncoder.contentType
    }

    private let session: HTTPSession
    private let check: Configuration.Check
    /// Whether orders may still be given.
    let mayGoOn: () -> Bool
    /// Shards that have left an order without an answer.
    private var silent: Set<ShardAddress> = []
    /// Why the latest shard that was asked for its start did not tell it.
    private(set) var fault = ""

    /// - Parameters:
    ///   - check: how shards are asked whether they are there; its headers are those of every request.
    ///   - mayGoOn: whether orders may still be given.
    init(
        session: HTTPSession,
        check: Configuration.Check,
        mayGoOn: @escaping () -> Bool = { true }
    ) {
        self.session = session
        self.check = check
        self.mayGoOn = mayGoOn
    }

    /// Asks a shard for all that it holds.
    func list(
        _ shard: ShardAddress,
        detail: (GroupLabels) -> ShardListing.Detail
    ) -> Result<ShardListing, RunFailure> {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: "/api/v1/metrics",
            headers: check.headers,
            timeout: ShardClient.listTimeout,
            bodyLimit: ShardClient.listLimit
        )
        switch session.send(request, checkedBy: statusRequest(shard)) {
        case .failed(let reason):
            return .failure(RunFailure("shard \(shard) cannot be listed: \(reason)"))
        case .response(let response) where response.status == 200:
            let listing = response.body.withUnsafeBytes { ShardListing($0, detail: detail) }
            return listing.map { .success($0) }
                ?? .failure(RunFailure("shard \(shard) cannot be listed: its answer is not what it should be"))
        case .response(let response):
            return .failure(RunFailure("shard \(shard) cannot be listed: it answered \(response.status)"))
        }
    }

    /// The names of the families that have native histograms; nil when the shard cannot be asked.
    func nativeHistograms(of shard: ShardAddress) -> Set<String>? {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: "/metrics",
            headers: check.headers + [("Accept", NativeHistograms.accept)],
            timeout: ShardClient.listTimeout,
            bodyLimit: ShardClient.listLimit
        )
        guard case .response(let response) = session.send(request, checkedBy: statusRequest(shard)),
            response.status < 500
        else { return nil }
        // One that speaks text alone, or serves its metrics elsewhere, does not tell: most have none, so all would stay for few.
        let isTold = response.header("Content-Type")?.hasPrefix(NativeHistograms.contentType) == true
        guard response.status == 200, isTold else { return [] }
        return response.body.withUnsafeBytes { NativeHistograms.names(in: $0) }
    }

    /// When the shard's process was started, as it tells; nil when it does not, or not in the time of a check: then it may
    /// have hung. Another time is another process, which may have lost what it held.
    func startTime(of shard: ShardAddress) -> String? {
        switch session.send(statusRequest(shard)) {
        case .failed(let reason):
            fault = reason
            return nil
        case .response(let response):
            let time = response.status == 200 ? processStartTime(response.body) : nil
            fault = response.status == 200 ? "it does not tell when it was started" : "it answered \(response.status)"
            return time
        }
    }

    /// Asks who a shard is.
    func statusRequest(_ shard: ShardAddress) -> HTTPRequest {
        HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: "/api/v1/status",
            headers: check.headers,
            timeout: check.timeout
        )
    }

    /// Has shards do things, several at a time; the answers are in the order of the orders. A shard that has left one
    /// without an answer is not given more: each would take its time.
    func carryOut(_ orders: [Order]) -> [Answer] {
        var ends = [Int64](repeating: 0, count: orders.count)
        let outcomes = session.sendAll(
            orders.map(request),
            atOnce: ShardClient.atOnce,
            mayStart: { mayGoOn() && !silent.contains(orders[$0].shard) },
            onEnd: { [unowned self] index, outcome in
                ends[index] = wallClockNanoseconds() + ShardClient.clockMargin
                if case .failed = outcome { silent.insert(orders[index].shard) }
            }
        )
        return orders.indices.map { index in
            if let outcome = outcomes[index] { return answer(outcome, by: ends[index]) }
            let isSilent = silent.contains(orders[index].shard)
            let reason = isSilent ? "it has left another request without an answer" : "the run was broken off"
            return .refused(reason, isForGood: false)
        }
    }

    private func request(_ order: Order) -> HTTPRequest {
        HTTPRequest(
            method: order.method,
            host: order.shard.host,
            port: order.shard.port,
            target: order.path,
            headers: check.headers + (order.body.isEmpty ? [] : [("Content-Type", order.contentType)]),
            body: order.body,
            timeout: ShardClient.orderTimeout
        )
    }

    private func answer(_ outcome: HTTPOutcome, by time: Int64) -> Answer {
        switch outcome {
        case .failed(let reason):
            return .failed(reason)
        case .response(let response) where (200..<300).contains(response.status):
            return .done(by: time, isChecked: response.status == 200)
        case .response(let response):
            let text = String(decoding: response.body.prefix(200), as: UTF8.self)
            return .refused(
                "it answered \(response.status): \(text.replacing("\n", with: " "))",
                isForGood: response.status == 400
            )
        }
    }

    /// What a listing may have, in bytes: enough for a million series.
    private static let listLimit = 1 << 29
    private static let listTimeout = TimeSpan.seconds(60)
    /// With its consistency check on, a large Pushgateway takes tens of milliseconds for each.
    private static let orderTimeout = TimeSpan.seconds(10)
    private static let atOnce = 8
    /// How far a shard's clock may be ahead of this machine's, in nanoseconds.
    private static let clockMargin: Int64 = 250_000_000
}
