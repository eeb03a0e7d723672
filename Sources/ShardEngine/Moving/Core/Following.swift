// One replica's view of the register, and what it and its peers tell each other about following it (rules A1 and A6).
//
// The replica's shell owns one: it gives it every snapshot of the register and the peers' notes, read together, and every
// request that begins and ends while the register is not settled; it writes `note` to Consul whenever that has changed
// and the register is not at rest. `RequestMachine`, `Failure` and `Mover` ask it.

/// What a replica has written about itself.
package struct Note: Equatable, Sendable {
    /// The epoch that it follows.
    package var epoch: Epoch
    /// Ranges with requests that were sent by an older epoch and have not ended, and the oldest epoch of each.
    package var busy: [UInt16: Epoch] = [:]
    /// Fenced ranges in which a request has ended since their handing over was announced.
    package var touched: Set<UInt16> = []
    /// What has to be the same on all replicas: version, `hash.key` and such, as one number.
    package var settings: UInt64
    /// Groups that the replica cannot move, with the reasons; for people.
    package var stuck: [String] = []

    /// - Parameter epoch: 0 for a replica that follows nothing yet.
    package init(epoch: Epoch, settings: UInt64 = 0) { (self.epoch, self.settings) = (epoch, settings) }
}

/// Another replica.
package struct Peer: Equatable, Sendable {
    /// Another one for each process.
    package var id: UInt64
    /// Whether its session lives. A replica without one is cut off or stopped, or has gone.
    package var isLive: Bool
    package var note: Note

    package init(id: UInt64, isLive: Bool, note: Note) {
        (self.id, self.isLive) = (id, isLive)
        self.note = note
    }
}

/// Which replicas a change has to have reached.
package enum Reach: Sendable {
    /// Those with a live session: for requests, which must not wait for a replica that cannot be asked.
    case live
    /// All that have not been given up: for planned steps.
    case members
}

/// What one replica follows.
package final class Following {
    package private(set) var view: Register {
        didSet { copying = Following.copying(view) }
    }
    package private(set) var rings: Rings
    package private(set) var peers: [Peer] = []
    /// Whether Consul answers. Without it, the replica serves on by its last view.
    package var hasConsul = true
    /// Stores that it failed over alone while Consul did not answer, of which the register is to be told.
    private var failedAlone: [(store: StoreID, backupStarts: [StoreID: StartTime])] = []
    /// The number that it marked by meanwhile.
    package private(set) var markedSince: Epoch?

    /// What has to be the same on all replicas.
    package var settings: UInt64
    private var flights: [Int: Flight] = [:]
    /// Ranges with a slot that is announced or being copied, or that ails or is being healed.
    private var announced: Set<UInt16> = []
    /// Those of them in which a request has begun or ended since.
    private var touched: Set<UInt16> = []
    /// Ranges with a slot that is being copied or healed.
    private var copying: Set<UInt16> = []

    /// A request that a store has.
    private struct Flight {
        var range: UInt16
        var epoch: Epoch
        var store: StoreID
        /// Whether the replica has been one of those that others wait for ever since.
        var isWitnessed = true
    }

    package init(view: Register, rings: Rings, settings: UInt64 = 0) {
        (self.view, self.rings, self.settings) = (view, rings, settings)
        copying = Following.copying(view)
        // What the process before this one has touched is not known.
        announced = Following.announced(view)
        touched = announced
    }

    private static func copying(_ view: Register) -> Set<UInt16> {
        ranges(of: view) { step in
            switch step {
            case .copying, .healing: true
            case .settled, .unclean, .announced, .overlapping, .ending, .wiping, .ailing: false
            }
        }
    }

    private static func announced(_ view: Register) -> Set<UInt16> {
        ranges(of: view) { step in
            switch step {
            case .announced, .copying, .ailing, .healing: true
            case .settled, .unclean, .overlapping, .ending, .wiping: false
            }
        }
    }

    private static func ranges(of view: Register, where holds: (Step) -> Bool) -> Set<UInt16> {
        view.entries.reduce(into: []) { if holds($1.value.step) { $0.insert($1.key.range) } }
    }

    /// Goes by this register from now on.
    ///
    /// - Parameter rings: made for the register's ring and next ring.
    package func follow(_ register: Register, rings: Rings, peers: [Peer]) {
        precondition(telling(register, rings: rings) == nil, "the register is not told of failures")
        hear(peers)
        if register.epoch <= view.epoch, markedSince == nil { return }
        (failedAlone, markedSince) = ([], nil)
        (view, self.rings) = (register, rings)
        let before = announced
        announced = Following.announced(view)
        touched.formIntersection(announced.intersection(before))
    }

    /// Takes in what peers tell, by the register that is followed already.
    package func hear(_ peers: [Peer]) {
        // Nobody tells any more what a replica has touched that is gone.
        let isAnyGone = self.peers.contains { old in !peers.contains { $0.id == old.id } }
        if isAnyGone { touched.formUnion(announced) }
        self.peers = peers
    }

    // MARK: Requests

    /// A request goes to a store by the view of this moment, or has gone there by an earlier register.
    package func began(_ request: Int, hash: UInt32, store: StoreID, byFormer isByFormer: Bool = false) {
        let range = rings.range(of: hash)
        let epoch = isByFormer ? 0 : min(view.epoch, flights[request]?.epoch ?? .max)
        flights[request] = Flight(range: range, epoch: epoch, store: store)
        touched.insert(range)
    }

    /// A request has ended, or is about to be made again.
    package func ended(_ request: Int) {
        if let flight = flights.removeValue(forKey: request) { touched.insert(flight.range) }
    }

    /// The session is a new one, and the register has not been read since. Without the old one nobody waited for this replica:
    /// slots may have gone to other stores and back, so what answers say of requests under way is not known.
    package func beganSession() { for id in flights.keys { flights[id]?.isWitnessed = false } }

    /// Whether the register tells all that has become of the slot since the request was sent.
    func isWitnessed(_ request: Int) -> Bool { flights[request]?.isWitnessed ?? true }

    // MARK: Following

    /// What the replica tells its peers.
    package var note: Note {
        var note = Note(epoch: view.epoch, settings: settings)
        note.busy = busy
        note.touched = touched.intersection(copying)
        return note
    }

    private var busy: [UInt16: Epoch] {
        var busy: [UInt16: Epoch] = [:]
        // What a failed store has of a request is void, so nobody waits for that.
        for flight in flights.values where flight.epoch < view.epoch && !view.isDown(flight.store) {
            busy[flight.range] = min(flight.epoch, busy[flight.range] ?? .max)
        }
        return busy
    }

    /// Whether what the register said at this epoch about the range has reached the replicas, and what they had sent by
    /// older epochs has ended.
    package func isFollowed(_ range: UInt16, since: Epoch, by reach: Reach) -> Bool {
        allNotes(reach) { epoch, busy in epoch >= since && (busy[range] ?? .max) >= since }
    }

    /// The same for all ranges.
    func isFollowed(since: Epoch, by reach: Reach) -> Bool {
        allNotes(reach) { epoch, busy in epoch >= since && busy.values.allSatisfy { $0 >= since } }
    }

    /// Whether any replica has touched the range since its handing over was announced; asked inside the fence.
    func isTouched(_ range: UInt16) -> Bool {
        touched.contains(range) || peers.contains { $0.note.touched.contains(range) }
    }

    /// Whether planned steps need not wait: for a replica that is cut off, or one that would place groups otherwise.
    var hasAllMembers: Bool {
        hasConsul && markedSince == nil && peers.allSatisfy { $0.isLive && $0.note.settings == settings }
    }

    /// The groups of marks with smaller numbers may be deleted on every store, at any time from now on, however late; nil
    /// while that is not known: a replica that is cut off may mark by the number after the last epoch that it followed.
    package var leastNeededMark: Epoch? {
        hasAllMembers && isFollowed(since: view.epoch, by: .members) ? view.leastNeededMark : nil
    }

    /// Asked for each push: what has been touched, which takes longer to tell, is left out.
    private func allNotes(_ reach: Reach, _ holds: (Epoch, [UInt16: Epoch]) -> Bool) -> Bool {
        for peer in peers where peer.isLive || reach == .members {
            if !holds(peer.note.epoch, peer.note.busy) { return false }
        }
        return holds(view.epoch, busy)
    }

    // MARK: Without Consul

    /// Consul does not answer and the store has failed: another stands in for it, for this replica alone.
    package func failOverAlone(_ store: StoreID, backupStarts: [StoreID: StartTime]) {
        if view.isDown(store) { return }
        markedSince = markedSince ?? view.epoch + 1
        failedAlone.append((store, backupStarts))
        view = view.failingOver(store, rings: rings, backupStarts: backupStarts, since: markedSince)
    }

    /// What has to be written to the register, read from Consul just now, before this replica follows it again; nil where
    /// it need not be told of anything.
    package func telling(_ register: Register, rings: Rings) -> Register? {
        let untold = failedAlone.first { register.store($0.store) != nil && !register.isDown($0.store) }
        return untold.map { failure in
            register.failingOver(failure.store, rings: rings, backupStarts: failure.backupStarts, since: markedSince)
        }
    }
}
