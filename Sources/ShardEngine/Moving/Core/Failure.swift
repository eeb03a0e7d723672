// Failing over one store for all its slots (rule A4): backups are asked for their processes, then the register is written.
//
// A replica's shell makes one when a request, the mover or a probe finds that a store does not answer, unless one is under
// way for that store or the register names it as failed. Requests on its slots wait meanwhile. When the register is
// written, or another replica has written it, the machine has ended.

/// What the shell does for a failure.
package enum FailureAction: Equatable, Sendable {
    /// Ask the store for its start time, for a second at most.
    case readStart(StoreID)
    /// Write the register, if Consul still has the view's; without Consul, call `failOverAlone`.
    case write(Register)
    /// Nothing more: the store is named as failed.
    case end
}

/// One store's failure.
package struct Failure: Sendable {
    package let store: StoreID
    /// What backups have answered; nil inside for one that did not.
    private var starts: [StoreID: StartTime?] = [:]
    private var asked: Set<StoreID> = []
    private var state = State.reading

    private enum State {
        /// Backups have yet to tell their processes.
        case reading
        /// The register is being written.
        case writing
        /// The store is named as failed.
        case ended
    }

    package init(of store: StoreID) { self.store = store }

    /// The processes of those backups that answered.
    package var backupStarts: [StoreID: StartTime] { starts.compactMapValues { $0 } }

    /// Begins, goes on after an answer, or tries again by a newer view after the register could not be written.
    package mutating func resume(_ following: Following) -> [FailureAction] {
        if case .ended = state { preconditionFailure("resume the failure of \(store) after its end") }
        if following.view.isDown(store) {
            state = .ended
            return [.end]
        }
        var unread: Set<StoreID> = []
        for entry in following.view.entries.values where entry.own == store {
            if let backup = entry.step.backup, starts[backup] == nil { unread.insert(backup) }
        }
        guard unread.isEmpty else {
            state = .reading
            defer { asked.formUnion(unread) }
            return unread.subtracting(asked).sorted().map { .readStart($0) }
        }
        state = .writing
        return [.write(following.view.failingOver(store, rings: following.rings, backupStarts: backupStarts))]
    }

    /// A backup has told its process, or has not answered.
    package mutating func read(_ backup: StoreID, _ start: StartTime?, _ following: Following) -> [FailureAction] {
        guard case .reading = state else { return [] }
        starts[backup] = .some(start)
        return resume(following)
    }
}
