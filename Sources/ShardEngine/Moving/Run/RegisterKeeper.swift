// Where the register is kept: in Consul, for all replicas, or in the memory of the only one. The tier owns a keeper.
import MovingCore

/// Keeps the register; confined to the tier's loop.
protocol RegisterKeeper: AnyObject {
    /// What this replica tells the others when it joins them.
    var note: () -> Note { get set }
    /// Whether this replica may move groups.
    var wantsLock: Bool { get set }
    var onSnapshot: (TierSnapshot) -> Void { get set }
    /// The register can be neither read nor written: the reason.
    var onLoss: (String) -> Void { get set }

    /// Goes by other settings from now on.
    func apply(_ settings: Configuration.Reconcile)
    /// Joins the replicas, and tells of the register from then on.
    func start()
    /// After a turn that came late: what has changed meanwhile is told before `done` is called.
    func readFirst(_ done: @escaping () -> Void)
    /// Writes the register, if the one with this epoch (none, for nil) is still there; nil where it is not, or cannot be told.
    func write(_ register: Register, expecting epoch: Epoch?, _ done: @escaping (TierSnapshot?) -> Void)
    func write(_ note: Note, _ done: @escaping (Bool) -> Void)
    /// Says goodbye to the other replicas.
    func leave(_ done: @escaping () -> Void)
}

/// The register of a replica that is alone.
final class MemoryRegister: RegisterKeeper {
    var note: () -> Note = { Note(epoch: 0) }
    var wantsLock = true
    var onSnapshot: (TierSnapshot) -> Void = { _ in }
    var onLoss: (String) -> Void = { _ in }
    private let loop: EventLoop
    private var snapshot: TierSnapshot

    /// - Parameter isMoving: whether the replica moves groups.
    init(loop: EventLoop, isMoving: Bool) {
        self.loop = loop
        snapshot = TierSnapshot(index: 1, peers: [], hasLock: isMoving)
    }

    func apply(_ settings: Configuration.Reconcile) {}

    func start() { onSnapshot(snapshot) }

    func readFirst(_ done: @escaping () -> Void) { done() }

    func write(_ register: Register, expecting epoch: Epoch?, _ done: @escaping (TierSnapshot?) -> Void) {
        let isCurrent = snapshot.register?.epoch == epoch
        if isCurrent {
            snapshot.register = register
            snapshot.index += 1
        }
        let written = isCurrent ? snapshot : nil
        // In a turn's end: whoever writes is in the middle of something.
        loop.park { [weak self] in if self != nil { done(written) } }
    }

    func write(_ note: Note, _ done: @escaping (Bool) -> Void) {
        loop.park { [weak self] in if self != nil { done(true) } }
    }

    func leave(_ done: @escaping () -> Void) { done() }
}
