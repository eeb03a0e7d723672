// Reconciles groups with the ring in the background: some time after the ring has changed, and every so often. It has a
// thread and a loop of its own, so that no push waits for it. The server owns it, tells it the rings, and hears from it
// how far runs have come, this replica's and others'.
import Logging

/// The background reconciling of one process; its methods are for the server's loop.
final class Reconciler {
    private let session: LoopBound<HTTPSession>
    private let work: LoopBound<ReconcilerWork>
    private let home: LoopMailbox
    private var thread: LoopThread?

    /// - Parameters:
    ///   - onState: is called on the loop of `home` with how far the latest run has come.
    ///   - onMetrics: is called on the loop of `home` after each run.
    init(
        home: LoopMailbox,
        logger: Logger,
        onState: @escaping (RunState) -> Void,
        onMetrics: @escaping (ReconcileMetrics) -> Void
    ) {
        self.home = home
        let loop = EventLoop()
        let session = HTTPSession(loop: loop)
        let (onState, onMetrics) = (LoopBound(onState, on: home), LoopBound(onMetrics, on: home))
        let work = ReconcilerWork(
            session: session,
            logger: logger,
            onState: { state in onState.post { $0(state) } },
            onMetrics: { metrics in onMetrics.post { $0(metrics) } }
        )
        self.session = LoopBound(session, on: loop)
        self.work = LoopBound(work, on: loop)
    }

    /// Begins.
    func start() {
        home.assertOnLoop()
        let work = self.work
        thread = LoopThread(session.value.loop) { work.value.run() }
    }

    /// Goes by other rings, or another configuration, from now on.
    func update(_ input: ReconcilerInput) {
        home.assertOnLoop()
        work.post { $0.update(input) }
    }

    /// Breaks off what is under way and ends the thread.
    func stop() {
        home.assertOnLoop()
        session.post { $0.cancel() }
        thread?.join()
        thread = nil
    }
}

/// What reconciling goes by.
struct ReconcilerInput: Sendable {
    var configuration: Configuration
    var rings: RingSet
    /// Whether nothing is known to be left to be moved.
    var isSettled: Bool
    /// Shards that have yet to be told what they have missed.
    var untold: Set<ShardAddress>
    var absences: Absences
}

/// What happens on the reconciler's thread.
private final class ReconcilerWork {
    private let session: HTTPSession
    private let logger: Logger
    private let onState: (RunState) -> Void
    private let onMetrics: (ReconcileMetrics) -> Void
    private var input: ReconcilerInput?
    private var hasNewInput = false
    private var runs: RunProtocol?
    private var consul: Configuration.Consul?
    private var metrics = ReconcileMetrics()
    private var nextRun = MonotonicTime.now()
    /// Whether the rings have changed in the midst of a step: the run under way goes by what was, and the next one has to
    /// wait for that to settle.
    private var isRescheduled = false
    private var trouble = Trouble.none

    /// What has been logged of runs that did not succeed.
    private enum Trouble {
        case none
        case waiting(since: MonotonicTime)
        case warned([String])
    }

    init(
        session: HTTPSession,
        logger: Logger,
        onState: @escaping (RunState) -> Void,
        onMetrics: @escaping (ReconcileMetrics) -> Void
    ) {
        self.session = session
        self.logger = logger
        self.onState = onState
        self.onMetrics = onMetrics
    }

    func update(_ new: ReconcilerInput) {
        let old = input
        input = new
        hasNewInput = true
        if runs == nil || new.configuration.consul != consul {
            consul = new.configuration.consul
            let lock = consul.map { ConsulLock(session: session, settings: $0) }
            runs = RunProtocol(session: session, lock: lock, onState: onState)
        }
        let settle = max(new.configuration.reconcile.settle, new.configuration.hold)
        if old?.rings.changeCount != new.rings.changeCount {
            nextRun = MonotonicTime.now().advanced(by: settle)
            isRescheduled = true
        }
    }

    func run() {
        while !session.isOver {
            session.pause(pause) { hasNewInput }
            hasNewInput = false
            guard !session.isOver, let input, input.configuration.movesGroups else { continue }
            step(input)
        }
    }

    private var pause: TimeSpan {
        guard let input, input.configuration.movesGroups else { return .seconds(3600) }
        if let interval = input.configuration.consul?.pollInterval { return interval }
        if !input.isSettled { return .milliseconds(200) }
        let now = MonotonicTime.now()
        return nextRun > now ? nextRun.since(now) : .milliseconds(10)
    }

    private func step(_ input: ReconcilerInput) {
        isRescheduled = false
        let interval = input.configuration.reconcile.interval
        var latest = RunState()
        // A shard that is away may be drained where it is, which its own rings have to hear of.
        let isWatched = !input.isSettled || !input.rings.others.isEmpty
        guard isWatched || MonotonicTime.now() >= nextRun else { return }
        switch runs?.latestState() {
        case .success(let state): latest = state
        case .failure(let failure) where MonotonicTime.now() >= nextRun:
            return end(.failed, problems: [failure.reason], next: interval)
        default: return
        }
        guard MonotonicTime.now() >= nextRun, !input.rings.ring.isEmpty else { return }
        let age = TimeSpan.seconds(max(0, wallClock() - latest.settledAt))
        if input.isSettled, input.configuration.consul != nil, latest.phase == .settled, age < interval {
            // Another replica has just done it.
            if latest.kept.isEmpty {
                metrics.lastSuccess = max(metrics.lastSuccess ?? 0, latest.settledAt)
                metrics.duplicates = 0
            }
            return end(.skipped, next: interval)
        }
        perform(input, latest)
    }

    private func perform(_ input: ReconcilerInput, _ latest: RunState) {
        let interval = input.configuration.reconcile.interval
        let ring = input.rings.ring
        let known = input.rings.others.flatMap { StoredRing($0).holding } + latest.settledShards + latest.awayShards
        let others = Set(known + input.configuration.servers).subtracting(ring.shards).sorted()
        let order = RunProtocol.Order(
            ring: ring,
            others: others,
            otherRings: input.rings.others.map { StoredRing($0) },
            isDue: !input.isSettled,
            hold: input.configuration.hold,
            groupsPerSecond: input.configuration.reconcile.groupsPerSecond,
            check: input.configuration.check,
            untold: { [unowned self] in self.input?.untold ?? [] },
            isOutdated: { [unowned self] in isRescheduled },
            absences: { [unowned self] in self.input?.absences.times(of: $0) ?? [] }
        )
        switch runs?.perform(order) {
        case .ended(let outcome):
            metrics.moved += UInt64(outcome.moved)
            metrics.deleted += UInt64(outcome.deleted)
            metrics.duplicates = outcome.duplicates ?? metrics.duplicates
            (metrics.groups, metrics.unmarked) = (outcome.groups, outcome.unmarked)
            if outcome.moved + outcome.deleted > 0 {
                logger.info(
                    "groups have been moved to their owners",
                    metadata: ["moved": "\(outcome.moved)", "copies_deleted": "\(outcome.deleted)"]
                )
            }
            // Where all is settled but for groups that cannot be moved, another run would find the same.
            let isDone = outcome.problems.isEmpty || outcome.isSettled
            end(
                outcome.problems.isEmpty ? .success : .partial,
                problems: outcome.problems,
                passes: !outcome.needsSomebody,
                next: isDone ? interval : min(interval, .seconds(5))
            )
        case .failed(let reason):
            end(.failed, problems: [reason], next: interval)
        case .taken, nil:
            end(.skipped, next: min(interval, .seconds(2)))
        }
    }

    /// - Parameter passes: whether the problems can be expected to pass with nobody's help.
    private func end(_ result: RunResult, problems: [String] = [], passes: Bool = false, next: TimeSpan) {
        metrics.runs[result, default: 0] += 1
        if result == .success { metrics.lastSuccess = wallClock() }
        onMetrics(metrics)
        if !isRescheduled { nextRun = MonotonicTime.now().advanced(by: next) }
        if result != .skipped { log(problems, passes) }
    }

    /// Logs changes: once at info that a run has to wait for something that passes, such as a shard that has just returned; at
    /// warn what does not pass, or has not for long.
    private func log(_ problems: [String], _ passes: Bool) {
        let metadata: Logger.Metadata = ["reason": "\(problems.joined(separator: "; "))"]
        guard !problems.isEmpty else {
            if case .warned = trouble { logger.info("groups can be reconciled again") }
            trouble = .none
            return
        }
        switch trouble {
        case .none where passes:
            logger.info("groups wait to be reconciled", metadata: metadata)
            trouble = .waiting(since: .now())
        case .waiting(let since) where passes && MonotonicTime.now().since(since) < ReconcilerWork.patience: break
        case .warned(let last) where last == problems: break
        default:
            logger.warning("groups cannot all be reconciled", metadata: metadata)
            trouble = .warned(problems)
        }
    }

    /// For what should pass.
    private static let patience = TimeSpan.seconds(60)
}
