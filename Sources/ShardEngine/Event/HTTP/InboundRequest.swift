// Reading the outstanding request of an inbound connection, and what evhttp will do with the connection after it.
// PushHandler and the admin endpoints look at requests through these; pipelines copy them out.
import CEvent
import Glibc

/// One header of a request, as evhttp keeps it.
struct RequestHeader {
    let name: UnsafeRawBufferPointer
    let value: UnsafeRawBufferPointer

    fileprivate init(_ header: evkeyval) {
        name = UnsafeRawBufferPointer(start: header.key, count: strlen(header.key))
        value = UnsafeRawBufferPointer(start: header.value, count: strlen(header.value))
    }
}

extension InboundConnection {
    private var outstanding: UnsafeMutablePointer<evhttp_request> {
        guard let request else { preconditionFailure("no request is outstanding") }
        return request
    }

    /// The request's method.
    var method: Method {
        switch outstanding.pointee.type {
        case EVHTTP_REQ_PUT: .put
        case EVHTTP_REQ_POST: .post
        case EVHTTP_REQ_DELETE: .delete
        case EVHTTP_REQ_HEAD: .head
        case EVHTTP_REQ_OPTIONS: .options
        case EVHTTP_REQ_PATCH: .patch
        case EVHTTP_REQ_TRACE: .trace
        default: .get
        }
    }

    /// Path and query as the client sent them; of an absolute-form target, what follows the authority.
    var target: UnsafeRawBufferPointer {
        let whole = UnsafeRawBufferPointer(start: outstanding.pointee.uri, count: strlen(outstanding.pointee.uri))
        return isProxyRequest ? withoutAuthority(whole) : whole
    }

    /// The body's length in bytes.
    var bodyCount: Int { evbuffer_get_length(outstanding.pointee.input_buffer) }

    /// Copies the body out; it stays where it is.
    func copyBody(to target: UnsafeMutableRawPointer, count: Int) {
        evbuffer_copyout(outstanding.pointee.input_buffer, target, count)
    }

    /// Takes the body out of the request.
    func takeBody() -> BodyBuffer {
        BodyBuffer(taking: outstanding.pointee.input_buffer)
    }

    /// Calls `body` with each header, in the order in which they came.
    @inline(__always)
    func forEachHeader(_ body: (RequestHeader) -> Void) {
        var next = shardd_first_header(outstanding.pointee.input_headers)
        while let header = next {
            body(RequestHeader(header.pointee))
            next = header.pointee.next.tqe_next
        }
    }

    /// Whether a Connection header names this header, which then must not be passed on.
    func connectionNames(_ name: UnsafeRawBufferPointer) -> Bool {
        var isNamed = false
        forEachHeader { header in
            if equalsIgnoringCase(header.name, "connection"), containsToken(header.value, name) { isNamed = true }
        }
        return isNamed
    }

    /// Whether the response has to tell the client, of HTTP/1.0, that the connection stays.
    var announcesKeepAlive: Bool { !closesAfterReply && !isHTTP11(outstanding) }

    /// Whether the target names a scheme and host, as requests to a proxy do.
    private var isProxyRequest: Bool { outstanding.pointee.uri[0] != 0x2F }

    /// What the client says of the connection: whether, by its wish or by the version it speaks, it ends with this
    /// request, and whether headers are named that belong to it.
    func readConnectionHeaders() -> (isLast: Bool, nameHeaders: Bool) {
        var isLast = !isHTTP11(outstanding)
        var asksForClose = false
        var nameHeaders = false
        forEachHeader { header in
            guard header.name.count == 10, equalsIgnoringCase(header.name, "connection") else { return }
            forEachToken(of: header.value) { token in
                if equalsIgnoringCase(token, "close") {
                    asksForClose = true
                } else if equalsIgnoringCase(token, "keep-alive") {
                    isLast = false
                } else {
                    nameHeaders = true
                }
            }
        }
        return (isLast || asksForClose, nameHeaders)
    }

    private func isHTTP11(_ request: UnsafeMutablePointer<evhttp_request>) -> Bool {
        request.pointee.major > 1 || request.pointee.major == 1 && request.pointee.minor >= 1
    }

    private func withoutAuthority(_ target: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard let colon = target.firstIndex(of: 0x3A), target.count > colon + 3 else { return target }
        let path = target[(colon + 3)...].firstIndex(of: 0x2F) ?? target.endIndex
        return UnsafeRawBufferPointer(rebasing: target[path...])
    }
}
