// Answers of shardd's own, put together here and sent by InboundConnection. Ingress and the admin endpoints call these; a
// shard's answers are put together by Upstream.
import CEvent
import Glibc

/// A header of an answer of shardd's own.
struct ReplyHeader {
    let name: StaticString
    let value: String
}

extension InboundConnection {
    /// Answers the outstanding request with a response of shardd's own.
    ///
    /// - Parameter body: what GET would get; HEAD gets its length only.
    func reply(
        status: Int,
        contentType: StaticString = "text/plain; charset=utf-8",
        headers: [ReplyHeader] = [],
        body: UnsafeRawBufferPointer
    ) {
        server.reply.reset(keeping: HTTPServer.replyBufferSize)
        writeHead(status: status, contentType: contentType, headers: headers, bodyCount: body.count)
        sendReply(body: method == .head ? UnsafeRawBufferPointer(rebasing: body[..<0]) : body)
    }

    /// Answers the outstanding request with a document that many answers share, and that is not copied for each.
    func reply(status: Int, contentType: StaticString, headers: [ReplyHeader], page: [UInt8]) {
        server.reply.reset(keeping: HTTPServer.replyBufferSize)
        writeHead(status: status, contentType: contentType, headers: headers, bodyCount: page.count)
        endHead()
        reply(server.reply.readable, page: method == .head || page.isEmpty ? nil : PageRest(bytes: page))
    }

    /// Completes the response that `server.reply` has a status line and headers of, and sends it.
    func sendReply(body: UnsafeRawBufferPointer) {
        endHead()
        server.reply.append(body)
        reply(server.reply.readable)
    }

    /// Does what comes before an answer, of which `server.reply` has the status line and headers. The connection ends with it
    /// where the server, or the client, wants it to and no request waits behind this one.
    func prepareReply() {
        guard server.isAttentive || server.isFull || isHalfClosed else { return }
        if server.isDraining || server.isFull || isHalfClosed,
            readAhead.count == 0 || server.isDraining && !hasWholeRequest(readAhead.readable)
        {
            closesAfterReply = true
        }
        server.onAnswer?(self, statusOfReply)
    }

    /// The digits after "HTTP/1.1 ".
    private var statusOfReply: Int {
        server.reply.readable.dropFirst(9).prefix(3).reduce(0) { 10 * $0 + Int($1) - 0x30 }
    }

    /// How long the outstanding request has waited for its answer.
    var waitingTime: TimeSpan { server.loop.now.since(phaseStart) }

    private func endHead() {
        prepareReply()
        if closesAfterReply {
            server.reply.append("Connection: close\r\n")
        } else if announcesKeepAlive {
            server.reply.append("Connection: keep-alive\r\n")
        }
        server.reply.append("\r\n")
    }

    /// Answers the outstanding request with one line of text.
    func reply(status: Int, headers: [ReplyHeader] = [], line: String) {
        var text = line + "\n"
        text.withUTF8 { reply(status: status, headers: headers, body: UnsafeRawBufferPointer($0)) }
    }

    private func writeHead(status: Int, contentType: StaticString, headers: [ReplyHeader], bodyCount: Int) {
        server.reply.append("HTTP/1.1 ")
        server.reply.append(decimal: status)
        server.reply.append(byte: 0x20)
        server.reply.append(reasonPhrase(status))
        server.reply.append("\r\nDate: ")
        server.reply.append(server.date.text(at: server.loop.now))
        // By this a replica knows an address that leads to shardd rather than to a Pushgateway.
        server.reply.append("\r\nServer: shardd\r\nContent-Type: ")
        server.reply.append(contentType)
        for header in headers {
            server.reply.append("\r\n")
            server.reply.append(header.name)
            server.reply.append(": ")
            server.reply.append(header.value)
        }
        server.reply.append("\r\nContent-Length: ")
        server.reply.append(decimal: bodyCount)
        server.reply.append("\r\n")
    }

    /// Puts the answer to what is not a request together.
    func writeRefusal(_ refusal: Refusal) {
        server.reply.reset(keeping: HTTPServer.replyBufferSize)
        let headers =
            switch refusal.status {
            case 405: [ReplyHeader(name: "Allow", value: HTTPServer.allowedMethods)]
            case 503: [ReplyHeader(name: "Retry-After", value: "1")]
            default: [ReplyHeader]()
            }
        writeHead(
            status: refusal.status,
            contentType: "text/plain; charset=utf-8",
            headers: headers,
            bodyCount: refusal.message.utf8CodeUnitCount + 1
        )
        server.reply.append("Connection: close\r\n\r\n")
        server.reply.append(refusal.message)
        server.reply.append("\n")
    }
}
