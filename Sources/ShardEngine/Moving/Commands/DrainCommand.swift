// `shardd drain`: takes a shard out of the ring, has its groups moved, and deregisters it. The command line calls it. Each step
// can be made again, so that a broken-off drain is finished by another.
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
        let context = try CommandContext(configuration, version: version)
        if context.consul == nil, configuration.servers.contains(shard) {
            throw RunFailure("take \(shard) out of pushgateway.servers and reload shardd, then drain it")
        }
        if kind != .undo { context.leaving = [shard] }
        try context.join()
        defer { context.leave() }
        switch kind {
        case .empty: try drain(context, line, note)
        case .undo: try undo(context, line)
        case .gone: try giveUp(context, line)
        }
    }

    private func undo(_ context: CommandContext, _ line: (String) -> Void) throws(RunFailure) {
        guard let consul = context.consul else {
            throw RunFailure("put \(shard) into pushgateway.servers again and reload shardd")
        }
        let registrations = DrainRegistrations(context: context, consul: consul, shard: shard)
        guard registrations.announced() != nil else { throw RunFailure("\(shard) is not being drained") }
        try registrations.ask(try registrations.find()) { consul.maintenanceTarget($0, isOn: false) }
        try registrations.withdraw()
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
            try waitUntilEmpty(context, line)
            return line("\(shard) is empty and can be stopped")
        }
        let registrations = DrainRegistrations(context: context, consul: consul, shard: shard)
        let known = try registrations.find()
        try requireKnown(context, registrations, known)
        // First the key, or a replica would take the agent's maintenance for one that is over.
        try registrations.announce(.emptying, known)
        try registrations.ask(known) { consul.maintenanceTarget($0, isOn: true) }
        line(known.isEmpty ? "\(shard) is not registered with Consul" : "\(shard) is in maintenance mode")
        for left in try registrations.wait(until: { !$0.isPassing }) {
            let agent = "the Consul agent of node \(left.node)"
            note("\(agent) cannot be reached, and no replica is beside it: it goes on to name \(shard) as healthy")
        }
        try empty(context, line)
        try deregister(registrations, line)
        if configuration.servers.contains(shard), configuration.consul?.register == true {
            note("take \(shard) out of pushgateway.servers: the next start or reload would register it again")
        }
        line("\(shard) is empty and can be stopped")
    }

    /// Without Consul the replica that moves groups has the register, and sees to a shard that has left its file.
    private func waitUntilEmpty(_ context: CommandContext, _ line: (String) -> Void) throws(RunFailure) {
        guard let store = context.members.store(at: shard)?.id else { throw RunFailure("\(shard) does not answer") }
        var (least, since) = (Int.max, MonotonicTime.now())
        while true {
            let left = try context.list(store).groups.count
            if left == 0 { return }
            if left < least { (least, since) = (left, .now()) }
            line("\(left) groups to move")
            let patience = DrainCommand.patience.seconds + configuration.reconcile.overlap.seconds
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
        let view = context.tier.following?.view
        return view?.stores.first { context.members.address(of: $0.id, view) == shard || $0.address == shard.text }?.id
    }

    /// Has the shard's groups moved until the register knows it no more.
    private func empty(_ context: CommandContext, _ line: @escaping (String) -> Void) throws(RunFailure) {
        guard let store = store(context) ?? context.members.store(at: shard)?.id else {
            throw RunFailure("\(shard) does not answer, and no replica knows it")
        }
        let hashes = try context.list(store).groups.keys.map(\.hash)
        var progress = Progress(hashes)
        try context.wait {
            guard let view = context.tier.following?.view else { return false }
            return view.store(store) == nil && !members(view).contains(store)
        } onTick: {
            guard let following = context.tier.following else { return }
            if let text = progress.line(following, store, shard) { line(text) }
        }
    }

    private func members(_ view: Register) -> Set<StoreID> {
        Set((view.ring.members + (view.next?.members ?? [])).map(\.store))
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
}

/// How far a drain has come, as a person who waits is told it.
private struct Progress {
    /// Where the groups lie that the shard had when the drain began.
    private let hashes: [UInt32]
    private var last = ""
    private let began = MonotonicTime.now()

    init(_ hashes: [UInt32]) { self.hashes = hashes }

    /// A line, where there is something new to tell.
    mutating func line(_ following: Following, _ store: StoreID, _ shard: ShardAddress) -> String? {
        let view = following.view
        let entries = hashes.map { view.entry(following.rings.slot(of: $0)) }
        let left = entries.count { $0.own == store }
        let kept = entries.count { $0.step.other == store }
        let text: String
        if left > 0 {
            text = "\(left) of \(hashes.count) groups to move\(estimate(left))"
        } else if kept > 0 {
            text = "all groups are moved; \(shard) keeps copies until Prometheus has found the other shards"
        } else {
            text = "\(shard) has left the ring"
        }
        defer { last = text }
        return text == last ? nil : text
    }

    private func estimate(_ left: Int) -> String {
        guard hashes.count > left else { return "" }
        let seconds = MonotonicTime.now().since(began).seconds * Double(left) / Double(hashes.count - left)
        return ", about \(Int(seconds.rounded(.up))) s left"
    }
}
