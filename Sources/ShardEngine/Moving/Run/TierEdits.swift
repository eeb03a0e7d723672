// How the tier changes the register, but for what its mover and its failures do: each change is made of the latest register, and
// tried until it is written or needless.
import Logging
import MovingCore

extension Tier {
    /// Has the register changed.
    ///
    /// - Parameter make: gives the changed register, or nil where there is nothing to change.
    func edit(_ make: @escaping (Following) -> Register?) {
        edits.append(make)
        makeEdits()
    }

    /// Makes the next of the changes that are due.
    func makeEdits() {
        guard !isEditing, hasConsul else { return }
        while let following, let make = edits.first {
            guard let register = make(following) else {
                edits.removeFirst()
                continue
            }
            isEditing = true
            return write(register) { [unowned self] isWritten in
                isEditing = false
                if isWritten { edits.removeFirst() }
            }
        }
    }

    /// A backup refused what the authoritative store took.
    func dropBackup(_ slot: Slot) {
        edit { $0.view.entry(slot).step.backup == nil ? nil : $0.view.droppingBackup(slot) }
    }

    /// The operator gives a store up that does not come back.
    func giveUp(_ store: StoreID) {
        edit { $0.view.isDown(store) ? $0.view.givingUp(store, rings: $0.rings) : nil }
    }

    /// Has all stores searched for what the register does not know of: what is found counts where it is lacking.
    func lookAtEverything() { edit { $0.view.lookingAtEverything() } }

    /// Replicas of version 0.1 fail shards over in another way: what they have given to stores that the register has for void
    /// counts, where the authoritative ones lack it. It is searched for when they have gone.
    func seeToOldReplicas() {
        guard isLookDue, hasConsul, mover != nil else { return }
        isLookDue = false
        edit { following in
            let view = following.view
            return view.ring.members.allSatisfy { view.isAdopting($0.store) } ? nil : view.lookingAtEverything()
        }
    }

    /// Stores that are found at other addresses are reached there from now on.
    func followAddresses(_ view: Register) {
        guard members.movesGroups, edits.isEmpty, !members.moved(view).isEmpty else { return }
        edit { [unowned self] in
            let moved = members.moved($0.view)
            return moved.isEmpty ? nil : $0.view.moving(moved)
        }
    }

    /// Gives up stores that have been away for too long.
    func giveUpAbsent(_ view: Register) {
        absentSince = absentSince.filter { view.isDown($0.key) }
        for store in view.down {
            let since = absentSince[store] ?? loop.now
            absentSince[store] = since
            guard loop.now.since(since) >= giveUpTime, view.hasPart(store) else { continue }
            absentSince[store] = loop.now
            let address = view.store(store)?.address ?? ""
            logger.warning("shard is given up: it has been away for too long", metadata: ["shard": "\(address)"])
            giveUp(store)
        }
    }

    /// What could not be written, or followed, is tried again after a moment.
    func tryAgain() {
        if let latest, following.map({ $0.view.epoch != latest.register?.epoch }) ?? true { return arrived(latest) }
        changed()
    }

    static let retryTime = TimeSpan.milliseconds(100)
}
