// `shardd drain`: takes a shard out of the ring, has its groups moved, has it leave discovery, and waits until Prometheus has
// dropped it and its copies are deleted. The command line calls it. Each step can be made again, so that a broken-off drain is
// finished by another.
import MovingCore

/// The emptying of one shard for good.
public struct DrainCommand {
    /// What is done about the shard.
    public enum Kind: Sendable {
        /// Its groups are moved, and it leaves.
        case empty
        /// A drain is taken back.
        case undo
        /// It has failed and will not come back: what it alone has is lost.
        case gone
    }

    private let configuration: Configuration
    private let shard: ShardAddress
    private let kind: Kind
    private let version: String

    /// - Parameter shard: the shard to empty.
    public init(_ configuration: Configuration, shard: ShardAddress, kind: Kind, version: String) {
        (self.configuration, self.shard, self.kind, self.version) = (configuration, shard, kind, version)
    }

    /// Empties the shard.
    ///
    /// - Parameters:
    ///   - line: is called with each step as it is made.
    ///   - note: is called with what a person should know.
    /// - Throws: why it could not be done; it can then be tried again.
    public func run(line: @escaping (String) -> Void, note: @escaping (String) -> Void) throws(RunFailure) {
        let context = try CommandContext(configuration, version: version, line: line)
        if kind != .undo { context.leaving = [shard] }
        try context.join()
        defer { context.leave() }
        switch kind {
        case .empty: try drain(context, line, note)
        case .undo: try undo(context, line, note)
        case .gone: try giveUp(context, line)
        }
    }

    private func undo(
        _ context: CommandContext,
        _ line: (String) -> Void,
        _ note: (String) -> Void
    ) throws(RunFailure) {
        guard let consul = context.consul else {
            throw RunFailure("put \(shard) into pushgateway.servers again and reload shardd")
        }
        let registrations = DrainRegistrations(context: context, consul: consul, shard: shard)
        guard registrations.announced() != nil else { throw RunFailure("\(shard) is not being drained") }
        try registrations.ask(try registrations.find()) { consul.maintenanceTarget($0, isOn: false) }
        try registrations.withdraw()
        if try registrations.find().isEmpty { try registrations.register(note) }
        line("\(shard) is used again")
    }

    private func giveUp(_ context: CommandContext, _ line: (String) -> Void) throws(RunFailure) {
        guard let store = store(context) else { throw RunFailure("\(shard) is no shard that the register knows") }
        guard context.tier.following?.view.isDown(store) == true else {
            throw RunFailure("\(shard) is there: drain it")
        }
        context.tier.giveUp(store)
        try context.wait(until: { isGivenUp(store, context) })
        line("\(shard) is given up")
    }

    private func isGivenUp(_ store: StoreID, _ context: CommandContext) -> Bool {
        guard let view = context.tier.following?.view else { return false }
        return !view.entries.values.contains { entry in
            entry.own == store || entry.predecessors.contains { $0.store == store }
        }
    }

    private func drain(
        _ context: CommandContext,
        _ line: @escaping (String) -> Void,
        _ note: @escaping (String) -> Void
    ) throws(RunFailure) {
        if let other = otherAddress(context) {
            throw RunFailure(
                "\(shard) and \(other) are one Pushgateway: take \(other) out of Consul and the file first"
            )
        }
        guard let consul = context.consul else {
            try waitUntilEmpty(context)
            return line("\(shard) is empty and can be stopped")
        }
        let registrations = DrainRegistrations(context: context, consul: consul, shard: shard)
        let known = try registrations.find()
        try requireKnown(context, registrations, known)
        // A drain that was broken off while Prometheus had time to drop the shard goes on there.
        if !known.isEmpty || registrations.announced()?.phase != .left {
            try maintain(registrations, known, line, note)
        }
        try waitUntilMoved(context, line)
        try deregister(registrations, line, note)
        context.haveLeftDiscovery = true
        try waitUntilForgotten(context)
        let left = try registrations.find()
        guard left.isEmpty else {
            let commands = left.map { "on node \($0.node) run: consul services deregister -id=\($0.id)" }
            throw RunFailure(
                "\(shard) is empty, but agents that this command cannot reach, and that have no replica beside them, "
                    + "still have it: \(commands.joined(separator: "; ")); then drain it again"
            )
        }
        try registrations.withdraw()
        if configuration.servers.contains(shard), configuration.consul?.register == true {
            note("take \(shard) out of pushgateway.servers: the next start or reload would register it again")
        }
        line("\(shard) is empty and can be stopped")
    }

    /// Has the shard leave the ring: agents hold it for unhealthy from now on.
    private func maintain(
        _ registrations: DrainRegistrations,
        _ known: [CatalogRegistration],
        _ line: (String) -> Void,
        _ note: (String) -> Void
    ) throws(RunFailure) {
        // First the key, or a replica would take the agent's maintenance for one that is over.
        try registrations.announce(.emptying, known)
        try registrations.ask(known) { registrations.consul.maintenanceTarget($0, isOn: true) }
        line(known.isEmpty ? "\(shard) is not registered with Consul" : "\(shard) is in maintenance mode")
        registrations.context.progress.waits("Consul to hold \(shard) for unhealthy")
        for left in try registrations.wait(until: { !$0.isPassing }) {
            let agent = "the Consul agent of node \(left.node)"
            note("\(agent) cannot be reached, and no replica is beside it: it goes on to name \(shard) as healthy")
        }
    }

    /// Without Consul the replica that moves groups has the register, and sees to a shard that has left its file.
    private func waitUntilEmpty(_ context: CommandContext) throws(RunFailure) {
        guard let store = context.members.store(at: shard)?.id else { throw RunFailure("\(shard) does not answer") }
        var (least, since) = (Int.max, MonotonicTime.now())
        while true {
            let left = try context.list(store).groups.count
            if left == 0 { return }
            if left < least { (least, since) = (left, .now()) }
            // Copies of groups that have moved are among them.
            context.progress.tells("another replica to empty \(shard): \(left) groups are there")
            let patience = DrainCommand.patience.seconds + context.tier.overlap.seconds
            guard MonotonicTime.now().since(since).seconds < patience else {
                throw RunFailure("\(left) groups stay on \(shard): does one replica move groups, and without it?")
            }
            if context.isInterrupted { throw RunFailure("interrupted, with \(left) groups left") }
            context.session.pause(.seconds(1)) { context.isInterrupted }
        }
    }

    private static let patience = TimeSpan.seconds(60)

    private func otherAddress(_ context: CommandContext) -> ShardAddress? {
        context.members.healthy.first { $0 != shard && context.members.identities.areSame($0, shard) }
    }

    /// A shard that nobody knows is a mistake, which is said at once.
    private func requireKnown(
        _ context: CommandContext,
        _ registrations: DrainRegistrations,
        _ known: [CatalogRegistration]
    ) throws(RunFailure) {
        if !known.isEmpty || configuration.servers.contains(shard) || registrations.announced() != nil { return }
        if store(context) != nil { return }
        throw RunFailure("\(shard) is no shard: neither Consul nor the configuration names it")
    }

    private func store(_ context: CommandContext) -> StoreID? {
        context.tier.following.flatMap { store(context, $0.view) }
    }

    private func store(_ context: CommandContext, _ view: Register) -> StoreID? {
        view.stores.first { context.members.address(of: $0.id, view) == shard || $0.address == shard.text }?.id
    }

    /// Has the shard's groups moved until nothing that it holds counts. Its copies stay.
    private func waitUntilMoved(_ context: CommandContext, _ line: (String) -> Void) throws(RunFailure) {
        guard let store = store(context) ?? context.members.store(at: shard)?.id else {
            throw RunFailure("\(shard) does not answer, and no replica knows it")
        }
        context.progress.waits("the listing of \(shard)")
        let moved = MovedGroups(hashes: try context.list(store).groups.keys.map(\.hash))
        try context.wait {
            guard let following = context.tier.following else { return false }
            return !following.view.isNeeded(store, following.rings)
        } onTick: {
            guard let following = context.tier.following else { return }
            moved.tell(context.progress, following, store)
        }
        line("\(moved.total) of \(moved.total) groups are moved")
    }

    /// Waits until the copies have been kept for long enough, and are deleted: the register knows the shard no more.
    private func waitUntilForgotten(_ context: CommandContext) throws(RunFailure) {
        let began = MonotonicTime.now()
        try context.wait {
            context.tier.following.map { store(context, $0.view) == nil } ?? false
        } onTick: {
            let left = context.tier.overlap.seconds - MonotonicTime.now().since(began).seconds
            let estimate = left > 0 ? "about \(Int(left.rounded(.up))) s left" : "its copies are deleted"
            context.progress.tells("Prometheus to have dropped \(shard)", estimate)
        }
    }

    /// Has every agent deregister the shard, so that Prometheus drops it.
    private func deregister(
        _ registrations: DrainRegistrations,
        _ line: (String) -> Void,
        _ note: (String) -> Void
    ) throws(RunFailure) {
        let present = try registrations.find()
        if !present.isEmpty {
            try registrations.announce(.leaving, present)
            try registrations.ask(present) { registrations.consul.deregistrationTarget($0) }
            registrations.forget(present)
            registrations.context.progress.waits("Consul to forget \(shard)")
            let left = try registrations.wait { _ in false }
            if left.isEmpty { line("\(shard) is deregistered") }
            for registration in left { note("the Consul agent of node \(registration.node) goes on to name \(shard)") }
        }
        try registrations.announce(.left, present)
    }
}

/// How many of a shard's groups have moved, as a person who waits is told it.
private struct MovedGroups {
    /// Where the groups lie that the shard had when the drain began.
    let hashes: [UInt32]
    private let began = MonotonicTime.now()

    init(hashes: [UInt32]) { self.hashes = hashes }

    var total: Int { hashes.count }

    func tell(_ progress: Progress, _ following: Following, _ store: StoreID) {
        let left = hashes.count { following.view.entry(following.rings.slot(of: $0)).own == store }
        var estimate = ""
        if left > 0, left < total {
            let seconds = MonotonicTime.now().since(began).seconds * Double(left) / Double(total - left)
            estimate = "about \(Int(seconds.rounded(.up))) s left"
        }
        progress.tells("its groups to move: \(total - left) of \(total) groups are moved", estimate)
    }
}
