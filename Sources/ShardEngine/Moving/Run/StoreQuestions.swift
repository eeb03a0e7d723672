// The requests that shardd makes of one store: who it is, what it holds, take this, drop that. Store calls make one for each call,
// and keep the requests that are under way.
import MovingCore

/// Requests to the store at one address; loop-confined.
struct StoreQuestions {
    unowned let calls: StoreCalls
    let address: ShardAddress

    /// Asks when the store's process was started: within a second at most; nil when it does not tell.
    func start(within limit: TimeSpan = startLimit, _ done: @escaping (StartTime?) -> Void) {
        get("/api/v1/status", within: limit) { end in
            guard case .answered(let response) = end, case .process(let text) = StoreFinding(.response(response)),
                let time = nanoseconds(rfc3339: text)
            else { return done(nil) }
            done(StartTime(time))
        }
    }

    func get(
        _ target: String,
        accept: String? = nil,
        leavesPieces: Bool = false,
        within limit: TimeSpan,
        _ done: @escaping (StoreRequest.End) -> Void
    ) {
        var request = request(target, within: limit)
        request.leavesPieces = leavesPieces
        if let accept { request.headers.append(("Accept", accept)) }
        request.bodyLimit = StoreQuestions.listLimit
        calls.make(request, done)
    }

    /// Pushes to a path, or deletes there.
    func send(
        _ method: Method,
        _ path: String,
        _ body: [UInt8],
        contentType: String = FamilyEncoder.contentType,
        within limit: TimeSpan,
        _ done: @escaping (StoreRequest.End) -> Void
    ) {
        var request = request(path, within: limit)
        request.method = method
        request.body = body
        if method != .delete { request.headers.append(("Content-Type", contentType)) }
        calls.make(request, done)
    }

    private func request(_ target: String, within limit: TimeSpan) -> HTTPRequest {
        HTTPRequest(host: address.host, port: address.port, target: target, headers: calls.headers, timeout: limit)
    }

    private static let startLimit = TimeSpan.milliseconds(950)
    /// What a listing may have, in bytes: enough for a million series.
    private static let listLimit = 1 << 29
}
