// The parsers of a server: evhttp, which makes them, and those that wait for a request.
//
// evhttp makes one for every socket that it accepts, and in no other way. So it accepts sockets that lead nowhere, from a
// listener that this pool connects to; clients' sockets it never sees. A client whose request is whole and that finds no parser
// waits: for the turn that it takes to make one, or, at the limit, for one to be given back.
import CEvent
import Glibc

/// Makes parsers and lends them; loop-confined.
final class ParserPool {
    /// How many there may be; each takes a descriptor.
    var limit: Int
    /// The one that evhttp is reading bytes with.
    unowned(unsafe) var parsing: RequestParser?
    private let http: OpaquePointer
    private let listener: OpaquePointer
    private var address = sockaddr_un()
    private var addressSize = socklen_t(MemoryLayout<sockaddr_un>.size)
    private let onRequest: (InboundConnection, UnsafeMutablePointer<evhttp_request>) -> Void
    private var spares: [RequestParser] = []
    /// The fewest that there were since the last trim: so many were not needed.
    private var leastSpares = 0
    /// How many there are, spare or lent.
    private var count = 0
    /// Those that evhttp has made in this turn.
    private var newcomers: [RequestParser] = []
    /// Connections to the listener that evhttp has yet to accept.
    private var pendingCount = 0
    /// Clients with a request and no parser.
    private var waiting = WaitingLine()

    /// - Parameter onRequest: is called with each request that evhttp has read as a whole, and whose it is.
    init(
        loop: EventLoop,
        limit: Int,
        onRequest: @escaping (InboundConnection, UnsafeMutablePointer<evhttp_request>) -> Void
    ) {
        self.limit = limit
        self.onRequest = onRequest
        guard let http = evhttp_new(loop.base) else { preconditionFailure("out of memory") }
        self.http = http
        let descriptor = ParserPool.openSocket()
        // Where there is no name, the system gives one, in the abstract namespace (unix(7)).
        guard descriptor >= 0, ParserPool.name(descriptor),
            let listener = evconnlistener_new(
                loop.base,
                nil,
                nil,
                LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC,
                ParserPool.backlog,
                descriptor
            )
        else { preconditionFailure("no socket for parsers: \(String(cString: strerror(errno)))") }
        self.listener = listener
        _ = withSockaddr { getsockname(descriptor, $0, &addressSize) }
        evhttp_set_allowed_methods(http, UInt16.max)
        evhttp_set_default_content_type(http, nil)
        let this = Unmanaged.passUnretained(self).toOpaque()
        evhttp_set_bevcb(
            http,
            { base, context in
                guard let context else { return nil }
                return Unmanaged<ParserPool>.fromOpaque(context).takeUnretainedValue().accepted(base)
            },
            this
        )
        evhttp_set_gencb(
            http,
            { request, context in
                guard let request, let context else { return }
                Unmanaged<ParserPool>.fromOpaque(context).takeUnretainedValue().dispatch(request)
            },
            this
        )
        evhttp_bind_listener(http, listener)
        // Out of descriptors, the socket stays readable: the loop would spin.
        evconnlistener_set_error_cb(listener) { listener, _ in evconnlistener_disable(listener) }
        make(ParserPool.leastMade)
    }

    /// Frees those that are not lent; the last thing to call.
    func close() {
        adoptNewcomers()
        for parser in spares { parser.free() }
        spares.removeAll()
    }

    deinit {
        evhttp_free(http)
    }

    // MARK: Lending

    /// A parser for a client's whole request; nil when there is none, or others wait for one.
    func lend(to client: InboundConnection) -> RequestParser? {
        guard waiting.count == 0 || waiting.isEmpty, let parser = spares.popLast() else { return nil }
        leastSpares = min(leastSpares, spares.count)
        parser.client = client
        return parser
    }

    /// The client goes on once there is a parser for it.
    func waitFor(_ client: InboundConnection) {
        client.wait(for: .parser)
        waiting.append(client)
    }

    /// The client needs it no more.
    func takeBack(_ parser: RequestParser) {
        parser.client = nil
        if spares.count >= ParserPool.keptAsTheyAre { parser.shrink() }
        spares.append(parser)
    }

    /// evhttp has closed it.
    func forget(_ parser: RequestParser) {
        count -= 1
    }

    /// Lets clients go on that have waited, and makes more for those that still have to; evhttp is on no stack.
    func endTurn() {
        adoptNewcomers()
        while !spares.isEmpty, waiting.count > 0, let next = waiting.first {
            waiting.removeFirst()
            let parser = spares.removeLast()
            parser.client = next.connection
            next.connection.goOn(with: parser)
        }
        leastSpares = min(leastSpares, spares.count)
        if waiting.count > 0 { make(max(ParserPool.leastMade, waiting.count)) }
    }

    // MARK: Making and freeing

    private func make(_ wanted: Int) {
        let most = min(wanted, Int(ParserPool.backlog), limit - count)
        while pendingCount + newcomers.count < most, connect() { pendingCount += 1 }
    }

    /// Has the listener get a connection, which nothing is ever sent over.
    private func connect() -> Bool {
        let descriptor = ParserPool.openSocket()
        guard descriptor >= 0 else { return false }
        defer { Glibc.close(descriptor) }
        // evhttp looks for the name of the other side.
        guard ParserPool.name(descriptor) else { return false }
        return withSockaddr { Glibc.connect(descriptor, $0, addressSize) } == 0
    }

    private func accepted(_ base: OpaquePointer?) -> OpaquePointer? {
        let parser = RequestParser(pool: self, base: base)
        pendingCount = max(0, pendingCount - 1)
        newcomers.append(parser)
        return parser.forEvhttp
    }

    /// Takes in what evhttp has set up by now.
    private func adoptNewcomers() {
        guard !newcomers.isEmpty else { return }
        for parser in newcomers where parser.adopt() {
            count += 1
            // More than were asked for are of another process's connections.
            if count <= limit { spares.append(parser) } else { parser.free() }
        }
        newcomers.removeAll(keepingCapacity: true)
    }

    /// Half of what was not needed is freed at a time: the next requests may come in a burst as the last ones did. To be
    /// called now and then, when evhttp is on no stack.
    func trim() {
        let unneeded = max(count - limit, min((leastSpares + 1) / 2, spares.count - ParserPool.leastMade), 0)
        for parser in spares.prefix(unneeded) { parser.free() }
        spares.removeFirst(min(unneeded, spares.count))
        leastSpares = spares.count
        evconnlistener_enable(listener)
    }

    private func dispatch(_ request: UnsafeMutablePointer<evhttp_request>) {
        // Where nobody is reading, somebody else has found the listener, and evhttp has read what came from there.
        guard let parser = parsing, let client = parser.client else { return evhttp_send_error(request, 503, nil) }
        onRequest(client, request)
    }

    private static func openSocket() -> Int32 {
        socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }

    private static func name(_ descriptor: Int32) -> Bool {
        var family = sockaddr()
        family.sa_family = sa_family_t(AF_UNIX)
        return bind(descriptor, &family, socklen_t(MemoryLayout<sa_family_t>.size)) == 0
    }

    private func withSockaddr(_ body: (UnsafeMutablePointer<sockaddr>) -> Int32) -> Int32 {
        withUnsafeMutableBytes(of: &address) { bytes in
            guard let base = bytes.baseAddress else { return -1 }
            return body(base.assumingMemoryBound(to: sockaddr.self))
        }
    }

    private static let backlog: Int32 = 64
    private static let leastMade = 4
    /// So many keep the memory that their last request has needed: the next ones are likely to be alike.
    private static let keptAsTheyAre = 64
}
