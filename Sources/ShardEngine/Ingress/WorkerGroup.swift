// All workers of the process. The server hands them rings and settings through this, and gets what they count added up.
// The first worker is on the server's own loop; each other one has a thread, and is reached by its loop's mailbox only.
import Logging
import MovingCore

/// Workers on one port; confined to the loop of the first.
final class WorkerGroup {
    let first: Worker
    private let others: [LoopBound<Worker>]
    /// Where each worker's connections come from, until `start`.
    private var sources: [any ConnectionSource]
    /// The port that all listen on.
    let port: Int
    private var threads: [LoopThread] = []
    private var drainCheck: Timer?

    /// Opens the port and makes the workers; none of them accepts yet. Where the port may be shared with other processes, each
    /// worker has a socket of its own; otherwise one socket is for all.
    init(
        loop: EventLoop,
        resolver: Resolver,
        configuration: Configuration,
        descriptorLimit: Int,
        logger: Logger
    ) throws(ListenFailure) {
        let listen = configuration.listen
        let sharesPort = configuration.reusesPort
        let listener = try Listener(loop: loop, host: listen.host, port: listen.port, sharesPort: sharesPort)
        port = listener.port
        let acceptor = sharesPort || configuration.workers < 2 ? nil : Acceptor(listener, mailbox: loop.mailbox)
        var sources = [acceptor?.share(for: loop) ?? listener]
        first = Worker(
            loop: loop,
            configuration: configuration,
            descriptorLimit: descriptorLimit,
            resolver: resolver,
            logger: logger
        )
        var others: [LoopBound<Worker>] = []
        for _ in 1..<max(1, configuration.workers) {
            let loop = EventLoop()
            if let acceptor {
                sources.append(acceptor.share(for: loop))
            } else {
                sources.append(try Listener(loop: loop, host: listen.host, port: port, sharesPort: true))
            }
            let worker = Worker(
                loop: loop,
                configuration: configuration,
                descriptorLimit: descriptorLimit,
                resolver: Resolver(loop: loop),
                logger: logger
            )
            others.append(LoopBound(worker, on: loop))
        }
        self.others = others
        self.sources = sources
    }

    /// The workers, before `start`.
    var all: [Worker] { [first] + others.map(\.value) }

    /// Has every worker accept, each on its own thread but the first.
    func start() {
        first.loop.assertOnLoop()
        for (worker, source) in zip(all, sources) { worker.server.start(source) }
        sources.removeAll()
        threads = others.map { LoopThread($0.value.loop) }
    }

    /// Calls `body` with each worker, on that worker's loop.
    func forEach(_ body: @escaping @Sendable (Worker) -> Void) {
        first.loop.assertOnLoop()
        body(first)
        for worker in others { worker.post(body) }
    }

    /// Calls `done`, on the first worker's loop, with what all have counted.
    func gather(_ done: @escaping (WorkerSnapshot) -> Void) {
        first.loop.assertOnLoop()
        gather(first.snapshot, 0, LoopBound(done, on: first.loop))
    }

    private func gather(_ sum: WorkerSnapshot, _ next: Int, _ done: LoopBound<(WorkerSnapshot) -> Void>) {
        guard next < others.count else { return done.value(sum) }
        let this = WeakLoopBound(self, on: first.loop.mailbox)
        others[next].post { worker in
            var sum = sum
            sum.add(worker.snapshot)
            this.post { [sum] in $0.gather(sum, next + 1, done) }
        }
    }

    /// Stops accepting; calls `done` on the first worker's loop once no worker has a connection.
    func drain(_ done: @escaping () -> Void) {
        first.loop.assertOnLoop()
        forEach { $0.server.drain() }
        // What the kernel has accepted is taken before the first look.
        let timer = Timer(loop: first.loop) { [unowned self] in
            gather { [unowned self] snapshot in
                if snapshot.connections == 0 { done() } else { drainCheck?.schedule(after: WorkerGroup.drainInterval) }
            }
        }
        drainCheck = timer
        timer.schedule(after: WorkerGroup.drainInterval)
    }

    /// Stops the other workers' loops, waits for them, and closes all connections; the first loop must have stopped.
    func close() {
        first.loop.assertOnLoop()
        for worker in others { worker.post { $0.loop.stop() } }
        for thread in threads { thread.join() }
        for worker in all {
            worker.server.close()
            worker.forwarder.close()
        }
    }

    private static let drainInterval = TimeSpan.milliseconds(10)
}

extension WorkerGroup: TierWorkers {
    func follow(_ placement: Placement, peers: [Peer], notes: [Note?], hasConsul: Bool, settings: UInt64) {
        forEachIndexed { index, worker in
            var peers = peers
            for (other, note) in notes.enumerated() where other != index {
                let note = note ?? Note(epoch: 0, settings: settings)
                peers.append(Peer(id: .max - UInt64(other), isLive: true, note: note))
            }
            worker.follow(placement, peers: peers, hasConsul: hasConsul, settings: settings)
        }
    }

    func failOverAlone(_ store: StoreID, backupStarts: [StoreID: StartTime]) {
        forEach { $0.forwarder.failOverAlone(store, backupStarts: backupStarts) }
    }

    func beganSession() {
        forEach { $0.forwarder.follower?.beganSession() }
    }

    func goOnAfterStop() {
        forEach { $0.forwarder.goOnAfterStop() }
    }

    func note(cause: String, of store: StoreID) {
        forEach { $0.forwarder.follower?.note(cause: cause, of: store) }
    }

    private func forEachIndexed(_ body: @escaping @Sendable (Int, Worker) -> Void) {
        body(0, first)
        for (index, worker) in others.enumerated() {
            worker.post { body(index + 1, $0) }
        }
    }
}
