// POSTs with an empty instance while their shard has yet to be searched for groups of the old form, which have that instance
// in their key. A POST adds to a group, so what the old form holds has to be moved to the plain form before it, and
// `EmptyInstances` does that soon after a shard has started. PUTs and DELETEs need not wait. A worker's push handler owns this.

/// The pushes of one worker that wait for a shard to be searched; loop-confined.
final class HeldPushes {
    private let forwarder: Forwarder
    private var pendingShards: Set<ShardAddress> = []
    private var held: [HeldPush] = []
    private var timer: Timer?

    init(forwarder: Forwarder) {
        self.forwarder = forwarder
    }

    /// Forwards a push, at once unless its shard has yet to be searched.
    func forward(_ connection: InboundConnection, hash: UInt32, _ taken: TakenPush?) {
        forwarder.loop.assertOnLoop()
        if isReady(hash) { return forwarder.forward(connection, hash: hash, taken) }
        let deadline = forwarder.loop.now.advanced(by: forwarder.settings.responseTimeout)
        let push = HeldPush(connection, hash: hash, taken, deadline: deadline)
        connection.owner = push
        held.append(push)
        if held.count == 1 { schedule() }
    }

    /// These shards, and no others, have yet to be searched.
    func hold(for shards: Set<ShardAddress>) {
        forwarder.loop.assertOnLoop()
        pendingShards = shards
        let ready = held.filter { $0.connection == nil || isReady($0.hash) }
        held.removeAll { push in ready.contains { $0 === push } }
        for push in ready {
            if let connection = push.connection { forwarder.forward(connection, hash: push.hash, push.taken) }
        }
    }

    /// Without any shard the forwarder has the answer.
    private func isReady(_ hash: UInt32) -> Bool {
        forwarder.shard(for: hash).map { !pendingShards.contains($0) } ?? true
    }

    private func schedule() {
        if timer == nil { timer = Timer(loop: forwarder.loop) { [unowned self] in enforceTimeLimit() } }
        timer?.schedule(after: HeldPushes.interval)
    }

    private func enforceTimeLimit() {
        let now = forwarder.loop.now
        let late = held.filter { now >= $0.deadline }
        held.removeAll { $0.connection == nil || now >= $0.deadline }
        for push in late {
            guard let connection = push.connection else { continue }
            let shard = forwarder.shard(for: push.hash).map { "shard \($0)" } ?? "its shard"
            forwarder.metrics.countAnswer(.post, 503, forwarder.settings.responseTimeout)
            connection.reply(
                status: 503,
                headers: [ReplyHeader(name: "Retry-After", value: "1")],
                line: "\(shard) has not yet been searched for groups with an empty instance"
            )
        }
        if !held.isEmpty { schedule() }
    }

    private static let interval = TimeSpan.milliseconds(100)
}

/// One push that waits.
private final class HeldPush: InboundRequestOwner {
    /// The client; nil once it is gone.
    private(set) var connection: InboundConnection?
    let hash: UInt32
    let taken: TakenPush?
    let deadline: MonotonicTime

    init(_ connection: InboundConnection, hash: UInt32, _ taken: TakenPush?, deadline: MonotonicTime) {
        self.connection = connection
        self.hash = hash
        self.taken = taken
        self.deadline = deadline
    }

    func clientDisconnected() {
        connection = nil
    }
}
