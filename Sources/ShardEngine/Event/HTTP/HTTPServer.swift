// The listening socket, every connection that came of it, and what parses their requests.
// A worker owns one. Requests go to `onRequest` (the ingress); time limits and the limit on connections are kept here.
import CEvent
import Glibc

/// What a client may take of the server.
struct InboundLimits: Equatable, Sendable {
    var gate: Gate.Limits
    /// How many bytes requests may take, those of all connections together.
    var bodiesBytes: Int
    var headerTimeout: TimeSpan
    var bodyTimeout: TimeSpan
    var idleTimeout: TimeSpan
    var connections: Int
    /// How many requests may wait for their answers; others wait for one of them.
    var requests: Int
}

/// An HTTP/1.1 server on one loop; loop-confined.
final class HTTPServer {
    /// What to do with a connection once evhttp is on no stack.
    enum TurnEndAction {
        case readOn(InboundConnection)
        case close(InboundConnection)
        /// Closes it, or another one, for a newcomer, unless it has a request by then.
        case dismiss(InboundConnection)
    }

    /// How much of the next requests is read, about, while one is outstanding.
    static let readAheadLimit = 65536
    static let replyBufferSize = 65536
    static let allowedMethods = "GET, HEAD, PUT, POST, DELETE"

    let loop: EventLoop
    /// The limits in force; new ones of a request's size hold from the next request of a connection on.
    var limits: InboundLimits {
        didSet {
            loop.assertOnLoop()
            parsers.limit = limits.requests
            memory.limit = limits.bodiesBytes
        }
    }
    /// What reads a head that comes in one piece.
    var gate: Gate
    let parsers: ParserPool
    let bodies: BodyWindow
    let memory: RequestMemory
    let onRefusal: (Refusal) -> Void
    /// Where responses are put together.
    var reply = ByteBuffer(capacity: replyBufferSize)
    var date = HTTPDate()
    /// Where requests are read to.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
    private(set) var isDraining = false {
        didSet { noteAttention() }
    }
    /// Told of each answer before it is sent, with its status, or nil where the client has gone before it; set only for a log
    /// that has every request.
    var onAnswer: ((InboundConnection, _ status: Int?) -> Void)? {
        didSet { noteAttention() }
    }
    /// Whether there is something to do before each answer: one condition for what is hardly ever true, as every push asks.
    private(set) var isAttentive = false
    private var source: (any ConnectionSource)?
    private(set) var connections: [InboundConnection?] = []
    /// Open connections.
    private(set) var connectionCount = 0
    private var actions: [TurnEndAction] = []
    /// Accepted in this turn, and not read yet.
    private var newcomers: [InboundConnection] = []
    private var forgotten: [InboundConnection] = []
    /// Without a client, for later ones.
    private var spares: [InboundConnection] = []
    /// The fewest that there were since the last sweep: so many were not needed.
    private var leastSpares = 0
    /// Connections accepted since the last sweep, and the most that were open at a time.
    private var acceptCount = 0
    private var mostConnections = 0
    private var sweep: Timer?
    private var lastAccept: Timer?

    init(
        loop: EventLoop,
        limits: InboundLimits,
        onRequest: @escaping (InboundConnection) -> Void,
        onRefusal: @escaping (Refusal) -> Void
    ) {
        self.loop = loop
        self.limits = limits
        self.onRefusal = onRefusal
        gate = Gate(limits: limits.gate)
        bodies = BodyWindow(loop: loop)
        memory = RequestMemory(loop: loop, limit: limits.bodiesBytes)
        parsers = ParserPool(loop: loop, limit: limits.requests) { connection, request in
            connection.requestArrived(request)
            onRequest(connection)
        }
        loop.atTurnEnd { [unowned self] in endTurn() }
        sweep = Timer(loop: loop) { [unowned self] in enforceTimeLimits() }
        sweep?.schedule(after: sweepInterval)
    }

    /// Closes everything; the last thing to call.
    func close() {
        loop.assertOnLoop()
        source = nil
        isDraining = true
        for case let connection? in connections { connection.abort() }
        forgotten.removeAll()
        spares.removeAll()
        parsers.close()
    }

    deinit {
        scratch.deallocate()
    }

    private func noteAttention() {
        isAttentive = isDraining || onAnswer != nil
    }

    /// Whether newcomers have to wait: then each connection ends with its next answer, and makes way for one of them.
    var isFull: Bool { connectionCount >= limits.connections }

    /// Takes connections from now on.
    func start(_ source: any ConnectionSource) {
        loop.assertOnLoop()
        self.source = source
        source.start { [unowned self] in accepted($0) }
    }

    /// From now on each connection ends with its next answer, and idle ones soon; what the kernel has accepted is still
    /// taken, in the turn that is under way, and then no more.
    func drain() {
        loop.assertOnLoop()
        isDraining = true
        // From here on the kernel leaves new clients to ask again, and another listener on the port answers.
        source?.stopQueueing()
        let lastAccept = Timer(loop: loop) { [unowned self] in
            loop.park { [self] in
                loop.poll()
                if !newcomers.isEmpty { loop.doNotWait() }
                source = nil
                self.lastAccept = nil
            }
        }
        lastAccept.schedule(after: .zero)
        self.lastAccept = lastAccept
    }

    // MARK: Accepting

    /// A new client, whose socket this is.
    private func accepted(_ descriptor: Int32) {
        let connection = spares.popLast() ?? InboundConnection(server: self)
        leastSpares = min(leastSpares, spares.count)
        let index = Int(descriptor)
        while connections.count <= index { connections.append(nil) }
        connections[index] = connection
        connectionCount += 1
        acceptCount += 1
        mostConnections = max(mostConnections, connectionCount)
        connection.begin(descriptor)
        newcomers.append(connection)
        if isFull { makeRoom() }
    }

    /// Only once all have been accepted: one that has its answer may connect again, and the turn would go on for as long as
    /// some do.
    private func readNewcomers() {
        guard !newcomers.isEmpty else { return }
        for connection in newcomers { connection.readFirst() }
        newcomers.removeAll(keepingCapacity: true)
    }

    /// At the limit a connection between requests makes way for the new one; when there is none, new ones wait.
    private func makeRoom() {
        if let connection = leastNeeded {
            actions.append(.dismiss(connection))
        } else {
            endUnfinished()
        }
        source?.pause()
    }

    // MARK: Ending

    /// Does it at the end of the turn.
    func atTurnEnd(_ action: TurnEndAction) {
        loop.assertOnLoop()
        actions.append(action)
    }

    /// The client's socket is closed, or is about to be.
    func forget(_ connection: InboundConnection) {
        loop.assertOnLoop()
        connections[Int(connection.descriptor)] = nil
        connectionCount -= 1
        // It is on the stack: the end of the turn lets go of it.
        forgotten.append(connection)
    }

    private func endTurn() {
        readNewcomers()
        parsers.endTurn()
        bodies.letIn()
        memory.letIn()
        if memory.hasTooManyHeads { endOldestHeads() }
        runActions()
        guard !forgotten.isEmpty else { return }
        spares += forgotten
        forgotten.removeAll(keepingCapacity: true)
        acceptIfThereIsRoom()
    }

    private func runActions() {
        guard !actions.isEmpty else { return }
        let due = actions
        actions.removeAll(keepingCapacity: true)
        for action in due {
            switch action {
            case .readOn(let connection): connection.readOn()
            case .close(let connection): connection.abort()
            case .dismiss(let connection): if connection.isDispensable { connection.abort() } else { makeRoom() }
            }
        }
        // What these have led to comes in the next turn: a client that has sent many requests at once has one of them
        // answered in each, and others' come between.
        if !actions.isEmpty { loop.doNotWait() }
    }

    private func acceptIfThereIsRoom() {
        if isFull { makeRoom() } else { source?.resume() }
    }

    private var sweepInterval: TimeSpan {
        let shortest = min(limits.headerTimeout, limits.bodyTimeout, limits.idleTimeout)
        return min(max(TimeSpan(nanoseconds: shortest.nanoseconds / 10), .milliseconds(10)), .milliseconds(250))
    }

    private func enforceTimeLimits() {
        let now = loop.now
        for case let connection? in connections {
            if isDraining, connection.phase == .idle, now.since(connection.phaseStart) >= HTTPServer.drainIdleTime {
                connection.abort()
            } else {
                connection.enforceTimeLimit(at: now)
                // A client that waits for as long as this may have given up.
                connection.watch()
            }
        }
        endSlowest(at: now)
        paceTurns()
        freeUnneededSpares()
        parsers.trim()
        acceptIfThereIsRoom()
        sweep?.schedule(after: sweepInterval)
    }

    /// Of very many clients that each come for one request, several are served in one turn: what is asked of the system for
    /// each is little, and a third of it would be to be woken for each. See docs/adr/0010-paced-turns.md.
    private func paceTurns() {
        let isCrowd = Double(acceptCount) >= HTTPServer.crowdPerSecond * sweepInterval.seconds
        loop.turnPeriod = isCrowd && mostConnections >= HTTPServer.crowdSize ? HTTPServer.crowdTurnPeriod : .zero
        acceptCount = 0
        mostConnections = connectionCount
    }

    /// Half of them at a time: the next clients may come in a burst as the last ones did.
    private func freeUnneededSpares() {
        spares.removeFirst((leastSpares + 1) / 2)
        leastSpares = spares.count
    }

    private static let crowdPerSecond = 5000.0
    /// A few clients that each wait for an answer before they connect again would only get their answers later.
    private static let crowdSize = 16
    private static let crowdTurnPeriod = TimeSpan(nanoseconds: 150_000)
    /// How long a draining server waits for the next request of a connection that was in use a moment ago.
    private static let drainIdleTime = TimeSpan.seconds(1)
}
