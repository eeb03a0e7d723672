// Reading the outstanding request of an inbound connection: what the Gate has found in it, and the headers, which evhttp has.
// PushHandler and the admin endpoints look at requests through these; pipelines copy them out.
import CEvent
import Glibc

/// One header of a request, as evhttp keeps it.
struct RequestHeader {
    let name: UnsafeRawBufferPointer
    let value: UnsafeRawBufferPointer

    fileprivate init(_ header: evkeyval) {
        name = UnsafeRawBufferPointer(start: header.key, count: strlen(header.key))
        value = RequestHeader.value(of: header)
    }

    /// The value without blanks around it (RFC 9110, section 5.5): evhttp leaves tabs.
    @inline(__always)
    fileprivate static func value(of header: evkeyval) -> UnsafeRawBufferPointer {
        guard var start = UnsafePointer(header.value) else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        var count = strlen(start)
        while count > 0, start[count - 1] == 0x20 || start[count - 1] == 0x09 { count -= 1 }
        while count > 0, start[0] == 0x20 || start[0] == 0x09 { (start, count) = (start + 1, count - 1) }
        return UnsafeRawBufferPointer(start: start, count: count)
    }
}

extension InboundConnection {
    private var outstanding: UnsafeMutablePointer<evhttp_request> {
        guard let request else { preconditionFailure("no request is outstanding") }
        return request
    }

    private var lent: RequestParser {
        guard let parser else { preconditionFailure("no request is outstanding") }
        return parser
    }

    /// The request's method.
    var method: Method { lent.head.method }

    /// Path and query as the client sent them; of an absolute-form target, what follows the authority.
    var target: UnsafeRawBufferPointer { lent.target }

    /// Host and port of an absolute-form target, which take the place of the Host header; else empty.
    var authority: UnsafeRawBufferPointer { lent.authority }

    /// The body; it stays where it is until the answer.
    var body: UnsafeRawBufferPointer { lent.body }

    /// The body's length in bytes.
    var bodyCount: Int { body.count }

    /// The body as an object that may outlive the request, where it is large or did not come in one piece.
    var bodyBuffer: BodyBuffer? { lent.bodyBuffer }

    /// The first Content-Type and the first Content-Encoding header that go to a shard; nil where there is none. One that
    /// Connection names does not.
    func bodyHeaders() -> (type: UnsafeRawBufferPointer?, coding: UnsafeRawBufferPointer?) {
        var type: UnsafeRawBufferPointer?
        var coding: UnsafeRawBufferPointer?
        let options = connectionOptions
        var next = shardd_first_header(outstanding.pointee.input_headers)
        while let header = next {
            next = header.pointee.next.tqe_next
            // Most headers differ in their first letters; each key ends with a NUL, so that none is read past its end.
            guard let key = header.pointee.key, key[0] | 0x20 == 0x63, key[1] | 0x20 == 0x6F, key[2] | 0x20 == 0x6E,
                key[3] | 0x20 == 0x74
            else { continue }
            if let options, options.contains(HeaderName(RequestHeader(header.pointee).name)) { continue }
            if type == nil, strcasecmp(key, "content-type") == 0 {
                type = RequestHeader.value(of: header.pointee)
            } else if coding == nil, strcasecmp(key, "content-encoding") == 0 {
                coding = RequestHeader.value(of: header.pointee)
            }
        }
        return (type, coding)
    }

    /// Path and query as they go to a shard: the client's, unless they have been rewritten.
    var forwardedTarget: UnsafeRawBufferPointer { rewrittenTarget?.bytes ?? target }

    /// Calls `body` with each header, in the order in which they came.
    @inline(__always)
    func forEachHeader(_ body: (RequestHeader) -> Void) {
        var next = shardd_first_header(outstanding.pointee.input_headers)
        while let header = next {
            body(RequestHeader(header.pointee))
            next = header.pointee.next.tqe_next
        }
    }

    /// Whether the client takes gzip (RFC 9110, section 12.5.3).
    var acceptsGzip: Bool {
        var accepts: Bool?
        var acceptsAny = false
        forEachHeader { header in
            guard header.name.count == 15, equalsIgnoringCase(header.name, "accept-encoding") else { return }
            forEachToken(of: header.value) { element in
                let end = element.firstIndex { $0 == 0x3B || $0 == 0x20 || $0 == 0x09 } ?? element.endIndex
                let coding = UnsafeRawBufferPointer(rebasing: element[..<end])
                // A weight of zero is all zeros: q=0, q=0.0, q=0.000.
                let weight = element[end...].drop { $0 != 0x3D }.dropFirst()
                let isWanted = weight.isEmpty || !weight.allSatisfy { $0 == 0x30 || $0 == 0x2E || $0 == 0x20 }
                if equalsIgnoringCase(coding, "gzip") || equalsIgnoringCase(coding, "x-gzip") { accepts = isWanted }
                if equalsIgnoringCase(coding, "*") { acceptsAny = isWanted }
            }
        }
        return accepts ?? acceptsAny
    }

    /// The headers that Connection names, which must not be passed on; nil for none.
    var connectionOptions: Set<HeaderName>? {
        guard lent.head.namesHeaders else { return nil }
        var options = Set<HeaderName>()
        forEachHeader { header in
            guard header.name.count == 10, equalsIgnoringCase(header.name, "connection") else { return }
            forEachToken(of: header.value) { options.insert(HeaderName($0)) }
        }
        return options
    }

    /// Whether the response has to tell the client, of HTTP/1.0, that the connection stays.
    var announcesKeepAlive: Bool { !closesAfterReply && !lent.head.isHTTP11 }
}
