// A key of Consul's key-value store, or a folder, watched by blocking queries, so that all replicas know within milliseconds what
// one has stored. DrainFollower and ClaimKeeper have one. https://developer.hashicorp.com/consul/api-docs/features/blocking

/// Tells of the content now, and whenever it changes; loop-confined.
final class KeyValueWatch {
    private let client: ConsulClient
    private let target: String
    private let onFailure: () -> Void
    private let onAnswer: (HTTPOutcome) -> Void
    private var index = ConsulIndex()
    private var call: HTTPCall?
    private var next: Timer?

    /// Watches for as long as it lives.
    ///
    /// - Parameters:
    ///   - target: of the reading, with a query that can be added to.
    ///   - loop: that of the client.
    ///   - onFailure: is called when a query fails; another one follows.
    ///   - onAnswer: is called with each answer, whose status is 200, or 404 where nothing is stored.
    init(
        client: ConsulClient,
        target: String,
        loop: EventLoop,
        onFailure: @escaping () -> Void = {},
        onAnswer: @escaping (HTTPOutcome) -> Void
    ) {
        self.client = client
        self.target = target
        self.onFailure = onFailure
        self.onAnswer = onAnswer
        next = Timer(loop: loop) { [unowned self] in query() }
        query()
    }

    private func query() {
        let target = "\(target)&index=\(index.value)&wait=\(KeyValueWatch.wait)s"
        // Consul adds up to a sixteenth of the wait.
        let timeout = TimeSpan.seconds(Double(KeyValueWatch.wait) * 17 / 16 + 5)
        call = client.call(.get, target, timeout: timeout) { [unowned self] outcome in
            call = nil
            if case .response(let response) = outcome, [200, 404].contains(response.status) {
                _ = index.update(response.header("X-Consul-Index"))
                onAnswer(outcome)
            } else {
                index.restart()
                onFailure()
            }
            // Up to an index of 1 the next query is answered at once.
            next?.schedule(after: index.value > 1 ? KeyValueWatch.pause : KeyValueWatch.retryInterval)
        }
    }

    /// How long a query waits for something to change, in seconds.
    private static let wait = 30
    private static let pause = TimeSpan.milliseconds(10)
    private static let retryInterval = TimeSpan.milliseconds(500)
}
