// Asynchronous HTTP requests on libevent's evhttp: to Consul, to shards' health checks. Not for pushes.
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
}

/// A response, as a whole.
struct HTTPResponse {
    var status: Int
    var headers: [(name: String, value: String)]
    var body: [UInt8]

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
    private var untried: ArraySlice<SocketAddress> = []
    private var failure = unknown

    /// Starts the request; `done` is called once, later, from the end of a turn.
    init(loop: EventLoop, resolver: Resolver, _ request: HTTPRequest, _ done: @escaping (HTTPOutcome) -> Void) {
        self.loop = loop
        self.request = request
        self.done = done
        // evhttp's own time limit is on silence, not on the whole.
        timer = Timer(loop: loop) { [unowned self] in end(.failed("no response in time")) }
        timer?.schedule(after: request.timeout)
        resolver.resolve(request.host, port: request.port) { [weak self] resolution in
            guard let self else { return }
            untried = resolution.addresses[...]
            if let failure = resolution.failure { self.failure = "its name does not resolve: \(failure)" }
            tryNext()
        }
    }

    deinit {
        close()
    }

    private func tryNext() {
        guard done != nil else { return }
        guard let address = untried.popFirst(), connect(to: address) else { return endLater(.failed(failure)) }
    }

    private func connect(to address: SocketAddress) -> Bool {
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
        evhttp_connection_set_max_body_size(connection, HTTPCall.bodyLimit)
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
            Unmanaged<HTTPCall>.fromOpaque(context).takeUnretainedValue().failed(error)
        }
        addHeaders(to: outgoing)
        return evhttp_make_request(connection, outgoing, command, request.target) == 0
    }

    private func addHeaders(to outgoing: UnsafeMutablePointer<evhttp_request>) {
        let headers = outgoing.pointee.output_headers
        evhttp_add_header(headers, "Host", ShardAddress(host: request.host, port: request.port).text)
        evhttp_add_header(headers, "Connection", "close")
        for header in request.headers { evhttp_add_header(headers, header.name, header.value) }
        guard !request.body.isEmpty else { return }
        evbuffer_add(outgoing.pointee.output_buffer, request.body, request.body.count)
    }

    private var command: evhttp_cmd_type {
        switch request.method {
        case .put: EVHTTP_REQ_PUT
        case .post: EVHTTP_REQ_POST
        case .delete: EVHTTP_REQ_DELETE
        default: EVHTTP_REQ_GET
        }
    }

    /// evhttp says why, before it says that there is no response.
    private func failed(_ error: evhttp_request_error) {
        switch error {
        case EVREQ_HTTP_TIMEOUT: failure = "no response in time"
        case EVREQ_HTTP_INVALID_HEADER: failure = "the response is not HTTP"
        case EVREQ_HTTP_DATA_TOO_LONG: failure = "the response is too long"
        default: failure = bufferevent.flatMap(TLSContext.failure) ?? "the connection was closed without a response"
        }
    }

    /// evhttp has a response, or nothing; this may run inside of `evhttp_make_request`.
    private func responded(_ response: UnsafeMutablePointer<evhttp_request>?) {
        guard let response, response.pointee.response_code != 0 else {
            // evhttp does not tell more of a connection that could not be made.
            if response != nil || failure == HTTPCall.unknown {
                failure = bufferevent.flatMap(TLSContext.failure) ?? "it cannot be connected to"
            }
            loop.park { [weak self] in
                self?.close()
                self?.tryNext()
            }
            return
        }
        endLater(.response(copy(response)))
    }

    private func copy(_ response: UnsafeMutablePointer<evhttp_request>) -> HTTPResponse {
        var headers: [(name: String, value: String)] = []
        var next = shardd_first_header(response.pointee.input_headers)
        while let header = next {
            headers.append((String(cString: header.pointee.key), String(cString: header.pointee.value)))
            next = header.pointee.next.tqe_next
        }
        let count = evbuffer_get_length(response.pointee.input_buffer)
        let body = [UInt8](unsafeUninitializedCapacity: count) { bytes, written in
            written = evbuffer_copyout(response.pointee.input_buffer, bytes.baseAddress, count)
        }
        return HTTPResponse(status: Int(response.pointee.response_code), headers: headers, body: body)
    }

    private func endLater(_ outcome: HTTPOutcome) {
        loop.park { [weak self] in self?.end(outcome) }
    }

    private func end(_ outcome: HTTPOutcome) {
        guard let done else { return }
        self.done = nil
        timer?.cancel()
        close()
        done(outcome)
    }

    /// Frees the connection, and the request with it; evhttp must not be on the stack.
    private func close() {
        guard let connection else { return }
        self.connection = nil
        bufferevent = nil
        evhttp_connection_free(connection)
    }

    private static let bodyLimit = 64 << 20
    private static let unknown = "no response"
}
