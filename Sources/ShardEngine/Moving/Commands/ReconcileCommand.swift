// `shardd reconcile`: prints what is not where it belongs, and has it put there. The command line calls it.
import MovingCore

/// One reconciling by hand.
public struct ReconcileCommand {
    private let configuration: Configuration
    private let isDryRun: Bool
    private let version: String

    /// - Parameter isDryRun: whether to print the plan and do nothing.
    public init(_ configuration: Configuration, isDryRun: Bool, version: String) {
        (self.configuration, self.isDryRun, self.version) = (configuration, isDryRun, version)
    }

    /// Lists the shards, prints a line for each stray, and has them moved.
    ///
    /// - Parameters:
    ///   - line: is called with each stray as group, from, to and reason, with tabs between.
    ///   - note: is called with what a person should know.
    /// - Throws: why it could not be done, or not as a whole.
    public func run(line: (String) -> Void, note: @escaping (String) -> Void) throws(RunFailure) {
        let context = try CommandContext(configuration, version: version, line: note)
        try context.join()
        defer { context.leave() }
        let strays = try findStrays(context)
        for stray in strays { line(stray) }
        if isDryRun { return note("\(strays.count) copies are not on their owners") }
        if !strays.isEmpty { context.tier.lookAtEverything() }
        try context.wait(
            until: { isDone(context) },
            onTick: {
                context.progress.waits("groups to be on their owners alone", "moved: \(context.tier.counts.moved)")
            }
        )
        let counts = context.tier.counts
        note("\(counts.moved) groups pushed to their owners, \(counts.deleted) copies deleted")
        let stuck = context.tier.stuck
        for group in stuck { note(group) }
        if !stuck.isEmpty { throw RunFailure("not all groups are on their owners") }
    }

    /// Whether all is at rest, but for groups that are refused.
    private func isDone(_ context: CommandContext) -> Bool {
        guard let view = context.tier.following?.view, context.tier.isIdle else { return false }
        let stuck = context.tier.mover?.stuck ?? []
        let isMoving = view.next != nil || !view.adopting.isEmpty || !view.down.isEmpty
        return !isMoving && view.entries.keys.allSatisfy { stuck.contains($0) } && (view.isAtRest || !stuck.isEmpty)
    }

    private func findStrays(_ context: CommandContext) throws(RunFailure) -> [String] {
        guard let following = context.tier.following else { return [] }
        let view = following.view
        var holders: [GroupKey: [StoreID]] = [:]
        for store in view.stores where !view.isDown(store.id) {
            for key in try context.list(store.id).groups.keys { holders[key, default: []].append(store.id) }
        }
        func text(_ store: StoreID) -> String { view.store(store)?.address ?? "?" }
        return holders.flatMap { key, stores -> [String] in
            let slot = following.rings.slot(of: key.hash)
            let owner = view.target(slot, following.rings) ?? view.entry(slot).own
            let reason = stores.contains(owner) ? "duplicate" : "misplaced"
            return stores.filter { $0 != owner }.map { "\(key.shown)\t\(text($0))\t\(text(owner))\t\(reason)" }
        }.sorted()
    }
}
