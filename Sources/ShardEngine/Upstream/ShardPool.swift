// The connections to one shard and the pushes that wait for one. The forwarder keeps a pool for each shard of the ring
// and for those that have left it but still have pushes to finish.
//
// Pushes share the first connection as long as it has room and answers promptly: one connection's send and receive for
// many pushes is what makes forwarding cheap. A push with a large body gets a connection of its own.
import DequeModule
import Glibc

/// Connections and queue of one shard; loop-confined.
final class ShardPool {
    /// What a shard is to the rings in use.
    enum Use {
        /// It owns groups.
        case onRing
        /// It owned some, or is about to, and may hold copies.
        case visited
        /// Nothing: it is left as soon as what is under way has ended.
        case none
    }

    let shard: ShardAddress
    unowned(unsafe) let forwarder: Forwarder
    let metrics = ShardMetrics()
    /// Whether it refused a connection and has not answered since.
    private(set) var isSuspect = false
    /// Why the shard is suspect; nil when it is not.
    private(set) var suspicion: String?
    /// What the shard is to the present rings.
    var use = Use.onRing
    private(set) var pipelines: [Pipeline] = []
    private var visitsPausedUntil = MonotonicTime(nanoseconds: 0)
    private var waiting = Deque<Exchange>()
    private var waitingLarge = Deque<Exchange>()

    init(shard: ShardAddress, forwarder: Forwarder) {
        self.shard = shard
        self.forwarder = forwarder
    }

    private var settings: ForwardSettings { forwarder.settings }
    private var loop: EventLoop { forwarder.loop }

    /// Pushes that wait for a connection.
    var waitingCount: Int { waiting.count + waitingLarge.count }

    /// Pushes that wait or are on a connection.
    var exchangeCount: Int { pipelines.reduce(waitingCount) { $0 + $1.exchanges.count } }

    /// Whether a request may visit the shard on its way to its owner: not while it is suspect, or hangs.
    var isVisitable: Bool { !isSuspect && loop.now >= visitsPausedUntil }

    /// A visit has had no answer in time: for a while there are none, so that not every request waits for the shard.
    func pauseVisits() {
        visitsPausedUntil = loop.now.advanced(by: ShardPool.visitPause)
    }

    // MARK: What happens to a push

    /// Sends the push, or has it wait for a connection.
    func submit(_ exchange: Exchange) {
        if exchange.largeBody == nil, waiting.isEmpty, let pipeline = freePipeline() {
            pipeline.add(exchange)
            return
        }
        guard waitingCount < settings.queueLimit else { return exchange.fail(.queueFull) }
        if exchange.largeBody == nil { waiting.append(exchange) } else { waitingLarge.append(exchange) }
        pump()
    }

    /// A pipeline has connected.
    func opened(_ pipeline: Pipeline) {
        pump()
    }

    /// A pipeline has passed on an answer to the exchange.
    func answered(_ pipeline: Pipeline, _ exchange: Exchange) {
        forwarder.recycle(exchange)
        if waitingCount > 0 { pump() }
    }

    /// A pipeline could not connect: the reason is an error's number.
    func connectFailed(_ pipeline: Pipeline, _ error: Int32) {
        _ = pipeline.shut()
        remove(pipeline)
        if isLocalShortage(error) {
            for exchange in takeWaiting() { exchange.fail(.noDescriptors) }
        } else if !pipelines.contains(where: { $0.state == .open }) {
            unreachable(String(cString: strerror(error)))
        }
    }

    /// A connection has ended; the exchanges had no answer on it.
    func broke(_ pipeline: Pipeline, _ exchanges: Deque<Exchange>, isReset: Bool) {
        remove(pipeline)
        // A second connection that is reset before it ever answered: a shard that has died with it in its backlog.
        let neverServed = isReset && pipeline.answerCount == 0 && settings.failsOver
        var isDead = false
        for exchange in exchanges.reversed() where !exchange.isAbandoned {
            if pipeline.hasSent(exchange) {
                if exchange.resends > 0, !neverServed {
                    exchange.fail(.brokeConnection)
                    continue
                }
                if exchange.resends > 0 { isDead = true }
                exchange.resends += 1
            }
            if exchange.largeBody == nil { waiting.prepend(exchange) } else { waitingLarge.prepend(exchange) }
        }
        if isDead { unreachable(String(cString: strerror(ECONNRESET))) } else { pump() }
    }

    /// The shard's name does not resolve, or no connection to it can be made: others take its pushes.
    private func unreachable(_ reason: String) {
        if !isSuspect {
            isSuspect = true
            suspicion = reason
            forwarder.suspected(self, reason)
        }
        for exchange in takeWaiting() { forwarder.failOver(exchange, .unreachable(reason)) }
    }

    /// The shard answers, and knows what it has missed: pushes that it owns come to it again.
    func markUp() {
        guard isSuspect else { return }
        isSuspect = false
        suspicion = nil
        visitsPausedUntil = loop.now
        forwarder.recovered(self)
    }

    // MARK: Connections

    /// Hands waiting pushes to connections with room, and opens more connections where that is not enough.
    private func pump() {
        while let exchange = waitingLarge.first {
            if exchange.isAbandoned {
                waitingLarge.removeFirst()
            } else if let pipeline = idlePipeline() {
                pipeline.add(waitingLarge.removeFirst())
            } else {
                break
            }
        }
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

    private func openMore() {
        var wanted = waitingLarge.count + (waiting.isEmpty ? 0 : 1)
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
        if !pipelines.contains(where: { $0.state == .open }) { unreachable(reason) }
    }

    private func remove(_ pipeline: Pipeline) {
        pipelines.removeAll { $0 === pipeline }
    }

    /// The first connection with room for a small push that answers promptly.
    private func freePipeline() -> Pipeline? {
        // A large body must get its turn even when it can have no connection of its own.
        let isReserved = !waitingLarge.isEmpty && pipelines.count >= settings.connectionLimit
        let now = loop.now
        for pipeline in pipelines.dropFirst(isReserved ? 1 : 0)
        where pipeline.state == .open && !pipeline.isExclusive {
            if pipeline.exchanges.count < settings.pipelineDepth, !pipeline.isStalled(at: now) { return pipeline }
        }
        return nil
    }

    /// When no more connections may be opened: the one with the fewest pushes on it, though it may be slow.
    private func leastBusyPipeline() -> Pipeline? {
        guard waitingLarge.isEmpty, pipelines.count >= settings.connectionLimit else { return nil }
        return pipelines.filter { pipeline in
            pipeline.state == .open && !pipeline.isExclusive && pipeline.exchanges.count < settings.pipelineDepth
        }.min { $0.exchanges.count < $1.exchanges.count }
    }

    private func idlePipeline() -> Pipeline? {
        pipelines.first { $0.state == .open && $0.exchanges.isEmpty }
    }

    private func takeWaiting() -> [Exchange] {
        let all = (Array(waiting) + Array(waitingLarge)).filter { !$0.isAbandoned }
        waiting.removeAll()
        waitingLarge.removeAll()
        return all
    }

    private func isLocalShortage(_ error: Int32) -> Bool {
        [EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL].contains(error)
    }

    // MARK: Time

    /// Gives up what has taken too long, and connections that are of no more use; called every so often.
    func enforceTimeLimits(at now: MonotonicTime) {
        for exchange in waiting where isOverdue(exchange, now) { exchange.fail(.timeout) }
        for exchange in waitingLarge where isOverdue(exchange, now) { exchange.fail(.timeout) }
        waiting.removeAll { $0.isAbandoned }
        waitingLarge.removeAll { $0.isAbandoned }
        for pipeline in pipelines {
            let unused = now.since(pipeline.lastUse)
            switch pipeline.state {
            case .connecting where unused >= settings.connectTimeout:
                connectFailed(pipeline, ETIMEDOUT)
            case .open where !pipeline.exchanges.isEmpty:
                enforceTimeLimits(of: pipeline, now)
            case .open where use == .none || unused >= ShardPool.idleTime && pipeline !== pipelines.first:
                _ = pipeline.shut()
                remove(pipeline)
            default:
                break
            }
        }
    }

    /// Late answers are still waited for, so that what is behind them keeps its place and need not be sent again; but a
    /// connection on which all are as late as that again is dead.
    private func enforceTimeLimits(of pipeline: Pipeline, _ now: MonotonicTime) {
        for exchange in pipeline.exchanges where isOverdue(exchange, now) { exchange.fail(.timeout) }
        let isDead = pipeline.exchanges.allSatisfy { exchange in
            exchange.isAbandoned && now.since(exchange.sentAt).nanoseconds >= 2 * settings.responseTimeout.nanoseconds
        }
        guard isDead else { return }
        _ = pipeline.shut()
        remove(pipeline)
        pump()
    }

    private func isOverdue(_ exchange: Exchange, _ now: MonotonicTime) -> Bool {
        !exchange.isAbandoned && now >= exchange.deadline
    }

    /// Whether nothing is left to be done for a shard that is off the ring.
    var isFinished: Bool { use == .none && pipelines.isEmpty && waitingCount == 0 }

    private static let visitPause = TimeSpan.seconds(5)
    /// How long a connection beyond the first may be unused.
    private static let idleTime = TimeSpan.seconds(30)
}
