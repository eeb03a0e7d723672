// One question to a shard: are you healthy? Static discovery, registration and the prober of suspects ask it.

/// How a probe ended.
enum ProbeOutcome: Equatable {
    case healthy
    /// The reason.
    case failed(String)
}

/// One GET of `check.path` on a shard; letting go of it cancels it.
final class HealthProbe {
    private var call: HTTPCall?

    /// Starts the probe; `done` is called once, later.
    init(
        _ shard: ShardAddress,
        check: Configuration.Check,
        loop: EventLoop,
        resolver: Resolver,
        _ done: @escaping (ProbeOutcome) -> Void
    ) {
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: check.path,
            headers: check.headers,
            timeout: check.timeout
        )
        call = HTTPCall(loop: loop, resolver: resolver, request) { outcome in
            switch outcome {
            case .response(let response) where (200..<300).contains(response.status):
                done(.healthy)
            case .response(let response):
                done(.failed("it answered \(response.status)"))
            case .failed(let reason):
                done(.failed(reason))
            }
        }
    }
}
