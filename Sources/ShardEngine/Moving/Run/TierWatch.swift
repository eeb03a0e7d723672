// A blocking query on all that Consul holds for the tier, so that a replica hears of a change within milliseconds.
// `ConsulRegister` owns one, starts it after each read with which a replica joins, and judges which answers are news.
// https://developer.hashicorp.com/consul/api-docs/features/blocking

/// Watches a tier's keys; loop-confined.
final class TierWatch {
    /// A query begins: the number by which its answer is told.
    var willAsk: () -> Int = { 0 }
    /// Is given each answer, and the number of its query.
    var onAnswer: (HTTPOutcome, Int) -> Void = { _, _ in }
    private let client: ConsulClient
    private var index = ConsulIndex()
    private var call: HTTPCall?
    private var timer: Timer?
    private var isWatching = false

    init(client: ConsulClient, loop: EventLoop) {
        self.client = client
        timer = Timer(loop: loop) { [unowned self] in ask() }
    }

    /// Watches for changes since this answer; goes on if it is watching already.
    func start(after outcome: HTTPOutcome) {
        guard !isWatching else { return }
        isWatching = true
        index = ConsulIndex()
        _ = index.update(outcome.consulIndex.map(String.init))
        ask()
    }

    /// Drops the query that is under way.
    func stop() {
        isWatching = false
        call = nil
        timer?.cancel()
    }

    private func ask() {
        let number = willAsk()
        let target = TierWatch.target(client, "index=\(index.value)", "wait=\(TierWatch.wait)s")
        // Consul adds up to a sixteenth of the wait.
        let timeout = TimeSpan.seconds(Double(TierWatch.wait) * 17 / 16 + 2)
        call = client.call(.get, target, timeout: timeout) { [unowned self] outcome in
            call = nil
            if outcome.consulIndex != nil, outcome.isListing {
                _ = index.update(outcome.consulIndex.map(String.init))
            } else {
                index.restart()
            }
            // Up to an index of 1 the next query is answered at once.
            timer?.schedule(after: index.value > 1 ? TierWatch.pause : TierWatch.retryInterval)
            onAnswer(outcome, number)
        }
    }

    /// Where all keys of the tier are listed.
    static func target(_ client: ConsulClient, _ parameters: String...) -> String {
        let target = client.keyTarget([TierKeys.prefixName], "recurse=1", ConsulClient.consistentRead)
        return ([target] + parameters).joined(separator: "&")
    }

    /// How long a query waits for something to change, in seconds.
    private static let wait = 10
    private static let pause = TimeSpan.milliseconds(10)
    private static let retryInterval = TimeSpan.milliseconds(500)
}

extension HTTPOutcome {
    /// Whether it lists keys; 404: there are none.
    fileprivate var isListing: Bool {
        guard case .response(let response) = self else { return false }
        return response.status == 200 || response.status == 404
    }
}
