// Replicas whose session has ended, and when each is no member any more. `ConsulRegister` owns one and tells it of every read;
// it asks Consul why a replica is absent, and removes the note of one that is given up.
//
// A replica that is dead or stopped has an agent that lives while its check fails. It reads before it goes on, so nobody has
// to wait for it. A replica whose agent is gone too is cut off, and may still serve by what it last read: it stays a member
// for `giveUpReplica`. So does one whose node is not in the catalogue: an agent that is shut down leaves it.
import FoundationEssentials
import Logging

/// The absent replicas of one tier; loop-confined.
final class AbsentReplicas {
    /// How long a replica that is cut off stays a member.
    var giveUpReplica = TimeSpan.seconds(600)
    private let client: ConsulClient
    private let keys: TierKeys
    private let loop: EventLoop
    private let logger: Logger
    private let calls: ConsulCalls
    private var timer: Timer?
    private var isTimerSet = false
    private var absences: [UInt64: Absence] = [:]
    private var isRemover = false

    private struct Absence {
        var replica: StoredReplica
        /// When its session was first seen to have ended.
        var since: MonotonicTime
        /// Since when it has been known to be dead or stopped, without a break.
        var deadSince: MonotonicTime?
    }

    init(client: ConsulClient, keys: TierKeys, loop: EventLoop, logger: Logger) {
        self.client = client
        self.keys = keys
        self.loop = loop
        self.logger = logger
        calls = ConsulCalls(client)
        timer = Timer(loop: loop) { [unowned self] in
            isTimerSet = false
            look()
        }
    }

    /// Takes in what was read.
    ///
    /// - Parameters:
    ///   - replicas: the other replicas.
    ///   - isRemover: whether it is for this replica to remove others.
    func update(_ replicas: [StoredReplica], isRemover: Bool) {
        self.isRemover = isRemover
        var absences: [UInt64: Absence] = [:]
        for replica in replicas where !replica.isLive {
            var absence = self.absences[replica.id] ?? Absence(replica: replica, since: loop.now)
            absence.replica = replica
            absences[replica.id] = absence
        }
        self.absences = absences
        guard !absences.isEmpty, !isTimerSet else { return }
        isTimerSet = true
        timer?.schedule(after: .zero)
    }

    /// Consul does not answer, or this replica is about to read again: nothing is known of the others meanwhile.
    func pause() {
        calls.cancel()
        timer?.cancel()
        isTimerSet = false
        for id in absences.keys { absences[id]?.deadSince = nil }
    }

    private func look() {
        guard !absences.isEmpty else { return }
        isTimerSet = true
        timer?.schedule(after: AbsentReplicas.interval)
        guard isRemover else {
            // Another replica has removed them by then, or will tell from its own watching.
            for id in absences.keys { absences[id]?.deadSince = nil }
            return
        }
        for node in Set(absences.values.map(\.replica.note.node)) { ask(node) }
    }

    private func ask(_ node: String) {
        guard !node.isEmpty else { return judge(node, []) }
        let query = client.datacenterQuery
        let target =
            "/v1/health/node/\(client.escaped(node))\(query)\(query.isEmpty ? "?" : "&")\(ConsulClient.consistentRead)"
        calls.call(.get, target) { [unowned self] outcome in
            // An answer that cannot be had tells nothing: whoever is known to be dead has to be seen so again.
            guard let checks: [RegisteredCheck] = decodeDocument(outcome) else { return judge(node, nil) }
            judge(node, checks)
        }
    }

    /// - Parameter checks: all of the node's; nil where Consul does not tell.
    private func judge(_ node: String, _ checks: [RegisteredCheck]?) {
        let isAgentAlive = checks?.contains { $0.id == "serfHealth" && $0.isPassing } == true
        for (id, absence) in absences where absence.replica.note.node == node {
            let service = ReplicaSession.serviceID(TierKeys.name(of: id))
            let passes = checks?.contains { $0.serviceID == service && $0.isPassing } == true
            guard isAgentAlive, !passes else {
                // A check that passes is that of a replica which is about to come back.
                absences[id]?.deadSince = nil
                if checks != nil, !passes, loop.now.since(absence.since) >= giveUpReplica {
                    remove(absence.replica, "it has been cut off for as long as replicas are waited for")
                }
                continue
            }
            guard let deadSince = absence.deadSince else {
                absences[id]?.deadSince = loop.now
                continue
            }
            guard loop.now.since(deadSince) >= AbsentReplicas.deadTime, isRemover else { continue }
            remove(absence.replica, "it is dead or stopped")
        }
    }

    /// Only if nothing has become of the note since it was read: a replica that is back keeps it.
    private func remove(_ replica: StoredReplica, _ reason: String) {
        let name = TierKeys.name(of: replica.id)
        let target = client.keyTarget([TierKeys.registerName, name], "cas=\(replica.modifyIndex)")
        calls.call(.delete, target) { [unowned self] outcome in
            guard outcome.isTrue else { return }
            logger.info("a replica is no member any more", metadata: ["replica": "\(name)", "reason": "\(reason)"])
        }
    }

    private static let interval = TimeSpan.milliseconds(500)
    /// A replica that was cut off, and whose agent is back, joins again within this time.
    private static let deadTime = TimeSpan.milliseconds(2500)
}
