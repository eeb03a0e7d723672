// The ring as people and metrics see it: the shards that take pushes now, or will when the move that is under way has ended. The
// server owns it, and has it follow the register.
import Dispatch
import Logging
import MovingCore

/// What is shown of the register's ring; confined to the server's loop.
final class ShownRing {
    private(set) var ring = Ring(shards: [], vnodes: 1)
    /// How many rings there have been.
    private(set) var generation = 0
    /// When the latest one came, in seconds since 1970.
    private(set) var changedAt = wallClock()
    /// Why shards have left the membership, until the ring without them is shown.
    var leavingReasons: [ShardAddress: String] = [:]
    private let builder: RingBuilder
    private let logger: Logger
    private var wanted: (shards: [ShardAddress], vnodes: Int)?

    init(mailbox: LoopMailbox, logger: Logger) {
        builder = RingBuilder(mailbox: mailbox)
        self.logger = logger
    }

    var hasRing: Bool { generation > 0 }

    /// Shows the ring of these.
    ///
    /// - Parameter failing: shards that fail their checks.
    func show(_ members: RingMembers, failing: some Collection<ShardAddress>) {
        let failing = Set(failing)
        let all = members.members.compactMap { ShardAddress(parsing: $0.address) }.sorted()
        let passing = all.filter { !failing.contains($0) }
        // Where all fail the last ring stays.
        if passing.isEmpty, wanted != nil { return }
        let shards = passing.isEmpty ? all : passing
        if let wanted, wanted.shards == shards, wanted.vnodes == members.vnodes { return }
        wanted = (shards, members.vnodes)
        builder.build(shards: shards, vnodes: members.vnodes) { [unowned self] in take($0) }
    }

    private func take(_ new: Ring) {
        guard !new.isSame(as: ring) else { return }
        generation += 1
        changedAt = wallClock()
        RingChange(from: ring, to: new).log(generation: generation, reasons: leavingReasons, by: logger)
        leavingReasons = leavingReasons.filter { new.shards.contains($0.key) }
        ring = new
    }
}
