// How the tier fails stores over: each failure's machine is carried out here. Workers, probes and the mover report them.
import Logging
import MovingCore

extension Tier {
    // MARK: Failure

    /// A store does not take what it is sent: the next one stands in for it.
    func fail(_ store: StoreID, _ cause: String) {
        if !members.movesGroups { return leaveOut(store, cause) }
        guard let following, !following.view.isDown(store), failures[store] == nil,
            let known = following.view.store(store)
        else { return }
        logger.warning(
            "shard has failed: others take its pushes",
            metadata: ["shard": "\(known.address)", "reason": "\(cause)"]
        )
        causes[store] = cause
        workers.note(cause: cause, of: store)
        counts.failovers += 1
        failures[store] = Failure(of: store)
        resume(store)
    }

    func resume(_ store: StoreID) {
        guard var failure = failures[store], let following else { return }
        let actions = failure.resume(following)
        failures[store] = failure
        perform(actions, store)
    }

    func perform(_ actions: [FailureAction], _ store: StoreID) {
        for action in actions {
            switch action {
            case .readStart(let backup): readBackup(backup, store)
            case .write(let register): writeFailure(register, store)
            case .end: failures[store] = nil
            }
        }
    }

    func readBackup(_ backup: StoreID, _ store: StoreID) {
        readStart(backup) { [unowned self] start in
            guard var failure = failures[store], let following else { return }
            let actions = failure.read(backup, start, following)
            failures[store] = failure
            perform(actions, store)
        }
    }

    func writeFailure(_ register: Register, _ store: StoreID) {
        guard hasConsul else {
            let starts = failures[store]?.backupStarts ?? [:]
            failures[store] = nil
            following?.failOverAlone(store, backupStarts: starts)
            workers.failOverAlone(store, backupStarts: starts)
            return changed()
        }
        guard writing.insert(store).inserted else { return }
        write(register) { [unowned self] _ in writing.remove(store) }
    }

    /// Whether the mover, if it is this replica's, has nothing under way.
    var isIdle: Bool { mover?.isBusy != true }
}
