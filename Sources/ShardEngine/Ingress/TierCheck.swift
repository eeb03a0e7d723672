// The check of pushes over all shards as if they were one (`pushes.check: full`). A push that clashes with nothing that is known
// is forwarded at once; one that may clash waits for a listing of the shards; one that is refused marks its group, as a push that
// a Pushgateway refuses does. A worker's push handler owns one.

/// The check of one worker's pushes; loop-confined.
final class TierCheck {
    /// What becomes of a push that has been decided.
    enum Outcome {
        case take(TakenPush?)
        case refuse(PushRefusal)
    }

    private let forwarder: Forwarder
    private let known: KnownFamilies
    private let lookup: FamilyLookup.Questions
    private let parser = GroupingKeyParser(key: .group)
    private let key = KeyLabels()

    init(_ forwarder: Forwarder, known: KnownFamilies, lookup: FamilyLookup.Questions) {
        self.forwarder = forwarder
        self.known = known
        self.lookup = lookup
    }

    /// Takes a push of which everything is known, and nothing of it can clash; nil for any other.
    ///
    /// - Parameter families: what it would store, and its key.
    @inline(__always)
    func takeAtOnce(_ families: BodyFamilies) -> CountedPush? {
        known.takeAtOnce(families, at: forwarder.loop.now)
    }

    /// Decides about the outstanding push; `done` is called on the loop, now or later, if the client is still there.
    ///
    /// - Parameter contents: reads what the push would store, with the labels of its key.
    func decide(
        _ connection: InboundConnection,
        hash: UInt32,
        contents: PushContents,
        _ done: @escaping (InboundConnection, Outcome) -> Void
    ) {
        forwarder.loop.assertOnLoop()
        let families: [PushedFamily]
        switch contents {
        case .families(let found): families = found
        case .unreadable: families = []
        case .refused(let refusal): return mark(connection, hash, refusal, done)
        }
        let push = CheckedPush(
            families: families,
            group: group(of: RequestTarget(connection.target).path),
            isPost: connection.method == .post
        )
        // Without a shard there is nothing to decide, and the forwarder has the answer.
        guard forwarder.shard(for: hash) != nil else { return done(connection, .take(nil)) }
        switch known.decide(push, at: forwarder.loop.now) {
        case .take(let taken): done(connection, .take(taken))
        case .refuse(let refusal): mark(connection, hash, refusal, done)
        case .lookUp, .wait, .claim: lookUp(push, connection, hash, done)
        }
    }

    /// What tells the push's group from others.
    private func group(of path: UnsafeRawBufferPointer) -> Int {
        key.removeAll()
        parser.forEachLabel(path: path) { name, value in key.add(name, value) }
        return key.group
    }

    private func lookUp(
        _ push: CheckedPush,
        _ connection: InboundConnection,
        _ hash: UInt32,
        _ done: @escaping (InboundConnection, Outcome) -> Void
    ) {
        let waiting = LoopBound(WaitingPush(connection), on: forwarder.loop)
        let this = WeakLoopBound(self, on: forwarder.loop.mailbox)
        let finish = LoopBound(done, on: forwarder.loop)
        let question = FamilyQuestions.Question(
            push: push,
            deadline: forwarder.loop.now.advanced(by: forwarder.settings.responseTimeout)
        ) { decision in
            this.post { $0.decided(decision, waiting.value, hash, finish.value) }
        }
        // What it would store takes memory that no limit counts once the client is gone.
        waiting.value.onGone = { [lookup, asker = question.asker] in
            asker.leave()
            lookup.forget()
        }
        lookup.ask(question)
    }

    private func decided(
        _ decision: KnownFamilies.Decision,
        _ waiting: WaitingPush,
        _ hash: UInt32,
        _ done: @escaping (InboundConnection, Outcome) -> Void
    ) {
        guard let connection = waiting.giveUp() else { return }
        switch decision {
        case .take(let taken): done(connection, .take(taken))
        case .refuse(let refusal): mark(connection, hash, refusal, done)
        case .lookUp, .wait, .claim: preconditionFailure("a lookup that decides nothing")
        }
    }

    /// Has the shard note that a push of the group was refused: one with a timestamp it refuses itself, whatever its check, and
    /// stores nothing of it.
    private func mark(
        _ connection: InboundConnection,
        _ hash: UInt32,
        _ refusal: PushRefusal,
        _ done: @escaping (InboundConnection, Outcome) -> Void
    ) {
        // While groups move, nobody else may write where they are; and a group with an empty instance is not there yet.
        guard forwarder.routes.isSettled, connection.rewrittenTarget == nil, let shard = forwarder.shard(for: hash)
        else {
            return done(connection, .refuse(refusal))
        }
        let request = HTTPRequest(
            method: .post,
            host: shard.host,
            port: shard.port,
            target: String(decoding: connection.forwardedTarget, as: UTF8.self),
            headers: TierCheck.credentials(connection),
            body: Array("x 1 1\n".utf8),
            timeout: forwarder.settings.responseTimeout
        )
        let waiting = WaitingPush(connection)
        waiting.call = HTTPCall(loop: forwarder.loop, resolver: forwarder.resolver, request) { _ in
            if let connection = waiting.giveUp() { done(connection, .refuse(refusal)) }
        }
    }
}

extension TierCheck {
    /// What the client says of itself to a shard: that takes from it nothing that it would not take without shardd.
    private static func credentials(_ connection: InboundConnection) -> [(String, String)] {
        var found: [(String, String)] = []
        connection.forEachHeader { header in
            guard equalsIgnoringCase(header.name, "authorization") else { return }
            found.append(("Authorization", String(decoding: header.value, as: UTF8.self)))
        }
        return found
    }
}

/// A push that waits to be decided.
private final class WaitingPush: InboundRequestOwner {
    /// The client; nil once it is gone, or waits no more.
    private var connection: InboundConnection?
    var call: HTTPCall?
    /// Is called once the client is gone.
    var onGone: (() -> Void)?

    init(_ connection: InboundConnection) {
        self.connection = connection
        connection.owner = self
    }

    /// Lets go of the client, if it is still there.
    func giveUp() -> InboundConnection? {
        defer { connection = nil }
        (call, onGone) = (nil, nil)
        connection?.owner = nil
        return connection
    }

    func clientDisconnected() {
        connection = nil
        call = nil
        onGone?()
    }
}
