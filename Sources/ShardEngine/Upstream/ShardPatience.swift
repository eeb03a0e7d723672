// What a pool does by the clock: pushes that are out of time, answers that are late, connections that are of no more use.
// The forwarder's sweep calls `enforceTimeLimits`. See docs/adr/0013-late-heads.md.
import DequeModule
import Glibc

extension ShardPool {
    /// Gives up what has taken too long, and connections that are of no more use; called every so often.
    func enforceTimeLimits(at now: MonotonicTime) {
        failOverdueInQueues(now)
        lateGroups.sweep(at: now)
        for pipeline in pipelines {
            let unused = now.since(pipeline.lastUse)
            switch pipeline.state {
            case .connecting where unused >= settings.connectTimeout:
                connectFailed(pipeline, ETIMEDOUT)
            case .open where !pipeline.exchanges.isEmpty:
                enforceTimeLimits(of: pipeline, now)
            case .open where !isInUse || unused >= ShardPool.idleTime && pipeline !== pipelines.first:
                closeUnused(pipeline)
            default:
                break
            }
        }
        lookAfterLatePushes(at: now)
    }

    /// Whether an answer has been waited for so long that it may soon be late.
    func hasSlowHead(at now: MonotonicTime) -> Bool {
        pipelines.contains { $0.isStalled(at: now) }
    }

    /// Has what waits behind late answers go elsewhere; called more often than the rest while an answer may be late.
    func lookAfterLatePushes(at now: MonotonicTime) {
        lookForLateHeads(at: now)
        pace.sweep()
        if waitingCount > 0 { pump() }
        makeRoom(at: now)
    }

    /// Answers those of which nothing can be on its way to the shard.
    func failOverdueInQueues(_ now: MonotonicTime) {
        for queue in [waiting, waitingAlone, waitingLate, Deque(accused)] {
            for exchange in queue where isOverdue(exchange, now) { exchange.fail(.timeout) }
        }
        dropAbandoned()
    }

    private func isOverdue(_ exchange: Exchange, _ now: MonotonicTime) -> Bool {
        !exchange.isAbandoned && now >= exchange.deadline
    }

    /// A push whose client has been told that there is no answer must not be done any more if that can be helped: its
    /// connection is given up, and those that are left on it go elsewhere.
    private func enforceTimeLimits(of pipeline: Pipeline, _ now: MonotonicTime) {
        var isAnyOverdue = false
        for exchange in pipeline.exchanges where isOverdue(exchange, now) {
            isAnyOverdue = true
            exchange.fail(.timeout)
        }
        let head = pipeline.exchanges[0]
        let waited = now.since(pipeline.headSince).nanoseconds
        // Nothing of it could be taken back, and what has become of it matters.
        let isAwaited = pipeline.exchanges.count == 1 && head.isAnswerAwaited && pipeline.isAllDelivered
        let limit = settings.responseTimeout.nanoseconds * (isAwaited ? 2 : 1)
        if isAnyOverdue && !isAwaited || head.isAbandoned && waited >= limit { pipeline.end(.givenUp) }
    }

    /// The process was stopped for so long: none of it counts against the shard, or against a push.
    func resume(after stop: TimeSpan) {
        for queue in [waiting, waitingAlone, waitingLate, Deque(accused)] {
            for exchange in queue { exchange.resume(after: stop) }
        }
        for pipeline in pipelines { pipeline.resume(after: stop) }
        pace.resume()
    }

    // MARK: Late answers

    func isLate(_ pipeline: Pipeline, at now: MonotonicTime) -> Bool {
        let since = pipeline.headSince
        let limit = pace.lateTime(settings.responseTimeout, isOvertaken: pace.hasOvertaken(since))
        return now.since(since) >= limit
    }

    /// Where pushes that were sent later have been answered, what waits behind a late answer goes elsewhere. Where none has,
    /// it may be that the shard is at rest as a whole: then nothing is sent to it, and it is asked.
    private func lookForLateHeads(at now: MonotonicTime) {
        var isUnsure = false
        for pipeline in pipelines where pipeline.state == .open && !pipeline.exchanges.isEmpty {
            guard isLate(pipeline, at: now) else { continue }
            if pace.hasOvertaken(pipeline.headSince) { leaveAlone(pipeline) } else { isUnsure = true }
        }
        let pause = pace.lateTime(settings.responseTimeout, isOvertaken: false)
        if isUnsure, standing == .trusted, now.since(lastAnswerToQuestion) >= pause { standing = .doubted }
        if standing == .doubted { ask() }
    }

    /// A late head waits on, but alone.
    private func leaveAlone(_ pipeline: Pipeline) {
        lateGroups.insert(pipeline.exchanges[0].hash, until: loop.now.advanced(by: settings.responseTimeout))
        if pipeline.isSomebodyBehind { pipeline.end(.lateHead) } else { pipeline.takeNoMore() }
    }

    /// Where pushes wait because late ones have the connections, these make room. The first time such a one waits until
    /// nobody else needs the connection, the second time it must be the reason itself.
    private func makeRoom(at now: MonotonicTime) {
        guard standing == .trusted, isStarving(at: now) else { return }
        for pipeline in pipelines where isHeldTooLong(pipeline, at: now) {
            guard let exchange = pipeline.exchanges.first else { continue }
            let isSecondTime = exchange.placement == .late
            if isSecondTime { exchange.fail(.timeout) }
            pipeline.end(isSecondTime ? .givenUp : .lateHead)
        }
    }

    private func isStarving(at now: MonotonicTime) -> Bool {
        if !waitingAlone.isEmpty, exclusiveCount >= aloneLimit { return true }
        return !waiting.isEmpty && pipelines.count >= settings.connectionLimit
            && pipelines.allSatisfy { $0.isExclusive || !$0.exchanges.isEmpty && isLate($0, at: now) }
    }

    private func isHeldTooLong(_ pipeline: Pipeline, at now: MonotonicTime) -> Bool {
        guard pipeline.state == .open, pipeline.isExclusive else { return false }
        guard let exchange = pipeline.exchanges.first else { return false }
        let waited = now.since(pipeline.headSince).nanoseconds
        // The shard may well need that long for a large one.
        if exchange.largeBody != nil { return waited >= settings.responseTimeout.nanoseconds / 2 }
        guard isLate(pipeline, at: now) else { return false }
        return exchange.placement != .late || waited >= settings.responseTimeout.nanoseconds / 8
    }

    // MARK: The question

    /// Asks the shard whether it answers at all, unless it is being asked.
    func ask() {
        guard question == nil else { return }
        askedAt = loop.now
        let request = HTTPRequest(
            host: shard.host,
            port: shard.port,
            target: settings.check.path,
            headers: settings.check.headers,
            timeout: settings.check.timeout
        )
        question = HTTPCall(loop: loop, resolver: forwarder.resolver, request) { [unowned self] outcome in
            let isAnswered = question?.hasReceived == true
            let isSilent = question?.hasWaitedInVain == true
            question = nil
            switch outcome {
            case .response: heardThatItAnswers()
            case .failed where isAnswered: heardThatItAnswers()
            case .failed where isSilent: heardNothing()
            case .failed(let reason): unreachable(reason)
            }
        }
    }

    private func heardThatItAnswers() {
        lastAnswerToQuestion = loop.now
        // It was stopped and has just gone on: what waits for it has its time from now on.
        let hasWoken = wasSilent || loop.now.since(askedAt) >= ShardPool.promptTime
        wasSilent = false
        endAccusations()
        if standing == .doubted { standing = .trusted }
        for pipeline in pipelines where pipeline.state == .open && !pipeline.exchanges.isEmpty {
            guard isLate(pipeline, at: loop.now) else { continue }
            if hasWoken { pipeline.restartHead() } else { leaveAlone(pipeline) }
        }
        pump()
    }

    /// It takes connections and says nothing: it is stopped. What it has been sent keeps its place, and what it has not been
    /// sent waits; it is asked again at the next sweep.
    private func heardNothing() {
        wasSilent = true
        endAccusations()
    }

    private func endAccusations() {
        let ended = accused
        accused.removeAll()
        for exchange in ended { exchange.fail(.brokeConnection) }
    }

    /// A shard that is not stopped answers a question in less.
    private static let promptTime = TimeSpan.milliseconds(50)
    /// How long a connection beyond the first may be unused.
    private static let idleTime = TimeSpan.seconds(30)
}
