// `shardd drain`: takes a shard out of the ring, moves its groups, and deregisters it. The command line calls it. Each step
// can be made again, so that a broken-off drain is finished by another.
import FoundationEssentials

/// The emptying of one shard for good.
public struct DrainCommand {
    private let configuration: Configuration
    private let shard: ShardAddress

    /// - Parameter shard: the shard to empty.
    public init(_ configuration: Configuration, shard: ShardAddress) {
        self.configuration = configuration
        self.shard = shard
    }

    /// Empties the shard.
    ///
    /// - Parameters:
    ///   - line: is called with each step as it is made.
    ///   - note: is called with what a person should know.
    /// - Throws: why it could not be done; it can then be tried again.
    public func run(line: @escaping (String) -> Void, note: @escaping (String) -> Void) throws(RunFailure) {
        let context = try CommandContext(configuration, note: note)
        if let other = try context.otherAddress(of: shard) {
            throw RunFailure(
                "\(shard) and \(other) are one Pushgateway: take \(other) out of Consul and the file first"
            )
        }
        guard let consul = context.consul else { return try drainWithoutConsul(context, line, note) }
        let id = try registration(context, consul)
        if let id {
            try ask(
                context,
                consul,
                "/v1/agent/service/maintenance/\(consul.escaped(id))?enable=true&reason=shardd%20drain"
            )
            line("\(shard) is in maintenance mode")
        } else {
            line("\(shard) is not registered with this Consul agent")
        }
        try waitUntilLeft(context)
        line("\(shard) has left the ring")
        try empty(context, line, note)
        if let id {
            try ask(context, consul, "/v1/agent/service/deregister/\(consul.escaped(id))")
            line("\(shard) is deregistered")
        }
        if configuration.servers.contains(shard), configuration.consul?.register == true {
            note("take \(shard) out of pushgateway.servers: the next start or reload would register it again")
        }
        line("\(shard) is empty and can be stopped")
    }

    private func drainWithoutConsul(
        _ context: CommandContext,
        _ line: (String) -> Void,
        _ note: (String) -> Void
    ) throws(RunFailure) {
        guard !configuration.servers.contains(shard) else {
            throw RunFailure("take \(shard) out of pushgateway.servers and reload shardd, then drain it")
        }
        // Nothing tells when replicas have the new ring: other changes may come first, and shards have to be told something.
        for _ in 0..<2 { waitForReplicas(context) }
        try empty(context, line, note)
        line("\(shard) is empty and can be stopped")
    }

    /// The ID under which the shard is registered with the agent; nil when it is registered nowhere.
    private func registration(_ context: CommandContext, _ consul: ConsulClient) throws(RunFailure) -> String? {
        guard case .response(let response) = context.session.send(consul.request(.get, "/v1/agent/services")),
            response.status == 200,
            let services = try? JSONDecoder().decode([String: RegisteredService].self, from: Data(response.body))
        else { throw RunFailure("Consul does not tell what is registered") }
        let candidates = services.values.filter { $0.name == consul.settings.serviceName }
        let nodeAddress = try candidates.contains { $0.address.isEmpty } ? nodeAddress(context, consul) : ""
        let service = candidates.first { service in
            let host = service.address.isEmpty ? nodeAddress : service.address
            return ShardAddress(host: host, port: service.port) == shard || service.id == registrationID(shard)
        }
        if let service { return service.id }
        if try context.healthyShards().contains(shard) {
            throw RunFailure("\(shard) is registered with another Consul agent: name that one in consul_server.addr")
        }
        return nil
    }

    /// Where a service of the agent is that has no address of its own.
    private func nodeAddress(_ context: CommandContext, _ consul: ConsulClient) throws(RunFailure) -> String {
        guard case .response(let response) = context.session.send(consul.request(.get, "/v1/agent/self")),
            let agent = try? JSONDecoder().decode(ConsulAgent.self, from: Data(response.body))
        else { throw RunFailure("Consul does not tell the agent's address: the token needs agent:read") }
        return agent.member.address
    }

    private func ask(_ context: CommandContext, _ consul: ConsulClient, _ target: String) throws(RunFailure) {
        switch context.session.send(consul.request(.put, target)) {
        case .failed(let reason): throw RunFailure("Consul does not do it: \(reason)")
        case .response(let response) where response.status == 200: return
        case .response(let response): throw RunFailure("Consul does not do it: it answered \(response.status)")
        }
    }

    /// Waits until Consul does not name the shard, and all replicas route by that.
    private func waitUntilLeft(_ context: CommandContext) throws(RunFailure) {
        let deadline = MonotonicTime.now().advanced(by: DrainCommand.patience)
        while try context.healthyShards().contains(shard) {
            guard MonotonicTime.now() < deadline else { throw RunFailure("Consul still names \(shard)") }
            guard !context.runs.isInterrupted else { throw RunFailure("interrupted") }
            context.session.pause(.milliseconds(200))
        }
        waitForReplicas(context)
    }

    /// By then no replica gives the shard pushes as an owner any more.
    private func waitForReplicas(_ context: CommandContext) {
        context.session.pause(TimeSpan(nanoseconds: 2 * configuration.replicaLag.nanoseconds)) {
            context.runs.isInterrupted
        }
    }

    /// Moves the shard's groups until none is left.
    private func empty(
        _ context: CommandContext,
        _ line: (String) -> Void,
        _ note: (String) -> Void
    ) throws(RunFailure) {
        var leastLeft = Int.max
        var progressAt = MonotonicTime.now()
        var outcome = RunOutcome()
        while true {
            var left = try groupCount(context)
            if left == 0, outcome.isSettled {
                waitForReplicas(context)
                left = try groupCount(context)
                // One that has started during the run knows nothing of it, and tells others of the rings by which it copies.
                if left == 0, !context.runs.isInterrupted, !context.runs.isRemembered(shard) { return }
            }
            if left == 0, MonotonicTime.now().since(progressAt) >= emptyingPatience {
                for problem in outcome.problems { note(problem) }
                return note("until a run is settled, replicas go on to make copies on \(shard): stop it soon")
            }
            line("\(left) groups to move")
            guard !context.runs.isInterrupted else { throw RunFailure("interrupted, with \(left) groups left") }
            let shards = try context.healthyShards().filter { $0 != shard }
            outcome = try context.perform(context.order(shards: shards, draining: [shard]))
            line("\(outcome.moved) groups pushed to their owners, \(outcome.deleted) copies deleted")
            if left < leastLeft || outcome.deleted > 0 { progressAt = .now() }
            leastLeft = min(leastLeft, left)
            // Another shard may have died a moment ago, and Consul not have noticed yet.
            guard left == 0 || MonotonicTime.now().since(progressAt) < emptyingPatience else {
                let distrusted = outcome.unreached.map { RunFailure.distrusted($0).reason }
                for problem in outcome.problems + distrusted { note(problem) }
                throw RunFailure("\(left) groups cannot be moved from \(shard)")
            }
            if !outcome.problems.isEmpty { context.session.pause(.seconds(1)) { context.runs.isInterrupted } }
        }
    }

    private func groupCount(_ context: CommandContext) throws(RunFailure) -> Int {
        switch context.client.list(shard, detail: { _ in .times }) {
        case .success(let listing): return listing.groups.count + listing.unreadable
        case .failure(let failure): throw failure
        }
    }

    private static let patience = TimeSpan.seconds(30)

    /// Without any progress: some runs, each of which waits for replicas before and after.
    private var emptyingPatience: TimeSpan {
        TimeSpan(nanoseconds: DrainCommand.patience.nanoseconds + 8 * configuration.replicaLag.nanoseconds)
    }
}
