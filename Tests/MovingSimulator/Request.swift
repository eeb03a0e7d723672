// One push on its way through a replica: on the hot path while the register is settled, by `RequestMachine` otherwise.
import MovingCore

final class Request {
    let id: Int
    let push: Push
    /// Nil on the hot path.
    private var machine: RequestMachine?
    /// The store that has it by the hot path.
    private var sentTo: StoreID?
    private var isWaiting = false
    private var isEnded = false
    private var fencedSince: Int64?
    /// The authoritative store that had it last.
    private var owner: StoreID?
    /// Which sending an answer belongs to.
    private var attempt = 0

    init(_ id: Int, _ push: Push) { (self.id, self.push) = (id, push) }

    private var method: RequestMachine.Method {
        switch push.method {
        case .put: .put
        case .post: .post
        case .delete: .delete
        }
    }

    func begin(_ replica: Replica) {
        let hash = replica.world.keys[push.key].hash
        if replica.following!.view.isSettled {
            let owner = replica.following!.rings.before.owner(of: hash)
            sentTo = owner
            return send(to: owner, .plain, replica)
        }
        if replica.world.without.contains(.fences) {
            let entry = replica.following!.view.entry(replica.following!.rings.slot(of: hash))
            sentTo = entry.own
            if entry.step.isFence { return send(to: entry.own, .plain, replica) }
        }
        machine = RequestMachine(id: id, hash: hash, method)
        perform(machine!.resume(replica.following!), replica)
    }

    /// The register is about to leave rest, and a store has the request.
    func leavesRest(_ following: Following) {
        guard machine == nil, let sentTo else { return }
        let hash = hash(following)
        machine = RequestMachine(id: id, hash: hash, method, sentTo: sentTo, following)
    }

    private func hash(_ following: Following) -> UInt32 { World.hash(of: push.key) }

    /// Something has changed while it waits.
    func resume(_ replica: Replica) {
        guard isWaiting, !isEnded, machine != nil else { return }
        isWaiting = false
        perform(machine!.resume(replica.following!), replica)
    }

    /// The client's deadline.
    func expire(_ replica: Replica) {
        guard !isEnded else { return }
        machine?.abandon(replica.following!)
        end(replica, isAcknowledged: false)
    }

    private func perform(_ action: RequestAction, _ replica: Replica) {
        if case .wait(.fence) = action {
            fencedSince = fencedSince ?? replica.world.now
        } else if let since = fencedSince {
            replica.world.longestFence = max(replica.world.longestFence, replica.world.now - since)
            fencedSince = nil
        }
        switch action {
        case .wait: isWaiting = true
        case .send(let store, let form): send(to: store, form, replica)
        case .failOver(let store):
            isWaiting = true
            replica.fail(store, "\(push.text) was refused")
        case .dropBackup(let slot):
            isWaiting = true
            guard replica.following!.view.entry(slot).step.backup != nil else { return }
            replica.write(replica.following!.view.droppingBackup(slot)) { _ in }
        case .answer: end(replica, isAcknowledged: !push.isWrong)
        case .giveUp(let store):
            if let store { replica.fail(store, "\(push.text) was not answered") }
            end(replica, isAcknowledged: false)
        }
    }

    private func send(to store: StoreID, _ form: PushForm, _ replica: Replica) {
        let world = replica.world
        attempt += 1
        let attempt = attempt
        let isCopy =
            machine != nil
            && replica.following!.view.entry(replica.following!.rings.slot(of: hash(replica.following!))).own != store
        if !isCopy { owner = store }
        if isCopy && world.without.contains(.secondWrites) || form == .tried && world.without.contains(.tryingPuts) {
            return world.after(0) { self.ended(.done, attempt, replica) }
        }
        var scope: Epoch? = if case .marked(let number) = form { number } else { nil }
        if world.without.contains(.marks) { scope = nil }
        let pipelined = world.without.contains(.pipelinedMarks) ? nil : scope
        world.call(replica, store, within: 1000) { [push] target -> PushResult in
            if isCopy, world.refusesCopies(target) { return .rejected }
            world.execute(push, form, at: target, markScope: pipelined)
            if world.scenario.duplicates, world.chance.happens(50) {
                world.execute(push, form, at: target, markScope: nil)
            }
            return push.isWrong ? .rejected : .done
        } done: { [self] reply in
            var result = PushResult(reply)
            world.log { "\(push.text) at \(world.name(store)): \(result)" }
            if isCopy, world.without.contains(.failedSecondWrites) { result = .done }
            if let scope, pipelined == nil, result == .done {
                world.call(replica, store, within: 1000, delay: 100) {
                    $0.mark(self.push.key, scope)
                } done: { _ in
                }
            }
            ended(result, attempt, replica)
        }
    }

    private func ended(_ result: PushResult, _ attempt: Int, _ replica: Replica) {
        guard !isEnded, attempt == self.attempt, replica.following != nil else { return }
        if machine == nil {
            switch result {
            case .done, .rejected: return end(replica, isAcknowledged: result == .done)
            case .late:
                // It ends first: failing over alone takes over every request that has not ended.
                end(replica, isAcknowledged: false)
                return replica.fail(sentTo!, "\(push.text) was not answered")
            case .refused: leavesRest(replica.following!)
            }
        }
        if result == .done, replica.world.without.contains(.answersOfOthers) {
            machine!.abandon(replica.following!)
            return end(replica, isAcknowledged: true)
        }
        perform(machine!.ended(result, replica.following!), replica)
    }

    private func end(_ replica: Replica, isAcknowledged: Bool) {
        isEnded = true
        replica.requests[id] = nil
        replica.world.ended(push, isAcknowledged: isAcknowledged, by: owner)
        replica.publish()
        replica.tell(.tick)
    }
}

extension Push {
    var text: String {
        let names = families.keys.sorted().map { familyNames[$0] }.joined()
        return "\(method.rawValue) \(number) on group \(key)" + (names.isEmpty ? "" : " (\(names))")
    }
}
