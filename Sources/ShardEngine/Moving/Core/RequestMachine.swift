// One PUT, POST or DELETE while the register is not settled: which store gets it, when it waits, when it is made again,
// and when its client may be answered (rules A1, A3 and A4).
//
// The shell makes one for each such request, carries out what it returns, and calls `resume` again at every change of the
// view or of the peers' notes while it waits. Deadlines are the shell's: it drops the machine and answers the client. It
// does not drop the machine because the client is gone, once the push has been sent.

/// What a shard made of a push.
package enum PushResult: Equatable, Sendable {
    /// It answered, and took the push (2xx).
    case done
    /// It answered that the push is wrong.
    case rejected
    /// It did not take the connection, or broke it without an answer, also when tried again.
    case refused
    /// It did not answer in time.
    case late
}

/// In which form a push is sent.
package enum PushForm: Equatable, Sendable {
    case plain
    /// With its mark pipelined behind it: the store has answered when it has answered both.
    case marked(Epoch)
    /// A PUT, as the POST of the same body: a store that would refuse it says so, and nothing is removed yet.
    case tried
}

/// What the shell does for a request.
package enum RequestAction: Equatable, Sendable {
    /// Nothing until the view or the peers' notes change.
    case wait(WaitReason)
    /// Send the push to the store.
    case send(to: StoreID, PushForm)
    /// Have the store failed over, and then wait.
    case failOver(StoreID)
    /// Have the backup dropped in the register, and then wait.
    case dropBackup(Slot)
    /// Give the client the authoritative store's answer.
    case answer
    /// Answer 504; have the store that did not answer failed over: it may do it late.
    case giveUp(StoreID?)
}

/// Why a request waits.
package enum WaitReason: Equatable, Sendable {
    /// The slot is being copied, or its overlap ends.
    case fence
    /// The stand-in has not been cleaned; or there is none before stores have been adopted.
    case unclean
    /// A replica does not follow the change yet.
    case notFollowed
    /// Every store that may have the slot has failed.
    case noStore
}

/// One request's way.
package struct RequestMachine: Sendable {
    private let id: Int
    private let hash: UInt32
    private let method: Method
    private var state = State.waiting

    /// What a push does with the group.
    package enum Method: Sendable {
        /// Adds families.
        case post
        /// Removes what it does not have; a mark has to say so to predecessors. A store may refuse it.
        case put
        /// Removes everything; a mark has to say so to predecessors. No store refuses it.
        case delete
    }

    private enum State {
        /// Has been sent nowhere, or has to be made again.
        case waiting
        /// The authoritative store has it as a POST. A mark cannot be taken back, so none is left for a push that is refused.
        case tried(Plan, Epoch)
        /// The authoritative store has it.
        case atOwner(Plan)
        /// The authoritative store has taken it, and the backup has it.
        case atBackup(StoreID, Plan)
        /// The client may be answered.
        case ended
    }

    /// By what the request was sent.
    private struct Plan {
        var own: StoreID
        var changed: Epoch
        var markScope: Epoch?

        var form: PushForm { markScope.map { .marked($0) } ?? .plain }
    }

    /// Whether the authoritative store has taken the request, and the backup has it now.
    package var isAtBackup: Bool { if case .atBackup = state { true } else { false } }

    /// - Parameter id: unlike that of any other request of the replica.
    package init(id: Int, hash: UInt32, _ method: Method) {
        (self.id, self.hash, self.method) = (id, hash, method)
    }

    /// Takes over a request that a store has got while the register was settled, before another register is followed.
    ///
    /// - Parameter isByFormer: whether it was sent by a register that has nothing to do with the one that is followed.
    package init(
        id: Int,
        hash: UInt32,
        _ method: Method,
        sentTo store: StoreID,
        byFormer isByFormer: Bool = false,
        _ following: Following
    ) {
        self.init(id: id, hash: hash, method)
        following.began(id, hash: hash, store: store, byFormer: isByFormer)
        state = .atOwner(Plan(own: store, changed: 0, markScope: nil))
    }

    /// Begins, or goes on after waiting.
    package mutating func resume(_ following: Following) -> RequestAction {
        guard case .waiting = state else { preconditionFailure("resume a request in \(state)") }
        let slot = following.rings.slot(of: hash)
        let entry = following.view.entry(slot)
        if entry.step.isFence { return .wait(.fence) }
        if entry.step == .unclean { return .wait(.unclean) }
        if following.hasConsul, !following.isFollowed(slot.range, since: entry.changed, by: .live) {
            return .wait(.notFollowed)
        }
        if following.view.isDown(entry.own) {
            let isAwaited = following.view.adopting.contains { !following.view.isDown($0.store) }
            return .wait(isAwaited ? .unclean : .noStore)
        }
        let scope = method == .post ? nil : following.view.markScope(entry)
        following.began(id, hash: hash, store: entry.own)
        let plan = Plan(own: entry.own, changed: entry.changed, markScope: scope)
        if method == .put, let scope {
            state = .tried(plan, scope)
            return .send(to: plan.own, .tried)
        }
        state = .atOwner(plan)
        return .send(to: plan.own, plan.form)
    }

    /// The store that has the request has answered, or has not.
    package mutating func ended(_ result: PushResult, _ following: Following) -> RequestAction {
        switch state {
        case .tried(let plan, _), .atOwner(let plan): ownerEnded(result, plan, following)
        case .atBackup(let backup, let plan): backupEnded(result, backup, plan, following)
        case .waiting, .ended: preconditionFailure("an answer for a request in \(state)")
        }
    }

    private mutating func ownerEnded(_ result: PushResult, _ plan: Plan, _ following: Following) -> RequestAction {
        let isCurrent = isCurrent(plan, following)
        if result == .late {
            end(following)
            return .giveUp(following.view.isInUse(plan.own) ? plan.own : nil)
        }
        guard isCurrent else { return again(following) }
        if result == .refused { return again(following, .failOver(plan.own)) }
        if case .tried(_, let scope) = state, result == .done {
            state = .atOwner(plan)
            return .send(to: plan.own, .marked(scope))
        }
        // The backup by what is known now. Where a fence has been put up to wipe it, the mover waits for this request, and
        // the copy must not be older meanwhile.
        switch following.view.entry(following.rings.slot(of: hash)).step {
        case .overlapping(let backup, _) where result == .done, .ending(let backup, _) where result == .done:
            following.began(id, hash: hash, store: backup)
            state = .atBackup(backup, plan)
            return .send(to: backup, plan.form)
        case .settled, .unclean, .announced, .copying, .overlapping, .ending, .wiping, .ailing, .healing:
            end(following)
            return .answer
        }
    }

    private mutating func backupEnded(
        _ result: PushResult,
        _ backup: StoreID,
        _ plan: Plan,
        _ following: Following
    ) -> RequestAction {
        let slot = following.rings.slot(of: hash)
        let isBackup = following.view.entry(slot).step.backup == backup
        // It may do it yet, when it has been wiped of what it has no part in: so also if it is the backup no more.
        if result == .late, following.view.isInUse(backup) { return again(following, .failOver(backup)) }
        guard isCurrent(plan, following) else { return again(following) }
        switch result {
        case .refused where isBackup: return again(following, .failOver(backup))
        case .rejected where isBackup: return again(following, .dropBackup(slot))
        case .done, .rejected, .refused, .late:
            end(following)
            return .answer
        }
    }

    /// Whether the store that took the push is still authoritative: its answer is none otherwise.
    private func isCurrent(_ plan: Plan, _ following: Following) -> Bool {
        let entry = following.view.entry(following.rings.slot(of: hash))
        return entry.own == plan.own && entry.changed <= plan.changed && following.isWitnessed(id)
    }

    /// The request is made again: at once, or when the register says otherwise.
    private mutating func again(_ following: Following, _ action: RequestAction? = nil) -> RequestAction {
        following.ended(id)
        state = .waiting
        return action ?? resume(following)
    }

    private mutating func end(_ following: Following) {
        following.ended(id)
        state = .ended
    }

    /// The client's deadline has passed, or the client is gone and nothing has been sent.
    package mutating func abandon(_ following: Following) { end(following) }
}
