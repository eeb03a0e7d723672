// Answers of shardd's own, and how a connection ends that is not ended by evhttp: refusals, time limits, lingering.
// HTTPServer calls these from the end of a turn, where evhttp is on no stack.
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

    /// Completes the response that `server.reply` has a status line and headers of, and sends it.
    func sendReply(body: UnsafeRawBufferPointer) {
        prepareReply()
        if closesAfterReply {
            server.reply.append("Connection: close\r\n")
        } else if announcesKeepAlive {
            server.reply.append("Connection: keep-alive\r\n")
        }
        server.reply.append("\r\n")
        server.reply.append(body)
        reply(server.reply.readable)
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

    /// Answers what is not a request, or has taken too long to become one, and ends the connection.
    ///
    /// The connection stays for a while, unread, so that the client sees the answer and not a reset.
    func refuse(_ refusal: Refusal) {
        guard descriptor >= 0, request == nil else { return }
        server.onRefusal(refusal)
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
        let bytes = server.reply.readable
        _ = send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
        shutdown(descriptor, Int32(SHUT_WR))
        stopListening()
        letGoOfParser()
    }

    /// Ends the connection, or what it is waiting for, when that has taken too long.
    func enforceTimeLimit(at now: MonotonicTime) {
        let limits = server.limits
        let elapsed = now.since(phaseStart)
        switch phase {
        case .idle where elapsed >= limits.idleTimeout, .writing where elapsed >= limits.bodyTimeout,
            .lingering where elapsed >= HTTPServer.lingeringTime:
            abort()
        case .head where elapsed >= limits.headerTimeout && isWaiting:
            refuse(Refusal(503, "too many requests at a time"))
        case .head where elapsed >= limits.headerTimeout:
            refuse(Refusal(408, "the request's headers took too long"))
        case .body where elapsed >= limits.bodyTimeout && !isWaiting:
            refuse(Refusal(408, "the request's body took too long"))
        default:
            break
        }
    }
}
