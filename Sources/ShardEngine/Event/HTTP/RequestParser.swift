// evhttp's part of a request: it parses the headers. There is one for each request that waits for its answer, not for each
// client: a connection borrows one from the pool with a whole request, and gives it back with the answer.
//
// evhttp owns its connection, the request, and the socket that it knows the connection by, which leads nowhere (see
// ParserPool). It is given the headers below a request line that is always the same: the Gate alone decides what the target
// is, and how long the body, which stays here. Nothing may touch a request after `complete`.
import CEvent
import Glibc

/// A parser of headers, and what else there is of their request; confined to the loop of its server.
final class RequestParser {
    /// Whom it is lent to; its connection has it, so that it lives as long.
    unowned(unsafe) var client: InboundConnection?
    /// What the Gate has found.
    private(set) var head = RequestHead()
    private unowned(unsafe) let pool: ParserPool
    private let bufferevent: OpaquePointer
    /// evhttp's; nil before this object is adopted and after evhttp has closed it.
    private var connection: OpaquePointer?
    private var isBetweenRequests = true
    /// The target, its authority, and the body of a small request.
    private var text = ByteBuffer(capacity: 256)
    private var targetCount = 0
    private var authorityCount = 0
    /// The body of one that is large or did not come in one piece.
    private var buffer: BodyBuffer?

    init(pool: ParserPool, base: OpaquePointer?) {
        self.pool = pool
        guard let bufferevent = bufferevent_socket_new(base, -1, 0) else { preconditionFailure("out of memory") }
        self.bufferevent = bufferevent
        bufferevent_incref(bufferevent)
    }

    /// What evhttp is to read from and write to.
    var forEvhttp: OpaquePointer { bufferevent }

    /// Takes the socket from the bufferevent, at the end of the turn in which evhttp has accepted it.
    ///
    /// - Returns: false when evhttp has closed it already; this object is then of no more use.
    func adopt() -> Bool {
        var context: UnsafeMutableRawPointer?
        bufferevent_getcb(bufferevent, nil, nil, nil, &context)
        defer { bufferevent_decref(bufferevent) }
        guard let context else { return false }
        let connection = OpaquePointer(context)
        self.connection = connection
        bufferevent_setfd(bufferevent, -1)
        evhttp_connection_set_closecb(
            connection,
            { _, context in
                guard let context else { return }
                Unmanaged<RequestParser>.fromOpaque(context).takeUnretainedValue().closed()
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        return true
    }

    /// Whether another client can have it.
    var isReusable: Bool { connection != nil && isBetweenRequests && isEmpty }

    /// Whether evhttp has read all that it was given, and said nothing of its own.
    var isEmpty: Bool {
        evbuffer_get_length(bufferevent_get_input(bufferevent)) == 0
            && evbuffer_get_length(bufferevent_get_output(bufferevent)) == 0
    }

    /// Takes a whole request; evhttp hands it over before this returns.
    ///
    /// - Parameters:
    ///   - bytes: the head, and perhaps more.
    ///   - body: the body, unless `buffer` has it.
    func parse(
        _ bytes: UnsafeRawBufferPointer,
        _ head: RequestHead,
        body: UnsafeRawBufferPointer,
        buffer: BodyBuffer? = nil
    ) {
        self.head = head
        self.buffer = buffer
        text.reset(keeping: RequestParser.mostTextKept)
        // An empty path is the root (RFC 9112, section 3.2.1).
        if head.target.start == head.target.end || bytes[head.target.start] != 0x2F { text.append(byte: 0x2F) }
        text.append(UnsafeRawBufferPointer(rebasing: bytes[head.target.start..<head.target.end]))
        targetCount = text.count
        authorityCount = head.authority.end - head.authority.start
        text.append(UnsafeRawBufferPointer(rebasing: bytes[head.authority.start..<head.authority.end]))
        text.append(body)
        let input = bufferevent_get_input(bufferevent)
        let line = RequestParser.requestLine
        let rest = UnsafeRawBufferPointer(rebasing: bytes[head.requestTargetEnd..<head.byteCount])
        evbuffer_add(input, line.utf8Start, line.utf8CodeUnitCount)
        evbuffer_add(input, rest.baseAddress, rest.count)
        isBetweenRequests = false
        pool.parsing = self
        defer { pool.parsing = nil }
        bufferevent_trigger(bufferevent, Int16(EV_READ), 0)
    }

    /// Whether evhttp is reading bytes with it.
    var isParsing: Bool { pool.parsing === self }

    /// Path and query as the client sent them.
    var target: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: text.readable[..<targetCount]) }

    /// Host and port of an absolute-form target; else empty.
    var authority: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: text.readable[targetCount..<(targetCount + authorityCount)])
    }

    /// The body.
    var body: UnsafeRawBufferPointer {
        buffer?.bytes ?? UnsafeRawBufferPointer(rebasing: text.readable[(targetCount + authorityCount)...])
    }

    /// The body as an object of its own, where it is one.
    var bodyBuffer: BodyBuffer? { buffer }

    /// Gives an answered request back to evhttp, which makes ready for the next one. Some requests are the last ones of a
    /// connection by evhttp's rules; it is to keep its own all the same.
    func complete(_ request: UnsafeMutablePointer<evhttp_request>) {
        isBetweenRequests = true
        buffer = nil
        request.pointee.flags &= ~EVHTTP_PROXY_REQUEST
        request.pointee.major = 1
        request.pointee.minor = 1
        evhttp_clear_headers(request.pointee.input_headers)
        request.pointee.chunked = 0
        evhttp_send_reply_end(request)
    }

    /// Gives memory back that few requests need.
    func shrink() {
        text.reset(keeping: RequestParser.usualText)
    }

    /// Ends it, with the request that it may have; evhttp must be on no stack.
    func free() {
        if let connection { evhttp_connection_free(connection) }
    }

    /// evhttp is closing its connection, and with it the request, if there is one.
    private func closed() {
        connection = nil
        buffer = nil
        pool.forget(self)
        client?.parserIsGone()
    }

    /// What evhttp reads in place of method and target. Of a TRACE it expects no body, whatever the headers say.
    private static var requestLine: StaticString { "TRACE /" }
    private static let mostTextKept = 1 << 16
    private static let usualText = 1024
}
