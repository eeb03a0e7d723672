// evhttp's part of a connection, which parses requests. There is one for each request that is under way, not for each
// client: a connection borrows one from the pool with the first bytes of a request, and gives it back with the answer.
//
// evhttp owns its connection, the request, and the socket that it knows the connection by, which leads nowhere (see
// ParserPool). It is given, through its bufferevent, the bytes of one request at a time, after the Gate has passed them;
// the bufferevent itself has no descriptor. Nothing may touch a request after `complete`.
import CEvent
import Glibc

/// A parser of requests; confined to the loop of its server.
final class RequestParser {
    /// What has come of the present request; its limits are set as the request begins.
    var gate = Gate(limits: Gate.Limits(headerBytes: 0, bodyBytes: 0))
    /// Whom it is lent to; its connection has it, so that it lives as long.
    unowned(unsafe) var client: InboundConnection?
    private unowned(unsafe) let pool: ParserPool
    private let bufferevent: OpaquePointer
    /// evhttp's; nil before this object is adopted and after evhttp has closed it.
    private var connection: OpaquePointer?
    private var isBetweenRequests = true
    /// What has come of a large body.
    private(set) var incomingBody: IncomingBody?

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

    /// Whether evhttp has read all that it was given, and said nothing that was not sent.
    var isEmpty: Bool {
        evbuffer_get_length(bufferevent_get_input(bufferevent)) == 0
            && evbuffer_get_length(bufferevent_get_output(bufferevent)) == 0
    }

    /// Has evhttp read some bytes of a request; with the last ones it hands the request over, before this returns.
    func parse(_ bytes: UnsafeRawBufferPointer) {
        evbuffer_add(bufferevent_get_input(bufferevent), bytes.baseAddress, bytes.count)
        parseInput()
    }

    private func parseInput() {
        isBetweenRequests = false
        pool.parsing = self
        defer { pool.parsing = nil }
        bufferevent_trigger(bufferevent, Int16(EV_READ), 0)
    }

    /// How many bytes of the present body are to come, where its head has told; else 0.
    var bodyBytesToCome: Int { gate.place == .sizedBody ? gate.bodyBytes : 0 }

    /// Receives more of the rest of a body, all of which has to come this way; evhttp is given it when it is whole, and
    /// hands the request over before this returns.
    ///
    /// - Returns: what recv(2) does; `limit` if there may be more.
    func receiveBody(from descriptor: Int32, limit: Int) -> Int {
        let rest = incomingBody ?? IncomingBody(byteCount: gate.bodyBytes)
        incomingBody = rest
        let count = rest.receive(from: descriptor, limit: limit)
        guard count > 0 else { return count }
        _ = gate.skipBody(upTo: count)
        if rest.isWhole {
            rest.give(to: bufferevent_get_input(bufferevent))
            incomingBody = nil
            parseInput()
        }
        return count
    }

    /// Whether evhttp is reading bytes with it.
    var isParsing: Bool { pool.parsing === self }

    /// Sends what evhttp has to say of its own: that the client may continue, or that a target is none.
    ///
    /// - Returns: false when the socket does not take it.
    func sendOutput(to descriptor: Int32) -> Bool {
        guard let output = bufferevent_get_output(bufferevent), evbuffer_get_length(output) > 0 else { return true }
        let count = evbuffer_get_length(output)
        guard send(descriptor, evbuffer_pullup(output, -1), count, Int32(MSG_NOSIGNAL)) == count else { return false }
        evbuffer_drain(output, count)
        bufferevent_trigger(bufferevent, Int16(EV_WRITE), 0)
        return true
    }

    /// Gives an answered request back to evhttp, which makes ready for the next one. Some requests are the last ones of a
    /// connection by evhttp's rules; it is to keep its own all the same.
    func complete(_ request: UnsafeMutablePointer<evhttp_request>) {
        isBetweenRequests = true
        request.pointee.flags &= ~EVHTTP_PROXY_REQUEST
        request.pointee.major = 1
        request.pointee.minor = 1
        evhttp_clear_headers(request.pointee.input_headers)
        request.pointee.chunked = 0
        evhttp_send_reply_end(request)
    }

    /// Ends it, with the request that it may have; evhttp must be on no stack.
    func free() {
        if let connection { evhttp_connection_free(connection) }
    }

    /// evhttp is closing its connection, and with it the request, if there is one.
    private func closed() {
        connection = nil
        incomingBody = nil
        pool.forget(self)
        client?.parserIsGone()
    }
}
