// `shardd cleanup`: removes what shardd keeps for itself in shards and in Consul, for uninstalling it or going back to version 0.1.
// The command line calls it. It changes nothing unless all is at rest and every shard answers: a register with stores that
// have no marks any more, or marks without their register, would have the next start take groups for void.
import MovingCore

/// The removal of shardd's own groups and keys.
public struct CleanupCommand {
    private let configuration: Configuration
    private let session = HTTPSession(loop: EventLoop())
    private let consul: ConsulClient?

    /// - Parameter configuration: names the shards, and Consul.
    public init(_ configuration: Configuration) {
        self.configuration = configuration
        consul = configuration.consul.map { [session] in
            ConsulClient(loop: session.loop, resolver: session.resolver, settings: $0)
        }
    }

    /// Removes the groups of each shard, and then the keys in Consul.
    ///
    /// - Parameters:
    ///   - line: is called once for each shard, and once for Consul.
    ///   - note: is called with what a person should know.
    /// - Throws: why it could not be done; it can then be run again.
    public func run(line: (String) -> Void, note: (String) -> Void) throws(RunFailure) {
        ignoreWriteSignals()
        if consul == nil { note("without Consul it is not seen whether replicas run: none may") }
        var shards = Set(configuration.servers)
        if let consul {
            shards.formUnion(try requireRest(consul).stores.compactMap { ShardAddress(parsing: $0.address) })
            shards.formUnion(try registered(consul))
        }
        let client = ShardClient(session: session, check: configuration.check)
        let groups = try find(shards.sorted(), client)
        for (shard, groups) in groups {
            try remove(groups, from: shard, client)
            line("\(shard): \(groups.count) groups of shardd's removed")
        }
        guard let consul else { return }
        // A replica that has started meanwhile has marked shards again.
        let count = try requireRest(consul).keyCount
        let outcome = session.send(consul.request(.delete, consul.keyTarget([""], "recurse=1")))
        if let fault = outcome.fault { throw RunFailure("Consul does not remove shardd's keys: \(fault)") }
        line("Consul: \(count) keys of shardd's removed")
    }

    // MARK: Consul

    /// What Consul holds of a tier without replicas that has nothing to do.
    private struct RestingTier {
        var keyCount: Int
        var stores: [Store]
    }

    /// Reads all keys, and refuses to go on where a replica runs or something is still to be moved.
    private func requireRest(_ consul: ConsulClient) throws(RunFailure) -> RestingTier {
        let outcome = session.send(
            consul.request(.get, consul.keyTarget([""], "recurse=1", ConsulClient.consistentRead))
        )
        let keys = TierKeys(serviceName: consul.settings.serviceName)
        guard let content = TierContent(listing: outcome, keys, known: nil) else {
            let reason = outcome.fault ?? CleanupCommand.unknownAnswer
            throw RunFailure("Consul does not tell what shardd keeps there: \(reason)")
        }
        let running = content.replicas.count { $0.isLive }
        if running > 0 {
            let run = running == 1 ? "replica or command of shardd runs" : "replicas and commands of shardd run"
            throw RunFailure("\(running) \(run): stop all of them first")
        }
        if content.lockSession != nil {
            throw RunFailure("a replica of version 0.1, or a command of its, moves groups: stop all of them first")
        }
        if let drain = ConsulClient.drains(session.send(consul.request(.get, consul.drainTarget(nil)))).first {
            let undo = "shardd drain \(drain.shard) --undo"
            throw RunFailure("\(drain.shard) is being drained: drain it to the end, or take that back (\(undo))")
        }
        if let fault = content.register?.fault {
            throw RunFailure("the register is of another version, which has to do this (\(fault))")
        }
        let register = content.register?.register
        if let register, !register.isAtRest { throw RunFailure(CleanupCommand.advice(register)) }
        return RestingTier(keyCount: KeyValueEntry.list(outcome).count, stores: register?.stores ?? [])
    }

    /// Why the register is not at rest, and what to do about it.
    private static func advice(_ register: Register) -> String {
        let wait = "run `shardd reconcile`, or a replica until shardd_handover_step is 0"
        let absent = register.down.compactMap { register.store($0)?.address }.sorted()
        guard let first = absent.first else { return "groups are still to be moved, or copies to be deleted: \(wait)" }
        let verb = absent.count == 1 ? "is" : "are"
        return "\(absent.joined(separator: ", ")) \(verb) absent, and groups wait for that: start what has stopped and "
            + "\(wait), or give up what will not come back (shardd drain --gone \(first))"
    }

    /// The shards that Consul names, whatever their health.
    private func registered(_ consul: ConsulClient) throws(RunFailure) -> [ShardAddress] {
        let outcome = session.send(consul.request(.get, consul.currentHealthTarget))
        guard outcome.fault == nil, case .response(let response) = outcome,
            let instances = HealthyInstances(decoding: response.body)
        else {
            throw RunFailure("Consul does not name the shards: \(outcome.fault ?? CleanupCommand.unknownAnswer)")
        }
        return instances.registrations.map(\.shard)
    }

    private static let unknownAnswer = "its answer is not what it should be"

    // MARK: Shards

    /// The paths of shardd's own groups in each shard.
    private func find(
        _ shards: [ShardAddress],
        _ client: ShardClient
    ) throws(RunFailure) -> [(ShardAddress, [String])] {
        let paths = GroupPath()
        var found: [(ShardAddress, [String])] = []
        var faults: [String] = []
        for shard in shards {
            switch client.list(shard, detail: { _ in .times }) {
            case .success(let listing):
                found.append((shard, listing.ownGroups.keys.map { paths.path(of: $0) }.sorted()))
            case .failure(let failure): faults.append(failure.reason)
            }
        }
        guard faults.isEmpty else {
            throw RunFailure("nothing is removed, since not every shard answers: \(faults.joined(separator: "; "))")
        }
        return found
    }

    private func remove(_ groups: [String], from shard: ShardAddress, _ client: ShardClient) throws(RunFailure) {
        let answers = client.carryOut(groups.map { ShardClient.Order(shard: shard, method: .delete, path: $0) })
        for answer in answers {
            switch answer {
            case .done: break
            case .refused(let reason, isForGood: _), .failed(let reason):
                throw RunFailure("shard \(shard) does not delete shardd's groups: \(reason)")
            }
        }
    }
}
