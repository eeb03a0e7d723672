// Copies messages between the two sides, without what belongs to one connection: pushes to shards, answers to clients.
import MovingCore

extension ByteBuffer {
    /// Appends the outstanding request of a connection as it goes to a shard. Where its target has been rewritten, a DELETE
    /// of the target that it came with goes before it, so that the shard never has both groups.
    ///
    /// - Parameters:
    ///   - largeBody: the body, when it is to be sent from where it is and not from here.
    /// - Returns: how many answers come before the one that counts.
    mutating func append(
        requestOf connection: InboundConnection,
        to shard: ShardAddress,
        largeBody: BodyBuffer?
    ) -> Int {
        let precedingAnswers = append(removalBefore: connection, to: shard)
        append(pushOf: connection, to: shard, largeBody: largeBody)
        return precedingAnswers
    }

    /// Appends the DELETE that goes before the request, if there is one; returns how many there are.
    mutating func append(removalBefore connection: InboundConnection, to shard: ShardAddress) -> Int {
        guard connection.rewrittenTarget != nil else { return 0 }
        append(connection, connection.target, shard, largeBody: nil, isRemoval: true)
        return 1
    }

    /// Appends the request itself.
    mutating func append(pushOf connection: InboundConnection, to shard: ShardAddress, largeBody: BodyBuffer?) {
        append(connection, connection.forwardedTarget, shard, largeBody: largeBody, isRemoval: false)
    }

    /// Appends one request: target, end-to-end headers, framing anew.
    private mutating func append(
        _ connection: InboundConnection,
        _ target: UnsafeRawBufferPointer,
        _ shard: ShardAddress,
        largeBody: BodyBuffer?,
        isRemoval: Bool
    ) {
        append(isRemoval ? Method.delete.name : connection.method.name)
        append(byte: 0x20)
        append(target)
        append(" HTTP/1.1\r\n")
        let options = connection.connectionOptions
        // The host of an absolute-form target takes the place of the header's (RFC 9112, section 3.2.2).
        let authority = connection.authority
        var hasHost = false
        connection.forEachHeader { header in
            if isHopByHop(header.name) || options?.contains(HeaderName(header.name)) == true { return }
            if header.name.count == 4, equalsIgnoringCase(header.name, "host") {
                if !authority.isEmpty { return }
                hasHost = true
            }
            append(header.name)
            append(": ")
            append(header.value)
            append("\r\n")
        }
        if !hasHost {
            append("Host: ")
            if authority.isEmpty { append(shard.text) } else { append(authority) }
            append("\r\n")
        }
        let bodyCount = isRemoval ? 0 : largeBody?.count ?? connection.bodyCount
        append("Content-Length: ")
        append(decimal: bodyCount)
        append("\r\n\r\n")
        guard largeBody == nil, bodyCount > 0 else { return }
        append(connection.body)
    }

    /// Appends a shard's answer as it goes to the client.
    mutating func append(answer head: UnsafeRawBufferPointer, _ response: ParsedResponse, body: UnsafeRawBufferPointer)
    {
        // The version is ours, whatever the shard's is.
        append("HTTP/1.1")
        let rest = UnsafeRawBufferPointer(rebasing: head[8...])
        if response.isPlain {
            append(rest)
            return
        }
        appendEndToEndHeaders(rest)
        guard response.status != 204 else { return }
        append("Content-Length: ")
        append(decimal: body.count)
        append("\r\n")
    }

    /// Appends the rest of a status line, and those headers after it that are meant for the client.
    private mutating func appendEndToEndHeaders(_ bytes: UnsafeRawBufferPointer) {
        var options = Set<HeaderName>()
        forEachLine(of: bytes) { _, name, value in
            guard equalsIgnoringCase(name, "connection") else { return }
            forEachToken(of: value) { options.insert(HeaderName($0)) }
        }
        forEachLine(of: bytes) { line, name, _ in
            if isHopByHop(name) || options.contains(HeaderName(name)) { return }
            append(line)
        }
    }
}

/// Calls `body` with each line (its end included), its name and its value; the first line has an empty name.
func forEachLine(
    of bytes: UnsafeRawBufferPointer,
    _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
) {
    let nothing = UnsafeRawBufferPointer(rebasing: bytes[..<0])
    var start = 0
    while let lineFeed = bytes[start...].firstIndex(of: 0x0A) {
        let line = UnsafeRawBufferPointer(rebasing: bytes[start...lineFeed])
        let colon = start == 0 ? nil : line.firstIndex(of: 0x3A)
        let name = colon.map { UnsafeRawBufferPointer(rebasing: line[..<$0]) } ?? nothing
        let value = colon.map { UnsafeRawBufferPointer(rebasing: line[($0 + 1)..<(line.count - 2)]) } ?? nothing
        body(line, name, value)
        start = lineFeed + 1
    }
}

extension InboundConnection {
    /// Answers the outstanding request with what a shard has answered.
    func reply(head: UnsafeRawBufferPointer, _ response: ParsedResponse, body: UnsafeRawBufferPointer) {
        server.reply.reset(keeping: HTTPServer.replyBufferSize)
        server.reply.append(answer: head, response, body: body)
        sendReply(body: body)
    }
}

extension ByteBuffer {
    /// Appends the push that marks a key.
    ///
    /// - Parameters:
    ///   - mark: of the key of the push before it.
    ///   - headers: of every request of shardd's own to a shard.
    mutating func append(markOf mark: MarkID, number: Epoch, headers: [(name: String, value: String)]) {
        let body = mark.body
        append("POST ")
        append(MarkID.groupPath(number))
        append(" HTTP/1.1\r\nHost: shardd\r\nContent-Type: ")
        append("application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited")
        append("\r\n")
        for header in headers { append("\(header.name): \(header.value)\r\n") }
        append("Content-Length: ")
        append(decimal: body.count)
        append("\r\n\r\n")
        body.withUnsafeBytes { append($0) }
    }
}
