// The listening socket, evhttp behind it, and every connection that came of it.
// A worker owns one. Requests go to `onRequest` (the ingress); time limits and the limit on connections are kept here.
import CEvent
import Glibc

/// What a client may take of the server.
struct InboundLimits: Equatable, Sendable {
    var gate: Gate.Limits
    var headerTimeout: TimeSpan
    var bodyTimeout: TimeSpan
    var idleTimeout: TimeSpan
    var connections: Int
}

/// An HTTP/1.1 server on one loop.
final class HTTPServer {
    /// What to do with a connection once evhttp is on no stack.
    enum TurnEndAction {
        case refuse(InboundConnection, Refusal)
        case readOn(InboundConnection)
        case close(InboundConnection)
    }

    /// How much of the next requests is read, about, while one is outstanding.
    static let readAheadLimit = 65536
    static let replyBufferSize = 65536
    /// How long a refused client may take to read its answer.
    static let lingeringTime = TimeSpan.seconds(2)
    /// For so many connections one more descriptor is allowed, for the part of another that is kept for a later client.
    static let connectionsPerPlaceholder = 16
    static let placeholderLimit = 1024
    static let allowedMethods = "GET, HEAD, PUT, POST, DELETE"

    let loop: EventLoop
    /// The limits in force; a new value holds from the next request of a connection on.
    var limits: InboundLimits
    let onRequest: (InboundConnection) -> Void
    let onRefusal: (Refusal) -> Void
    /// Where responses are put together.
    var reply = ByteBuffer(capacity: replyBufferSize)
    var date = HTTPDate()
    /// Where requests are read to.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 4096)
    /// The connection whose bytes evhttp is reading.
    var parsing: InboundConnection?
    private(set) var isDraining = false
    private let http: OpaquePointer
    private var listener: Listener?
    private var newcomers: [InboundConnection] = []
    private var connections: [InboundConnection?] = []
    private var count = 0
    private var actions: [TurnEndAction] = []
    private var forgotten: [InboundConnection] = []
    /// Without a client: making evhttp's part of a connection, and freeing it, costs a fifth of a short connection's push.
    private var spares: [InboundConnection] = []
    /// The fewest that there were since the last sweep: so many were not needed.
    private var leastSpares = 0
    /// What stands in for the sockets of clients that have gone.
    private let placeholder = open("/dev/null", O_RDWR | O_CLOEXEC)
    private var placeholderCount = 0
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
        self.onRequest = onRequest
        self.onRefusal = onRefusal
        guard let http = evhttp_new(loop.base) else { preconditionFailure("out of memory") }
        self.http = http
        evhttp_set_allowed_methods(http, UInt16.max)
        evhttp_set_default_content_type(http, nil)
        let this = Unmanaged.passUnretained(self).toOpaque()
        evhttp_set_bevcb(
            http,
            { base, context in
                guard let context else { return nil }
                return Unmanaged<HTTPServer>.fromOpaque(context).takeUnretainedValue().accept(base)
            },
            this
        )
        evhttp_set_gencb(
            http,
            { request, context in
                guard let request, let context else { return }
                Unmanaged<HTTPServer>.fromOpaque(context).takeUnretainedValue().dispatch(request)
            },
            this
        )
        loop.atTurnEnd { [unowned self] in endTurn() }
        sweep = Timer(loop: loop) { [unowned self] in enforceTimeLimits() }
        sweep?.schedule(after: sweepInterval)
    }

    /// Closes everything; the last thing to call.
    func close() {
        listener = nil
        adoptNewcomers()
        isDraining = true
        for case let connection? in connections { connection.abort() }
        for connection in spares + forgotten { connection.abort() }
        forgotten.removeAll()
        spares.removeAll()
    }

    deinit {
        evhttp_free(http)
        Glibc.close(placeholder)
        scratch.deallocate()
    }

    /// Open connections.
    var connectionCount: Int { count + newcomers.count }

    /// Whether newcomers have to wait: then each connection ends with its next answer, and makes way for one of them.
    var isFull: Bool { connectionCount >= limits.connections }

    /// Starts accepting on a socket that listens already.
    func start(_ listener: Listener) {
        self.listener = listener
        listener.attach(to: http) { [unowned self] in accepted($0) }
    }

    /// From now on each connection ends with its next answer, and idle ones soon; what the kernel has accepted is still
    /// taken, in the turn that is under way, and then no more.
    func drain() {
        isDraining = true
        listener?.acceptsDirectly = false
        // From here on the kernel leaves new clients to ask again, and another listener on the port answers.
        listener?.stopQueueing()
        let lastAccept = Timer(loop: loop) { [unowned self] in
            loop.park { [self] in
                loop.poll()
                adoptNewcomers()
                listener = nil
                self.lastAccept = nil
            }
        }
        lastAccept.schedule(after: .zero)
        self.lastAccept = lastAccept
    }

    // MARK: Accepting

    /// A new client for a spare connection.
    private func accepted(_ descriptor: Int32) {
        guard let connection = spares.popLast() else { preconditionFailure("there is no spare connection") }
        leastSpares = min(leastSpares, spares.count)
        register(connection, descriptor)
        connection.begin(descriptor)
        if spares.isEmpty { listener?.acceptsDirectly = false }
        if isFull { makeRoom() }
    }

    /// A new client, for which evhttp makes a connection.
    private func accept(_ base: OpaquePointer?) -> OpaquePointer? {
        let connection = InboundConnection(server: self, base: base)
        newcomers.append(connection)
        if isFull { makeRoom() }
        return connection.bufferevent
    }

    /// At the limit a connection between requests makes way for the new one; when there is none, new ones wait.
    private func makeRoom() {
        var longestIdle: InboundConnection?
        for case let connection? in connections where connection.isDispensable {
            if let longest = longestIdle, longest.phaseStart <= connection.phaseStart { continue }
            longestIdle = connection
        }
        if let longestIdle { actions.append(.close(longestIdle)) }
        listener?.pause()
    }

    /// Registers a connection, which evhttp has by now set up.
    func adopt(_ connection: InboundConnection) {
        guard connection.connection == nil, connection.adopt() else { return }
        register(connection, connection.descriptor)
    }

    private func register(_ connection: InboundConnection, _ descriptor: Int32) {
        let index = Int(descriptor)
        while connections.count <= index { connections.append(nil) }
        connections[index] = connection
        count += 1
        acceptCount += 1
        mostConnections = max(mostConnections, count)
    }

    private func adoptNewcomers() {
        guard !newcomers.isEmpty else { return }
        for connection in newcomers { adopt(connection) }
        newcomers.removeAll(keepingCapacity: true)
    }

    // MARK: Requests

    private func dispatch(_ request: UnsafeMutablePointer<evhttp_request>) {
        // A connection that evhttp has read by itself, past the Gate, could only be one that was not yet adopted.
        guard let connection = parsing else { return evhttp_send_error(request, 503, nil) }
        connection.requestArrived(request)
        onRequest(connection)
    }

    // MARK: Ending

    /// Does it at the end of the turn.
    func atTurnEnd(_ action: TurnEndAction) {
        actions.append(action)
    }

    /// Closes the socket of a client that has gone, and has a placeholder take its number; false when there must be no
    /// more of those.
    func putPlaceholder(at descriptor: Int32) -> Bool {
        let limit = min(limits.connections / HTTPServer.connectionsPerPlaceholder, HTTPServer.placeholderLimit)
        guard !isDraining, placeholderCount < limit, dup2(placeholder, descriptor) >= 0 else { return false }
        placeholderCount += 1
        return true
    }

    /// evhttp is closing a placeholder.
    func forgetPlaceholder() {
        placeholderCount -= 1
    }

    /// The client's socket is closed, or is about to be.
    func forget(_ connection: InboundConnection) {
        connections[Int(connection.descriptor)] = nil
        count -= 1
        // It is on the stack: the end of the turn lets go of it.
        forgotten.append(connection)
    }

    private func endTurn() {
        adoptNewcomers()
        while !actions.isEmpty {
            let due = actions
            actions.removeAll(keepingCapacity: true)
            for action in due {
                switch action {
                case .refuse(let connection, let refusal): connection.refuse(refusal)
                case .readOn(let connection): connection.readOn()
                case .close(let connection): connection.abort()
                }
            }
        }
        guard !forgotten.isEmpty else { return }
        for connection in forgotten where connection.isSpare { spares.append(connection) }
        forgotten.removeAll(keepingCapacity: true)
        acceptIfThereIsRoom()
    }

    private func acceptIfThereIsRoom() {
        listener?.acceptsDirectly = !spares.isEmpty && !isDraining
        if isFull { makeRoom() } else { listener?.resume() }
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
        paceTurns()
        freeUnneededSpares()
        acceptIfThereIsRoom()
        sweep?.schedule(after: sweepInterval)
    }

    /// Of very many clients that each come for one request, several are served in one turn: what is asked of the system for
    /// each is little, and a third of it would be to be woken for each. See docs/adr/0010-paced-turns.md.
    private func paceTurns() {
        let isCrowd = Double(acceptCount) >= HTTPServer.crowdPerSecond * sweepInterval.seconds
        loop.turnPeriod = isCrowd && mostConnections >= HTTPServer.crowdSize ? HTTPServer.crowdTurnPeriod : .zero
        acceptCount = 0
        mostConnections = count
    }

    /// Half of them at a time: the next clients may come in a burst as the last ones did.
    private func freeUnneededSpares() {
        let unneeded = (leastSpares + 1) / 2
        for connection in spares.prefix(unneeded) { connection.abort() }
        spares.removeFirst(unneeded)
        leastSpares = spares.count
    }

    private static let crowdPerSecond = 5000.0
    /// A few clients that each wait for an answer before they connect again would only get their answers later.
    private static let crowdSize = 16
    private static let crowdTurnPeriod = TimeSpan(nanoseconds: 150_000)
    /// How long a draining server waits for the next request of a connection that was in use a moment ago.
    private static let drainIdleTime = TimeSpan.seconds(1)
}
