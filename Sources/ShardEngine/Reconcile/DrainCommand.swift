// `shardd drain`: takes a shard out of the ring, moves its groups, and deregisters it. The command line calls it. Each step
// can be made again, so that a broken-off drain is finished by another.

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
        let registrations = DrainRegistrations(context: context, consul: consul, shard: shard)
        let known = try registrations.find()
        try requireKnown(context, registrations, known)
        guard try context.healthyShards().contains(where: { $0 != shard }) else {
            throw RunFailure("no other shard is healthy: \(shard) is left as it is")
        }
        // First the key, or a replica would take the agent's maintenance for one that is over.
        try registrations.announce(.emptying, known)
        try registrations.ask(known) { consul.maintenanceTarget($0, isOn: true) }
        line(known.isEmpty ? "\(shard) is not registered with Consul" : "\(shard) is in maintenance mode")
        for left in try registrations.wait(until: { !$0.isPassing }) {
            let agent = "the Consul agent of node \(left.node)"
            note("\(agent) cannot be reached, and no replica is beside it: it goes on to name \(shard) as healthy")
        }
        waitForReplicas(context)
        line("\(shard) has left the ring")
        try empty(context, line, note)
        try deregister(registrations, line)
        if configuration.servers.contains(shard), configuration.consul?.register == true {
            note("take \(shard) out of pushgateway.servers: the next start or reload would register it again")
        }
        line("\(shard) is empty and can be stopped")
    }

    /// A shard that nobody knows is a mistake, which is said at once.
    private func requireKnown(
        _ context: CommandContext,
        _ registrations: DrainRegistrations,
        _ known: [CatalogRegistration]
    ) throws(RunFailure) {
        if !known.isEmpty || configuration.servers.contains(shard) || registrations.announced() != nil { return }
        guard case .success(let state) = context.runs.latestState() else { return }
        let texts = Set(state.draining + state.shards + state.ring + Array(state.unreached.keys))
        if texts.contains(shard.text) || context.runs.isRemembered(shard) { return }
        throw RunFailure("\(shard) is no shard: neither Consul nor the configuration names it")
    }

    /// Has every agent deregister the shard, which is empty.
    private func deregister(_ registrations: DrainRegistrations, _ line: (String) -> Void) throws(RunFailure) {
        let present = try registrations.find()
        if !present.isEmpty {
            let consul = registrations.consul
            try registrations.announce(.leaving, present)
            try registrations.ask(present) { consul.deregistrationTarget($0) }
            registrations.forget(present)
            let left = try registrations.wait { _ in false }
            guard left.isEmpty else {
                let commands = left.map { "on node \($0.node) run: consul services deregister -id=\($0.id)" }
                throw RunFailure(
                    "\(shard) is empty, but agents that this command cannot reach, and that have no replica beside them, "
                        + "still have it: \(commands.joined(separator: "; ")); then drain it again"
                )
            }
            line("\(shard) is deregistered")
        }
        try registrations.withdraw()
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
                for problem in outcome.problems + outcome.doubts { note(problem) }
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
