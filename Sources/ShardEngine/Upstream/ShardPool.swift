// The connections to one shard and the pushes that wait for one. The forwarder keeps a pool for each shard of the ring
// and for those that have left it but still have pushes to finish. ShardPatience.swift has what a pool does by the clock.
//
// Pushes share the first connection as long as it has room and answers promptly: one connection's send and receive for
// many pushes is what makes forwarding cheap. What may hold up others goes alone: a large body, and a push that was on a
// connection that has come to its end, as it may be the reason.
import DequeModule
import Glibc

/// Connections and queue of one shard; loop-confined.
final class ShardPool {
    /// What is to be expected of the shard.
    enum Standing {
        /// It answers.
        case trusted
        /// Answers are late and none has come since: until it answers a question (see `ask`), it gets no pushes.
        case doubted
    }

    let shard: ShardAddress
    unowned(unsafe) let forwarder: Forwarder
    let metrics = ShardMetrics()
    var standing = Standing.trusted
    /// Why the latest connection could not be made; nil once one stands.
    var fault: String?
    var pace = AnswerPace()
    var lateGroups = LateGroups()
    /// Whether the register names the shard; if not, it is left as soon as what is under way has ended.
    var isInUse = true
    private(set) var pipelines: [Pipeline] = []
    /// Pushes that wait, by what they wait for (`Exchange.Placement`): room on any connection, an empty one, and an empty one
    /// that nobody else needs.
    var waiting = Deque<Exchange>()
    var waitingAlone = Deque<Exchange>()
    var waitingLate = Deque<Exchange>()
    /// Pushes on which connections of their own have broken: the shard is being asked whether it is because of them.
    var accused: [Exchange] = []
    var question: HTTPCall?
    var askedAt = MonotonicTime(nanoseconds: 0)
    /// Whether the last question had no answer.
    var wasSilent = false
    var lastAnswerToQuestion = MonotonicTime(nanoseconds: 0)

    init(shard: ShardAddress, forwarder: Forwarder) {
        self.shard = shard
        self.forwarder = forwarder
    }

    var settings: ForwardSettings { forwarder.settings }
    var loop: EventLoop { forwarder.loop }

    /// Pushes that wait for a connection.
    var waitingCount: Int { waiting.count + waitingAlone.count + waitingLate.count }

    /// Pushes that wait or are on a connection.
    var exchangeCount: Int { pipelines.reduce(waitingCount + accused.count) { $0 + $1.exchanges.count } }

    /// Whether nothing is left to be done for a shard that is off the ring.
    var isFinished: Bool {
        !isInUse && pipelines.isEmpty && waitingCount == 0 && accused.isEmpty && question == nil
    }

    /// All pushes that wait or are on a connection.
    var exchanges: [Exchange] {
        waiting + waitingAlone + waitingLate + accused + pipelines.flatMap(\.exchanges)
    }

    // MARK: What happens to a push

    /// Sends the push, or has it wait for a connection.
    func submit(_ exchange: Exchange) {
        loop.assertOnLoop()
        if !lateGroups.isEmpty, lateGroups.contains(exchange.hash) { exchange.placement = .late }
        if exchange.placement == .shared, waiting.isEmpty, let pipeline = freePipeline() {
            pipeline.add(exchange)
            return
        }
        // Late ones leave half of the queue to others.
        let isFull = exchange.placement == .late && waitingLate.count >= settings.queueLimit / 2
        guard !isFull, waitingCount < settings.queueLimit else { return exchange.fail(.queueFull) }
        enqueue(exchange)
        pump()
    }

    private func enqueue(_ exchange: Exchange) {
        switch exchange.placement {
        case .shared: waiting.append(exchange)
        case .alone, .apart: waitingAlone.append(exchange)
        case .late: waitingLate.append(exchange)
        }
    }

    /// A pipeline has connected.
    func opened(_ pipeline: Pipeline) {
        fault = nil
        pump()
    }

    /// A pipeline's socket takes bytes again.
    func hasRoom(_ pipeline: Pipeline) {
        if waitingCount > 0 { pump() }
    }

    /// A pipeline has passed on an answer to the exchange.
    func answered(_ pipeline: Pipeline, _ exchange: Exchange) {
        if !lateGroups.isEmpty { lateGroups.remove(exchange.hash) }
        forwarder.recycle(exchange)
        if standing == .doubted { standing = .trusted }
        if waitingCount > 0 { pump() }
    }

    /// Pushes of which a pipeline has sent nothing, and is not going to soon.
    func putBack(_ exchanges: Deque<Exchange>, from pipeline: Pipeline) {
        guard !exchanges.isEmpty else { return }
        for exchange in exchanges.reversed() where forwarder.isStillWanted(exchange) {
            if exchange.placement == .shared { waiting.prepend(exchange) } else { waitingAlone.prepend(exchange) }
        }
        pump()
    }

    /// A pipeline could not connect: the reason is an error's number.
    func connectFailed(_ pipeline: Pipeline, _ error: Int32) {
        guard pipeline.state == .connecting else { return }
        _ = pipeline.shut()
        remove(pipeline)
        metrics.connectErrors += 1
        if isLocalShortage(error) {
            for exchange in takeWaiting() { exchange.fail(.noDescriptors) }
        } else if !pipelines.contains(where: { $0.state == .open }) {
            unreachable(String(cString: strerror(error)))
        }
    }

    /// A connection has ended; these exchanges were on it and have no answer. An attempt counts only against the first of
    /// them: the others have waited behind it, and are sent again as if nothing had been, however often that happens.
    func ended(_ pipeline: Pipeline, _ end: Pipeline.End, _ unanswered: Deque<Exchange>) {
        remove(pipeline)
        for exchange in unanswered.dropFirst().reversed() { putBackAlone(exchange, from: pipeline) }
        if let head = unanswered.first { headEnded(head, pipeline, end) }
        // That it ended is news of the shard.
        if case .byShard = end, standing == .doubted { standing = .trusted }
        pump()
    }

    private func headEnded(_ head: Exchange, _ pipeline: Pipeline, _ end: Pipeline.End) {
        guard pipeline.hasSent(head) else { return putBackAlone(head, from: pipeline) }
        switch end {
        case .unasked, .givenUp, .lastAnswer, .unused:
            putBackAlone(head, from: pipeline)
        case .lateHead:
            sendAgain(head, .late)
        case .garbage(let reason):
            // It may be what is left of the answer before.
            if head.streamStart == 0 { head.fail(.garbage(reason)) } else { sendAgain(head, .apart) }
        case .byShard:
            if head.placement == .apart { accuse(head, pipeline) } else { sendAgain(head, .apart) }
        }
    }

    private func sendAgain(_ exchange: Exchange, _ placement: Exchange.Placement) {
        guard forwarder.isStillWanted(exchange) else { return }
        exchange.isSentAgain = true
        exchange.placement = placement
        enqueue(exchange)
    }

    private func putBackAlone(_ exchange: Exchange, from pipeline: Pipeline) {
        guard forwarder.isStillWanted(exchange) else { return }
        if pipeline.hasSent(exchange) { exchange.isSentAgain = true }
        if exchange.placement == .shared { exchange.placement = .alone }
        if exchange.placement == .late { waitingLate.prepend(exchange) } else { waitingAlone.prepend(exchange) }
    }

    /// Two connections have broken with the push as the first of their pushes, on the second it was alone. Either it is the
    /// reason, and no other shard must get it, or the shard is dying, and every push of its own has to go to others.
    private func accuse(_ exchange: Exchange, _ pipeline: Pipeline) {
        if exchange.isAbandoned { return }
        if pipeline.isInAnswer || pace.hasOvertaken(exchange.sentAt) || !settings.failsOver {
            exchange.fail(.brokeConnection)
        } else {
            accused.append(exchange)
            ask()
        }
    }

    /// The shard's name does not resolve, or no connection to it can be made: others take its pushes.
    func unreachable(_ reason: String) {
        fault = reason
        for exchange in takeWaiting() { forwarder.refused(exchange, .unreachable(reason)) }
    }

    private func takeWaiting() -> [Exchange] {
        let all = (Array(waiting) + Array(waitingAlone) + Array(waitingLate) + accused).filter { !$0.isAbandoned }
        waiting.removeAll()
        waitingAlone.removeAll()
        waitingLate.removeAll()
        accused.removeAll()
        return all
    }

    /// Lets go of what nobody waits for.
    func dropAbandoned() {
        waiting.removeAll { $0.isAbandoned }
        waitingAlone.removeAll { $0.isAbandoned }
        waitingLate.removeAll { $0.isAbandoned }
        accused.removeAll { $0.isAbandoned }
    }

    /// Drops the pushes of clients that are gone, as far as the shard has not been sent them.
    ///
    /// - Parameter time: only those that came after it.
    func dropPushesOfGoneClients(since time: MonotonicTime) {
        for queue in [waiting, waitingAlone, waitingLate, Deque(accused)] {
            for exchange in queue where exchange.start >= time { exchange.dropIfClientIsGone() }
        }
        dropAbandoned()
        for pipeline in pipelines where pipeline.state == .open && pipeline.dropUnsentOfGoneClients(since: time) {
            putBack(pipeline.takeBackUnsent(), from: pipeline)
            // What has been sent in part can only be taken back with its connection.
            if pipeline.hasAbandonedInPart { pipeline.end(.givenUp) }
        }
    }

    private func isLocalShortage(_ error: Int32) -> Bool {
        [EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL].contains(error)
    }

    // MARK: Connections

    /// Hands waiting pushes to connections with room, and opens more connections where that is not enough.
    func pump() {
        guard standing != .doubted else { return }
        placeAlone(&waitingAlone, atMost: aloneLimit)
        placeAlone(&waitingLate, atMost: lateLimit)
        while let exchange = waiting.first {
            if exchange.isAbandoned {
                waiting.removeFirst()
            } else if let pipeline = freePipeline() ?? leastBusyPipeline() {
                pipeline.add(waiting.removeFirst())
            } else {
                break
            }
        }
        openMore()
    }

    private func placeAlone(_ queue: inout Deque<Exchange>, atMost limit: Int) {
        while let exchange = queue.first {
            if exchange.isAbandoned {
                queue.removeFirst()
            } else if exclusiveCount < limit, let pipeline = emptyPipeline(isNew: exchange.placement == .apart) {
                pipeline.add(queue.removeFirst())
            } else {
                break
            }
        }
    }

    /// How many connections have an exchange on them that goes alone.
    var exclusiveCount: Int { pipelines.reduce(0) { $0 + ($1.isExclusive ? 1 : 0) } }

    /// How many may, so that there is one for all the others; and how many, at most, for pushes whose answers were late.
    var aloneLimit: Int { max(1, settings.connectionLimit - 1) }
    private var lateLimit: Int { max(1, settings.connectionLimit / 4) }

    private func openMore() {
        var wanted = min(waitingAlone.count, max(0, aloneLimit - exclusiveCount))
        wanted = max(wanted, min(waitingLate.count, max(0, lateLimit - exclusiveCount)))
        if !waiting.isEmpty { wanted += 1 }
        for pipeline in pipelines where pipeline.state == .connecting { wanted -= 1 }
        while wanted > 0, pipelines.count < settings.connectionLimit {
            wanted -= 1
            open()
        }
    }

    private func open() {
        let pipeline = Pipeline(pool: self)
        pipelines.append(pipeline)
        forwarder.resolver.resolve(shard.host, port: shard.port) { [weak self, weak pipeline] resolution in
            guard let self, let pipeline, pipeline.state == .connecting else { return }
            // Failures wait for the end of the turn: the caller may be in the middle of the queue that they change.
            if resolution.failure == nil {
                guard let error = pipeline.connect(to: resolution.addresses) else { return }
                loop.park { self.connectFailed(pipeline, error) }
            } else {
                let reason = "its name does not resolve: \(resolution.failure ?? "no address")"
                loop.park { self.unresolved(pipeline, reason) }
            }
        }
    }

    private func unresolved(_ pipeline: Pipeline, _ reason: String) {
        remove(pipeline)
        metrics.connectErrors += 1
        if !pipelines.contains(where: { $0.state == .open }) { unreachable(reason) }
    }

    private func remove(_ pipeline: Pipeline) {
        pipelines.removeAll { $0 === pipeline }
    }

    /// Closes a connection on which nothing is.
    func closeUnused(_ pipeline: Pipeline) {
        _ = pipeline.shut()
        remove(pipeline)
    }

    /// Ends all connections, and lets go of what waits; the last thing to call.
    func close() {
        loop.assertOnLoop()
        question = nil
        for pipeline in pipelines { _ = pipeline.shut() }
        pipelines.removeAll()
        _ = takeWaiting()
    }

    /// The first connection with room for a push that may share it, and that answers promptly.
    private func freePipeline() -> Pipeline? {
        guard standing != .doubted else { return nil }
        let now = loop.now
        for pipeline in pipelines.dropFirst(isRoomForAloneWanted ? 1 : 0) where pipeline.isShareable {
            if hasRoom(pipeline.exchanges.count), !pipeline.isStalled(at: now) { return pipeline }
        }
        return nil
    }

    /// Whether a connection may have one exchange more than so many: on a slow shard those that would not get their answers
    /// in time wait here, where they can be dropped.
    private func hasRoom(_ count: Int) -> Bool {
        count < settings.pipelineDepth && pace.hasTime(for: count, settings.responseTimeout)
    }

    /// When no more connections may be opened: the one with the fewest pushes on it, though it may be slow.
    private func leastBusyPipeline() -> Pipeline? {
        guard !isRoomForAloneWanted, pipelines.count >= settings.connectionLimit else { return nil }
        let now = loop.now
        return pipelines.filter { pipeline in
            pipeline.isShareable && hasRoom(pipeline.exchanges.count)
                && (pipeline.exchanges.isEmpty || !isLate(pipeline, at: now))
        }.min { $0.exchanges.count < $1.exchanges.count }
    }

    /// Whether what goes alone has to get its turn: the first connection then takes nothing more until it is empty.
    private var isRoomForAloneWanted: Bool {
        !(waitingAlone.isEmpty && waitingLate.isEmpty) && pipelines.count >= settings.connectionLimit
            && exclusiveCount < (waitingAlone.isEmpty ? lateLimit : aloneLimit)
    }

    /// A connection on which nothing is or, if it is to be new, ever has been.
    private func emptyPipeline(isNew: Bool) -> Pipeline? {
        guard isNew else { return pipelines.first { $0.isEmpty } }
        if let pipeline = pipelines.first(where: { $0.isEmpty && $0.isUnused }) { return pipeline }
        let isRoomless = pipelines.count >= settings.connectionLimit
        if isRoomless, !pipelines.contains(where: { $0.state == .connecting }),
            let used = pipelines.first(where: { $0.isEmpty })
        {
            closeUnused(used)
        }
        return nil
    }

}
