// Replicas of version 0.1, which know nothing of the register and of its fences: while one is there, nothing may be moved.
// `ConsulRegister` owns one and tells it of every read; the replica with the lock finds out whether they have gone.
//
// Such a replica keeps the rings that it goes by below `rings/`. It writes them when it starts, when they change, and once more for
// each run by another ring of which the lock's value tells: that is how it keeps another replica's run from going on. So the
// replica with the lock tells of such a run every few seconds, and rings that nobody writes again are those of replicas that have
// gone. They are removed, with all else that version 0.1 keeps; from then on nothing more is written.
import FoundationEssentials

/// The replicas of version 0.1 of one tier; loop-confined.
final class OldReplicas {
    /// How often such a replica looks at the lock when all is well for it.
    var interval = TimeSpan.seconds(30)
    private let client: ConsulClient
    private let replica: UInt64
    private let loop: EventLoop
    private let calls: ConsulCalls
    private var timer: Timer?
    private var isTimerSet = false
    /// The rings that are stored, with what a removal has to expect.
    private var rings: [String: UInt64] = [:]
    /// The session of this replica, while it has the lock.
    private var session: String?
    /// When this replica first told of a run after any ring was last written; nil when it has not yet.
    private var unansweredSince: MonotonicTime?

    /// - Parameter replica: the ID of this one.
    init(client: ConsulClient, replica: UInt64, loop: EventLoop) {
        (self.client, self.replica, self.loop) = (client, replica, loop)
        calls = ConsulCalls(client)
        timer = Timer(loop: loop) { [unowned self] in
            isTimerSet = false
            look()
        }
    }

    /// Takes in what was read.
    ///
    /// - Parameters:
    ///   - rings: the keys of all rings, and the index of each.
    ///   - session: that of this replica, if it has the lock.
    func update(_ rings: [String: UInt64], lockedBy session: String?) {
        if rings != self.rings || session != self.session { unansweredSince = nil }
        (self.rings, self.session) = (rings, session)
        guard !rings.isEmpty, session != nil, !isTimerSet else { return }
        isTimerSet = true
        timer?.schedule(after: .zero)
    }

    /// Consul does not answer, or this replica is about to read again: who is silent meanwhile need not have gone.
    func pause() {
        calls.cancel()
        (unansweredSince, session) = (nil, nil)
    }

    private func look() {
        guard let session, !rings.isEmpty else { return }
        isTimerSet = true
        timer?.schedule(after: OldReplicas.askInterval)
        if let unansweredSince, loop.now.since(unansweredSince).seconds >= patience { return forget() }
        let target = client.keyTarget([TierKeys.lockName], "acquire=\(session)")
        calls.call(.put, target, body: LockValue(replica).encoded()) { [unowned self] outcome in
            guard outcome.isTrue, session == self.session else { return }
            unansweredSince = unansweredSince ?? loop.now
        }
    }

    /// In seconds. One that found the lock taken looks at it again after two seconds or its poll interval, but after `interval`
    /// where it had nothing to do, or Consul did not answer it.
    private var patience: Double { interval.seconds + 8 + 2 * client.settings.pollInterval.seconds }

    /// Only rings that nobody has written since they were read.
    private func forget() {
        for folder in OldReplicas.otherFolders {
            calls.call(.delete, client.keyTarget([folder, ""], "recurse=1")) { _ in }
        }
        for (key, index) in rings { calls.call(.delete, client.keyTarget(listed: key, "cas=\(index)")) { _ in } }
    }

    private static let askInterval = TimeSpan.seconds(2)
    /// What version 0.1 keeps beside the rings: requests that absent shards have missed, and what its runs have pushed.
    private static let otherFolders = ["missed", "copying", "versions"]
}

/// What the lock's key has for a value: which replica has the lock, and for replicas of version 0.1 the state of a run by a ring that
/// is none of theirs. Each value has another number of the run, so that each is answered.
struct LockValue: Encodable {
    private var replica: String
    private var run = Int(wallClock())
    private var phase = "copying"
    private var vnodes = 0
    private var startedAt = 0
    private var settledAt = 0
    private var ring: [String] = []
    private var shards: [String] = []
    private var kept: [String] = []
    private var cleared: [String] = []
    private var awayRings: [String] = []
    private var draining: [String] = []
    private var unreached: [String: Int] = [:]

    init(_ replica: UInt64) { self.replica = TierKeys.name(of: replica) }

    /// As it is stored.
    func encoded() -> [UInt8] {
        guard let body = try? JSONEncoder().encode(self) else { preconditionFailure("a document that is no JSON") }
        return Array(body)
    }
}
