// Asynchronous HTTP requests on libevent's evhttp: to Consul, and shardd's own to shards. Not for clients' pushes.
// A call owns its connection and ends with one outcome; letting go of the call cancels it.
import CEvent
import Glibc

/// A request to make.
struct HTTPRequest {
    var method = Method.get
    /// Name or literal, without brackets.
    var host: String
    var port: Int
    /// nil for plain HTTP.
    var tls: TLSContext?
    /// Path and query.
    var target: String
    var headers: [(name: String, value: String)] = []
    var body: [UInt8] = []
    /// From the start to the whole response.
    var timeout: TimeSpan
    /// A longer response is a failure.
    var bodyLimit = 1 << 20
    /// Whether the response's body is left in the pieces in which it came: putting tens of megabytes together holds a loop up.
    var leavesPieces = false
    /// Whether the head of a response with status 200 is all that is wanted: the connection is closed when it has come.
    var endsAtGoodHead = false
}

/// A response, as a whole.
struct HTTPResponse {
    var status: Int
    var headers: [(name: String, value: String)]
    var body: [UInt8]
    /// The body instead, where the request leaves it so.
    var pieces: [[UInt8]] = []

    /// The value of a header, whatever the case of its name.
    func header(_ name: String) -> String? {
        headers.first { $0.name.lowercased() == name.lowercased() }?.value
    }
}

/// How a call ended.
enum HTTPOutcome {
    case response(HTTPResponse)
    /// There was no response: the reason.
    case failed(String)
}

/// One request under way; loop-confined.
final class HTTPCall {
    private let loop: EventLoop
    private let request: HTTPRequest
    private var done: ((HTTPOutcome) -> Void)?
    private var connection: OpaquePointer?
    private var bufferevent: OpaquePointer?
    private var timer: Timer?
    private var connectTimer: Timer?
    private var untried: ArraySlice<SocketAddress> = []
    /// Why there is no response, should there be no further address to try.
    private var failure = "it has no address"
    /// What the timer, when it fires, ends the call with.
    private var verdict = HTTPOutcome.failed("its name does not resolve in time")
    private var isDecided = false
    /// Whether the connection stands and the request has gone out on it.
    private(set) var isSent = false
    private var receivedCount = 0
    private var pieces: [[UInt8]] = []
    /// Whether the time was up with the connection standing and the request sent.
    private(set) var hasWaitedInVain = false
    /// Whether anything was received, be it a response or not.
    var hasReceived: Bool { receivedCount > 0 }

    /// Starts the request; `done` is called once, in a later turn.
    init(loop: EventLoop, resolver: Resolver, _ request: HTTPRequest, _ done: @escaping (HTTPOutcome) -> Void) {
        loop.assertOnLoop()
        self.loop = loop
        self.request = request
        self.done = done
        // evhttp's own time limit is on silence, not on the whole.
        timer = Timer(loop: loop) { [unowned self] in
            hasWaitedInVain = isSent && !isDecided
            end(verdict)
        }
        timer?.schedule(after: request.timeout)
        resolver.resolve(request.host, port: request.port) { [weak self] resolution in
            guard let self else { return }
            untried = resolution.addresses[...]
            if let failure = resolution.failure { self.failure = "its name does not resolve: \(failure)" }
            tryNext()
        }
    }

    deinit {
        loop.assertOnLoop()
        if done != nil { takeBack() }
        close()
    }

    private func tryNext() {
        guard !isDecided else { return }
        verdict = .failed("no connection in time")
        guard let address = untried.popFirst(), connect(to: address) else { return decide(.failed(failure)) }
        guard !untried.isEmpty else { return }
        // An address that swallows packets must not use up the time of those after it.
        connectTimer = Timer(loop: loop) { [unowned self] in
            guard !isSent else { return }
            close()
            failure = "no connection in time"
            tryNext()
        }
        connectTimer?.schedule(
            after: min(HTTPCall.connectLimit, TimeSpan(nanoseconds: request.timeout.nanoseconds / 4))
        )
    }

    private func connect(to address: SocketAddress) -> Bool {
        isSent = false
        receivedCount = 0
        pieces = []
        bufferevent =
            request.tls.map { $0.makeBufferevent(loop: loop, host: request.host) }
            ?? bufferevent_socket_new(loop.base, -1, Int32(BEV_OPT_CLOSE_ON_FREE.rawValue))
        connection = evhttp_connection_base_bufferevent_new(
            loop.base,
            nil,
            bufferevent,
            address.host,
            UInt16(request.port)
        )
        guard let connection else { return false }
        var limit = timeval(tv_sec: Int(request.timeout.seconds) + 1, tv_usec: 0)
        evhttp_connection_set_timeout_tv(connection, &limit)
        evhttp_connection_set_max_headers_size(connection, HTTPCall.headLimit)
        evhttp_connection_set_max_body_size(connection, request.bodyLimit)
        watchBytes()
        let this = Unmanaged.passUnretained(self).toOpaque()
        let outgoing = evhttp_request_new(
            { response, context in
                guard let context else { return }
                Unmanaged<HTTPCall>.fromOpaque(context).takeUnretainedValue().responded(response)
            },
            this
        )
        guard let outgoing else { return false }
        evhttp_request_set_error_cb(outgoing) { error, context in
            guard let context else { return }
            Unmanaged<HTTPCall>.fromOpaque(context).takeUnretainedValue().failed(error, errno)
        }
        if request.leavesPieces {
            evhttp_request_set_chunked_cb(outgoing) { response, context in
                guard let context, let response else { return }
                Unmanaged<HTTPCall>.fromOpaque(context).takeUnretainedValue().receivedPiece(of: response)
            }
        }
        if request.endsAtGoodHead {
            evhttp_request_set_header_cb(outgoing) { response, context in
                guard let context, let response else { return 0 }
                Unmanaged<HTTPCall>.fromOpaque(context).takeUnretainedValue().receivedHead(of: response)
                return 0
            }
        }
        guard addHeaders(to: outgoing) else {
            evhttp_request_free(outgoing)
            failure = "a header of the request has bytes that no header may have"
            return false
        }
        return evhttp_make_request(connection, outgoing, command, request.target) == 0
    }

    /// Sees the bytes that go out and come in: evhttp neither says that a connection stands, nor has a limit for the
    /// size line of a chunk.
    private func watchBytes() {
        let this = Unmanaged.passUnretained(self).toOpaque()
        evbuffer_add_cb(
            bufferevent_get_output(bufferevent),
            { _, _, context in
                guard let context else { return }
                Unmanaged<HTTPCall>.fromOpaque(context).takeUnretainedValue().sent()
            },
            this
        )
        evbuffer_add_cb(
            bufferevent_get_input(bufferevent),
            { _, change, context in
                guard let context, let change else { return }
                Unmanaged<HTTPCall>.fromOpaque(context).takeUnretainedValue().received(change.pointee.n_added)
            },
            this
        )
    }

    private func addHeaders(to outgoing: UnsafeMutablePointer<evhttp_request>) -> Bool {
        let headers = outgoing.pointee.output_headers
        var isFine = evhttp_add_header(headers, "Host", ShardAddress(host: request.host, port: request.port).text) == 0
        evhttp_add_header(headers, "Connection", "close")
        for header in request.headers where evhttp_add_header(headers, header.name, header.value) != 0 {
            isFine = false
        }
        if !request.body.isEmpty { evbuffer_add(outgoing.pointee.output_buffer, request.body, request.body.count) }
        return isFine
    }

    private var command: evhttp_cmd_type {
        switch request.method {
        case .put: EVHTTP_REQ_PUT
        case .post: EVHTTP_REQ_POST
        case .delete: EVHTTP_REQ_DELETE
        default: EVHTTP_REQ_GET
        }
    }

    private func sent() {
        guard !isSent else { return }
        isSent = true
        if !isDecided { verdict = .failed("no response in time") }
    }

    private func received(_ count: Int) {
        receivedCount += count
        // Twice, since chunks may be small.
        guard receivedCount > HTTPCall.headLimit + 2 * request.bodyLimit else { return }
        decide(.failed(HTTPCall.unusable))
    }

    /// evhttp says why, before it says that there is no response.
    private func failed(_ error: evhttp_request_error, _ systemError: Int32) {
        switch error {
        case EVREQ_HTTP_TIMEOUT: failure = "no response in time"
        case EVREQ_HTTP_INVALID_HEADER, EVREQ_HTTP_DATA_TOO_LONG: failure = HTTPCall.unusable
        default:
            let plain =
                isSent
                ? "the connection was closed without a response"
                : "it cannot be connected to: \(String(cString: strerror(systemError)))"
            failure = bufferevent.flatMap(TLSContext.failure) ?? plain
        }
    }

    /// evhttp has a response, or nothing; this may run inside of `evhttp_make_request`.
    private func responded(_ response: UnsafeMutablePointer<evhttp_request>?) {
        guard let response, response.pointee.response_code != 0 else {
            // A response without a status is how evhttp says that the connection was refused.
            if response != nil { failure = bufferevent.flatMap(TLSContext.failure) ?? "it refuses connections" }
            connectTimer?.cancel()
            loop.park { [weak self] in
                self?.close()
                self?.tryNext()
            }
            return
        }
        decide(.response(copy(response)))
    }

    private func copy(_ response: UnsafeMutablePointer<evhttp_request>) -> HTTPResponse {
        var headers: [(name: String, value: String)] = []
        var next = shardd_first_header(response.pointee.input_headers)
        while let header = next {
            headers.append((String(cString: header.pointee.key), String(cString: header.pointee.value)))
            next = header.pointee.next.tqe_next
        }
        return HTTPResponse(
            status: Int(response.pointee.response_code),
            headers: headers,
            body: body(of: response),
            pieces: pieces
        )
    }

    private func receivedHead(of response: UnsafeMutablePointer<evhttp_request>) {
        if response.pointee.response_code == 200 { decide(.response(copy(response))) }
    }

    /// evhttp forgets it afterwards.
    private func receivedPiece(of response: UnsafeMutablePointer<evhttp_request>) {
        pieces.append(body(of: response))
    }

    private func body(of response: UnsafeMutablePointer<evhttp_request>) -> [UInt8] {
        let count = evbuffer_get_length(response.pointee.input_buffer)
        return [UInt8](unsafeUninitializedCapacity: count) { bytes, written in
            written = evbuffer_copyout(response.pointee.input_buffer, bytes.baseAddress, count)
        }
    }

    /// Ends the call in a turn of its own: neither within a callback of evhttp's, nor before `init` has returned.
    private func decide(_ outcome: HTTPOutcome) {
        guard !isDecided else { return }
        isDecided = true
        verdict = outcome
        connectTimer = nil
        timer?.schedule(after: .zero)
    }

    private func end(_ outcome: HTTPOutcome) {
        isDecided = true
        let done = self.done
        self.done = nil
        connectTimer = nil
        if case .failed = outcome { takeBack() }
        close()
        done?(outcome)
    }

    /// Resets the connection, so that the kernel drops what it has not delivered of the request. evhttp shuts a connection
    /// down before it closes it, for which the option to reset on closing comes too late; leaving its peer resets it now.
    private func takeBack() {
        guard let bufferevent else { return }
        var nobody = sockaddr(sa_family: sa_family_t(AF_UNSPEC), sa_data: (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
        _ = Glibc.connect(bufferevent_getfd(bufferevent), &nobody, socklen_t(MemoryLayout<sockaddr>.size))
    }

    /// Frees the connection, and the request with it; evhttp must not be on the stack.
    private func close() {
        guard let connection else { return }
        self.connection = nil
        bufferevent = nil
        evhttp_connection_free(connection)
    }

    /// evhttp does not tell the one from the other.
    private static let unusable = "the response is not HTTP, or too long"
    private static let headLimit = 64 << 10
    /// How long connecting to one of several addresses may take.
    private static let connectLimit = TimeSpan.seconds(1)
}
