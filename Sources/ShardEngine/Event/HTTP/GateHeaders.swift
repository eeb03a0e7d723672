// The Gate's reading of headers: their form, and those that say where the body ends or what becomes of the connection.

extension Gate {
    /// Reads one header line, without its end.
    mutating func readHeader(_ bytes: UnsafeRawBufferPointer, from start: Int, to end: Int) -> Refusal? {
        let colon = start + tokenRun(of: bytes, from: start)
        guard colon > start, bytes[colon] == 0x3A else { return Refusal(400, "bad request: malformed header name") }
        guard isValue(bytes, from: colon + 1, to: end) else {
            return Refusal(400, "bad request: a control character in a header")
        }
        head.headerCount += 1
        if head.headerCount > limits.headerCount { return Refusal(431, "the request has too many headers") }
        let name = UnsafeRawBufferPointer(rebasing: bytes[start..<colon])
        switch name.count {
        case 4 where equalsIgnoringCase(name, "host"):
            return readHost(trimmed(bytes, from: colon + 1, to: end))
        case 6 where equalsIgnoringCase(name, "expect"):
            return readExpect(trimmed(bytes, from: colon + 1, to: end))
        case 10 where equalsIgnoringCase(name, "connection"):
            return readConnection(UnsafeRawBufferPointer(rebasing: bytes[(colon + 1)..<end]))
        case 14 where equalsIgnoringCase(name, "content-length"):
            return readContentLength(trimmed(bytes, from: colon + 1, to: end))
        case 17 where equalsIgnoringCase(name, "transfer-encoding"):
            return readTransferEncoding(trimmed(bytes, from: colon + 1, to: end))
        default:
            return nil
        }
    }

    private func isValue(_ bytes: UnsafeRawBufferPointer, from start: Int, to end: Int) -> Bool {
        var place = start + printableRun(of: bytes, from: start)
        while place < end, bytes[place] == 0x09 { place += 1 + printableRun(of: bytes, from: place + 1) }
        return place == end
    }

    private mutating func readHost(_ value: UnsafeRawBufferPointer) -> Refusal? {
        if head.hasHost { return Refusal(400, "bad request: more than one Host") }
        head.hasHost = true
        return isHost(value) ? nil : Refusal(400, "bad request: malformed Host")
    }

    private mutating func readExpect(_ value: UnsafeRawBufferPointer) -> Refusal? {
        guard equalsIgnoringCase(value, "100-continue") else {
            return Refusal(417, "the only expectation that can be met is 100-continue")
        }
        head.expectsContinue = head.isHTTP11
        return nil
    }

    private mutating func readConnection(_ value: UnsafeRawBufferPointer) -> Refusal? {
        forEachToken(of: value) { token in
            optionCount += 1
            if equalsIgnoringCase(token, "close") {
                head.asksForClose = true
            } else if equalsIgnoringCase(token, "keep-alive") {
                head.asksForKeepAlive = true
            } else {
                head.namesHeaders = true
            }
        }
        return optionCount > Gate.mostOptions ? Refusal(431, "the request has too many Connection options") : nil
    }

    private mutating func readContentLength(_ value: UnsafeRawBufferPointer) -> Refusal? {
        if head.contentLength >= 0 { return Refusal(400, "bad request: more than one Content-Length") }
        var length = 0
        for byte in value {
            guard byte >= 0x30, byte <= 0x39, value.count <= 18 else { return Gate.malformedLength }
            length = length * 10 + Int(byte - 0x30)
        }
        head.contentLength = length
        return value.isEmpty ? Gate.malformedLength : nil
    }

    private mutating func readTransferEncoding(_ value: UnsafeRawBufferPointer) -> Refusal? {
        if head.isChunked { return Refusal(400, "bad request: more than one Transfer-Encoding") }
        head.isChunked = true
        if equalsIgnoringCase(value, "chunked") { return nil }
        return Refusal(400, "bad request: Transfer-Encoding other than chunked")
    }

    /// A value without the space and the tabs around it.
    private func trimmed(_ bytes: UnsafeRawBufferPointer, from start: Int, to end: Int) -> UnsafeRawBufferPointer {
        var (start, end) = (start, end)
        while start < end, bytes[start] == 0x20 || bytes[start] == 0x09 { start += 1 }
        while end > start, bytes[end - 1] == 0x20 || bytes[end - 1] == 0x09 { end -= 1 }
        return UnsafeRawBufferPointer(rebasing: bytes[start..<end])
    }

    private static var malformedLength: Refusal { Refusal(400, "bad request: malformed Content-Length") }
    /// More options of Connection than any client has; each header has to be looked for among them.
    private static let mostOptions = 100
}
