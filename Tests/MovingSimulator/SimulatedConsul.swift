// A simulated Consul: the register with check-and-set, the replicas' notes, their sessions, and the mover's lock.
import MovingCore

/// What one read of Consul shows.
struct Snapshot {
    var index: Int
    var register: Register
    var notes: [Int: Peer]
    var lockHolder: Int?
}

/// Consul, and the way to it; without one, the memory of the only replica.
final class SimulatedConsul {
    unowned(unsafe) let world: World
    private(set) var register: Register
    private(set) var isAway = false
    private(set) var writeCount = 0
    private var index = 1
    private var notes: [Int: Peer] = [:]
    private var lockHolder: Int?
    private var renewals: [Int: Int64] = [:]
    private var isNewsUnderWay: Set<Int> = []
    /// How long a session lives without being renewed.
    static let sessionLife: Int64 = 3000

    init(_ world: World, _ register: Register) { (self.world, self.register) = (world, register) }

    func isReachable(_ replica: Replica) -> Bool { !isAway && !replica.isCutFromConsul }

    func setAway(_ isAway: Bool) { self.isAway = isAway }

    // MARK: What replicas ask; `done` gets nil where Consul does not answer

    func read(_ replica: Replica, first: Bool = false, _ done: @escaping (Snapshot?) -> Void) {
        ask(replica, first: first) {
            $0.snapshot
        } done: {
            done($0)
        }
    }

    /// Writes the register if it is as the replica knows it, and reads in the same transaction: a replica that has joined
    /// before is in the answer. Nil where it was not written.
    func write(
        _ replica: Replica,
        _ register: Register,
        expecting epoch: Epoch,
        _ done: @escaping (Snapshot?) -> Void
    ) {
        ask(replica) { consul -> Snapshot? in
            guard consul.register.epoch == epoch else { return nil }
            consul.world.log {
                "R\(replica.index) writes the register: \(consul.world.difference(consul.register, register))"
            }
            let old = consul.register
            consul.register = register
            consul.writeCount += 1
            consul.world.hasChanged(register, old)
            consul.isNews()
            return consul.snapshot
        } done: {
            done($0 ?? nil)
        }
    }

    func writeNote(_ replica: Replica, _ note: Note, _ done: @escaping (Bool) -> Void) {
        ask(replica) { consul in
            guard consul.notes[replica.index]?.isLive == true else { return false }
            consul.notes[replica.index]?.note = note
            consul.writeCount += 1
            consul.isNews()
            return true
        } done: {
            done($0 ?? false)
        }
    }

    /// Renews the session, or makes one and joins the replicas; then the replica reads.
    func renew(_ replica: Replica, _ note: Note, first: Bool, _ done: @escaping (_ isNew: Bool?) -> Void) {
        ask(replica, first: first) { consul in
            let now = consul.world.now
            consul.renewals[replica.index] = now
            let life = SimulatedConsul.sessionLife + consul.world.chance.between(0, 2000)
            consul.world.after(life) { [unowned consul] in
                if consul.renewals[replica.index] == now { consul.expire(replica.index) }
            }
            if consul.notes[replica.index]?.isLive == true, consul.notes[replica.index]?.id == replica.peerID {
                return false
            }
            consul.notes[replica.index] = Peer(id: replica.peerID, isLive: true, note: note)
            consul.isNews()
            return true
        } done: {
            done($0)
        }
    }

    func lock(_ replica: Replica, _ done: @escaping (Bool) -> Void) {
        ask(replica) { consul in
            guard consul.lockHolder == nil, consul.notes[replica.index]?.isLive == true else { return false }
            consul.lockHolder = replica.index
            consul.isNews()
            return true
        } done: {
            done($0 ?? false)
        }
    }

    // MARK: Inside

    private func ask<Answer>(
        _ replica: Replica,
        first: Bool = false,
        _ body: @escaping (SimulatedConsul) -> Answer,
        done: @escaping (Answer?) -> Void
    ) {
        let incarnation = replica.incarnation
        world.after(world.consulDelay()) { [unowned self] in
            guard isReachable(replica), replica.incarnation == incarnation, replica.isRunning else {
                return world.after(200) { replica.deliver(incarnation, first: first) { done(nil) } }
            }
            let answer = body(self)
            world.after(world.chance.between(1, 2)) { replica.deliver(incarnation, first: first) { done(answer) } }
        }
    }

    private var snapshot: Snapshot { Snapshot(index: index, register: register, notes: notes, lockHolder: lockHolder) }

    /// Tells the replicas that watch, each a little later.
    private func isNews() {
        index += 1
        for replica in world.replicas { tell(replica) }
    }

    private func tell(_ replica: Replica) {
        guard isNewsUnderWay.insert(replica.index).inserted else { return }
        world.after(world.consulDelay()) { [unowned self] in
            isNewsUnderWay.remove(replica.index)
            // The query is made again, so that a cut too short to be noticed does not swallow the news.
            guard isReachable(replica) else { return world.after(300) { [unowned self] in tell(replica) } }
            let snapshot = snapshot
            let incarnation = replica.incarnation
            world.after(world.chance.between(1, 2)) { replica.deliver(incarnation) { replica.arrived(snapshot) } }
        }
    }

    /// The agent of a replica that is cut off fails as well, and then it stays a member. Where the agent lives, the replica is
    /// dead or stopped, and reads before it goes on; it is given time to renew after a cut.
    private func leave(_ index: Int) {
        world.after(2500) { [unowned self] in
            guard notes[index]?.isLive == false else { return }
            let replica = world.replicas[index]
            if isAway || replica.isCutFromConsul || world.now - replica.cutEnded < 2500 { return leave(index) }
            notes[index] = nil
            world.log { "Consul: R\(index) is no replica any more" }
            isNews()
        }
    }

    private func expire(_ index: Int) {
        if isAway { return world.after(1000) { [unowned self] in expire(index) } }
        if let time = renewals[index], world.now - time < SimulatedConsul.sessionLife { return }
        notes[index]?.isLive = false
        leave(index)
        if lockHolder == index { lockHolder = nil }
        world.log { "Consul: the session of R\(index) has ended" }
        isNews()
    }
}
