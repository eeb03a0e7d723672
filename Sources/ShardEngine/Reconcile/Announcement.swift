// The time between a ring's announcement and its being in force: until all replicas know of it, and the shards that join
// have been told what they have missed. Handover owns one.

/// The ring that is announced, and the one after it; loop-confined.
final class Announcement {
    /// How an announcement has ended.
    enum Ending {
        /// The ring is to be in force now.
        case inForce
        /// The ring is not to be in force: a shard that was to join has gone again.
        case skipped
    }

    /// Nil when none is announced.
    private(set) var ring: Ring?
    /// What the membership has become meanwhile; nil when it has not changed.
    private(set) var next: Ring?
    /// Which attempt at telling shards is under way; nil before the hold is over.
    private var telling: Int?
    private var tellingCount = 0
    private var timer: Timer?
    private let joining: (Ring) -> [ShardAddress]
    private let tell: ([ShardAddress], _ done: @escaping () -> Void) -> Void
    private let onEnd: (Ring, Ending, _ next: Ring?) -> Void

    /// - Parameters:
    ///   - joining: which of a ring's shards are not on the ring in force.
    ///   - tell: tells shards what they have missed, and calls `done`, now or later, when they have been told, or cannot be.
    ///   - onEnd: is called when nothing is announced any more, with the ring that was and the one that is to come after it.
    init(
        loop: EventLoop,
        joining: @escaping (Ring) -> [ShardAddress],
        tell: @escaping ([ShardAddress], _ done: @escaping () -> Void) -> Void,
        onEnd: @escaping (Ring, Ending, _ next: Ring?) -> Void
    ) {
        self.joining = joining
        self.tell = tell
        self.onEnd = onEnd
        timer = Timer(loop: loop) { [unowned self] in holdIsOver() }
    }

    /// Announces a ring for so long, while none is announced.
    func begin(_ ring: Ring, hold: TimeSpan) {
        self.ring = ring
        timer?.schedule(after: hold)
    }

    /// Another ring is to come after the announced one: others know of that by now, and not of this.
    func follow(by ring: Ring) {
        next = ring
        if telling != nil { skipIfGone() }
    }

    /// The ring has been announced for long enough.
    func holdIsOver() {
        guard let ring else { return }
        tellingCount += 1
        let attempt = tellingCount
        telling = attempt
        tell(joining(ring)) { [weak self] in
            guard self?.telling == attempt else { return }
            self?.end(.inForce)
        }
        if telling == attempt { skipIfGone() }
    }

    /// Where a shard that is to join has gone again, nobody waits until it is told: that takes long if it hangs.
    private func skipIfGone() {
        guard let ring, let next, !joining(ring).allSatisfy(next.shards.contains) else { return }
        end(.skipped)
    }

    private func end(_ ending: Ending) {
        guard let ring else { return }
        let next = self.next
        (self.ring, self.next, telling) = (nil, nil, nil)
        onEnd(ring, ending, next)
    }
}
