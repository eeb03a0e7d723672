// Requests to the Consul agent that end with their owner. `ReplicaSession`, `AbsentReplicas` and `ConsulRegister` each own
// some, and drop those whose answers they do not want any more.
import FoundationEssentials

/// Calls under way; loop-confined.
final class ConsulCalls {
    private let client: ConsulClient
    private var calls: [Int: HTTPCall] = [:]
    private var lastCall = 0

    init(_ client: ConsulClient) { self.client = client }

    /// Makes a request. `done` is not called once the calls have been cancelled.
    func call(
        _ method: Method,
        _ target: String,
        body: [UInt8] = [],
        timeout: TimeSpan = .seconds(1),
        _ done: @escaping (HTTPOutcome) -> Void
    ) {
        lastCall += 1
        let number = lastCall
        calls[number] = client.call(method, target, body: body, timeout: timeout) { [unowned self] outcome in
            calls[number] = nil
            done(outcome)
        }
    }

    /// Drops all calls. Consul may still carry out what has been sent.
    func cancel() { calls = [:] }
}

extension HTTPOutcome {
    /// Why Consul has not done what it was asked for; nil when it has.
    var fault: String? {
        switch self {
        case .failed(let reason): return reason
        case .response(let response) where response.status == 200: return nil
        case .response(let response):
            let text = String(decoding: response.body.prefix(200), as: UTF8.self).split(separator: "\n").first ?? ""
            return "it answered \(response.status)" + (text.isEmpty ? "" : ": \(text)")
        }
    }

    /// Whether Consul answers `true`, as it does to a write whose condition holds.
    var isTrue: Bool {
        guard case .response(let response) = self, response.status == 200 else { return false }
        return String(decoding: response.body.prefix(4), as: UTF8.self) == "true"
    }
}
