// The claims of a tier's replicas in Consul, for one of them: it hears of new ones by a blocking query, and adds its own by
// check-and-set. FamilyLookup owns one where the tier has Consul. Without an answer of Consul's nobody claims anything.
// https://developer.hashicorp.com/consul/api-docs/kv#create-update-key
import FoundationEssentials
import Logging

/// A replica's way to the claims; confined to the session's loop.
final class ClaimKeeper {
    /// What came of claims.
    enum Outcome {
        /// All others hear of them before their own next ones.
        case stored
        /// Others have claimed something in between, which has been told: nothing is stored.
        case overtaken
        /// Consul cannot be asked.
        case failed
    }

    /// Is told what others have claimed, in its order.
    private let onClaims: (ArraySlice<FamilyClaim>) -> Void
    /// Is told when there may have been claims that nobody tells of any more, before what is still told.
    private let onGap: () -> Void
    private let session: HTTPSession
    private let client: ConsulClient
    private let logger: Logger
    /// What has been told, or is this replica's own; nil where some may have been missed.
    private var log: ClaimLog?
    /// Whether there has been no answer and no failure yet.
    private var isNew = true
    /// What the next check-and-set has to expect.
    private var modifyIndex: UInt64 = 0
    /// Consul's, of what was read last.
    private var index: UInt64 = 0
    /// Why claims were last not shared; nil since they last were.
    private var fault: String?
    private var failedAt = MonotonicTime(nanoseconds: 0)
    private var isWriting = false
    private var watch: KeyValueWatch?

    /// Reads the claims and follows them for as long as it lives.
    init(
        session: HTTPSession,
        settings: Configuration.Consul,
        logger: Logger,
        onGap: @escaping () -> Void,
        onClaims: @escaping (ArraySlice<FamilyClaim>) -> Void
    ) {
        self.session = session
        self.logger = logger
        self.onClaims = onClaims
        self.onGap = onGap
        client = ConsulClient(loop: session.loop, resolver: session.resolver, settings: settings)
        read()
        watch = KeyValueWatch(
            client: client,
            target: client.keyTarget(ClaimKeeper.key, ConsulClient.consistentRead),
            loop: session.loop,
            onFailure: { [unowned self] in failed() },
            onAnswer: { [unowned self] in heard($0) }
        )
    }

    /// Adds claims, if no other replica has added any that it has not told of.
    func add(_ claims: [FamilyClaim]) -> Outcome {
        if log == nil, MonotonicTime.now().since(failedAt) > ClaimKeeper.retryTime { read() }
        guard var log else { return .failed }
        log.append(claims)
        let target = client.keyTarget(ClaimKeeper.key, "cas=\(modifyIndex)")
        isWriting = true
        let outcome = session.send(client.request(.put, target, body: log.encoded, timeout: ClaimKeeper.timeout))
        isWriting = false
        if let fault = outcome.fault {
            failed(fault)
            return .failed
        }
        if outcome.isTrue { self.log = log }
        read()
        if self.log == nil { return .failed }
        guard outcome.isTrue else { return .overtaken }
        if fault != nil { logger.info("replicas share the families of pushes again") }
        fault = nil
        return .stored
    }

    private func read() {
        let target = client.keyTarget(ClaimKeeper.key, ConsulClient.consistentRead)
        let outcome = session.send(client.request(.get, target, timeout: ClaimKeeper.timeout))
        guard case .response(let response) = outcome, [200, 404].contains(response.status) else {
            return failed(outcome.fault ?? "it has no answer")
        }
        take(outcome)
    }

    /// The watch tells something. While this replica writes, nothing tells its own claims from others': it reads after that anyway.
    /// And an answer may be from before what was read last.
    private func heard(_ outcome: HTTPOutcome) {
        guard !isWriting, outcome.consulIndex ?? 0 >= index else { return }
        take(outcome)
    }

    private func take(_ outcome: HTTPOutcome) {
        let entry = KeyValueEntry.list(outcome).first
        guard let new = entry.map({ ClaimLog(decoding: Array($0.value)) }) ?? ClaimLog(id: .random(in: 0 ... .max))
        else { return failed("\(ClaimKeeper.key.joined(separator: "/")) is of another version of shardd") }
        index = outcome.consulIndex ?? 0
        modifyIndex = entry?.modifyIndex ?? 0
        // Nobody has claimed anything yet.
        if entry == nil, log?.claims.isEmpty == true { return }
        let news = new.claims(since: log)
        if news == nil, !isNew { onGap() }
        (log, isNew) = (new, false)
        onClaims(news ?? new.claims[...])
    }

    private func failed(_ reason: String = "it does not answer") {
        if fault == nil {
            logger.warning("replicas do not share the families of pushes", metadata: ["reason": "\(reason)"])
        }
        (fault, failedAt) = (reason, .now())
        // It may come back with less than it had.
        (log, isNew, index) = (nil, false, 0)
    }

    private static let key = ["schema", "claims"]
    /// Of a request; a push waits for it.
    private static let timeout = TimeSpan.seconds(1)
    /// After a failure, until Consul is asked again before it answers the watch.
    private static let retryTime = TimeSpan.seconds(5)
}
