// One event_base and the thread that drives it, turn by turn.
// A worker owns its loop; timers, descriptors and the HTTP server register with it. What must happen once all of a
// turn's events have been seen (flushing pipelines, freeing what was parked) hangs on the end of the turn.
import CEvent
import Glibc

/// An event loop, confined to the thread that calls `run()`.
public final class EventLoop {
    let base: OpaquePointer
    /// Where other threads leave work for this loop.
    public let mailbox: LoopMailbox
    private var turnTime: MonotonicTime?
    private var turnEndHooks: [() -> Void] = []
    private var parked: [() -> Void] = []
    private var isStopped = false
    /// Whether the end of the last turn has left something for the next one.
    private var isWorkLeft = false
    private var wakeUp: DescriptorEvent?
    /// How far apart turns begin, at least; zero: as soon as something is ready. To be set on the loop's thread.
    var turnPeriod = TimeSpan.zero {
        didSet {
            assertOnLoop()
            let isPaced = turnPeriod > .zero
            if isPaced != (oldValue > .zero) { shardd_sleep_precisely(isPaced ? 1 : 0) }
        }
    }
    private var lastTurn = MonotonicTime(nanoseconds: 0)
    /// By how much this turn has come, or has taken, longer than it should, where that is much: the process was stopped, or
    /// got no CPU. What was read before may have lost its meaning. A turn that came late knows it from when it first asked for the
    /// time, one that took long at its end.
    private(set) var lateness = TimeSpan.zero
    /// Whether this turn is one that came late.
    var isTurnLate: Bool { lateness > .zero }
    private var lastTurnEnd = MonotonicTime.now()
    private var isWatchingTurns = false

    /// Makes a loop on epoll with its changelist: one epoll_ctl for all the changes that a turn makes to a descriptor.
    public init() {
        guard let config = event_config_new() else { preconditionFailure("out of memory") }
        defer { event_config_free(config) }
        let flags = EVENT_BASE_FLAG_NOLOCK.rawValue | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST.rawValue
        event_config_set_flag(config, Int32(bitPattern: flags))
        guard let base = event_base_new_with_config(config) else { preconditionFailure("no event base") }
        self.base = base
        mailbox = LoopMailbox()
        wakeUp = DescriptorEvent(loop: self, descriptor: mailbox.descriptor, interest: .read) { [mailbox] _ in
            mailbox.runPosted()
        }
        wakeUp?.start()
    }

    deinit {
        assertOnLoop()
        wakeUp = nil
        event_base_free(base)
    }

    /// Traps, in debug builds, on any thread but the one that drives the loop; before one does, any may touch what is the loop's.
    @inline(__always)
    func assertOnLoop(file: StaticString = #fileID, line: UInt = #line) {
        mailbox.assertOnLoop(file: file, line: line)
    }

    /// The calling thread is the loop's for as long as `body` runs, also between turns.
    func drive<Result>(_ body: () -> Result) -> Result {
        mailbox.drive(body)
    }

    /// Runs turns until `stop()`.
    public func run() {
        drive {
            isStopped = false
            while !isStopped { runTurn() }
        }
    }

    /// Waits until something is ready, and handles it; for those who drive the loop themselves.
    func turn() {
        drive { runTurn() }
    }

    private func runTurn() {
        if turnPeriod > .zero { rest() }
        let result = event_base_loop(base, isWorkLeft ? EVLOOP_ONCE | EVLOOP_NONBLOCK : EVLOOP_ONCE)
        precondition(result >= 0, "the event backend failed")
        isWorkLeft = false
        endTurn()
    }

    /// Lets more become ready before the next turn, which then handles all of it.
    private func rest() {
        let passed = MonotonicTime.now().since(lastTurn)
        guard passed < turnPeriod else { return }
        var time = timespec(tv_sec: 0, tv_nsec: Int(turnPeriod.nanoseconds - passed.nanoseconds))
        nanosleep(&time, nil)
    }

    /// Handles what is ready now; to be called from the end of a turn only.
    func poll() {
        assertOnLoop()
        event_base_loop(base, EVLOOP_NONBLOCK)
    }

    /// Begins the next turn without waiting for anything; to be called from the end of a turn.
    func doNotWait() {
        assertOnLoop()
        isWorkLeft = true
    }

    /// Ends `run()` after the present turn.
    public func stop() {
        assertOnLoop()
        isStopped = true
        event_base_loopbreak(base)
    }

    /// The time, read once in a turn and then remembered: cheap, and late by at most what the turn has taken.
    public var now: MonotonicTime {
        assertOnLoop()
        if let turnTime { return turnTime }
        let time = MonotonicTime.now()
        turnTime = time
        if isWatchingTurns { noteLateness(time) }
        return time
    }

    /// Calls `hook` at the end of every turn, for as long as the loop lives; the latest comes first, as it may leave work
    /// to what was there before it.
    func atTurnEnd(_ hook: @escaping () -> Void) {
        assertOnLoop()
        turnEndHooks.insert(hook, at: 0)
    }

    /// Runs `work` once at the end of this turn: for what must not happen inside a callback of libevent's own.
    func park(_ work: @escaping () -> Void) {
        assertOnLoop()
        parked.append(work)
    }

    /// From now on tells late turns. Whoever calls it sees to it that turns follow one another within a tenth of a second, by a
    /// timer that it has anyway: a loop may else rest for as long as nothing happens.
    func watchForLateTurns() {
        assertOnLoop()
        isWatchingTurns = true
        lastTurnEnd = MonotonicTime.now()
    }

    private func noteLateness(_ time: MonotonicTime) {
        let passed = time.since(lastTurnEnd)
        lateness = passed >= EventLoop.lateTurnTime ? passed : .zero
    }

    /// What a busy machine may take is less than this; what a client's patience may take is not much less.
    private static let lateTurnTime = TimeSpan.milliseconds(500)

    private func endTurn() {
        if isWatchingTurns {
            let time = MonotonicTime.now()
            noteLateness(time)
            lastTurnEnd = time
            // The time that the turn has remembered may be of before.
            if isTurnLate { turnTime = time }
        }
        for hook in turnEndHooks { hook() }
        while !parked.isEmpty {
            let works = parked
            parked.removeAll(keepingCapacity: true)
            for work in works { work() }
        }
        if turnPeriod > .zero { lastTurn = now }
        turnTime = nil
    }
}
