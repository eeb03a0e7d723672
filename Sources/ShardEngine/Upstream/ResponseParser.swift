// Finds the responses in what a shard sends. A pipeline owns one and shows it its bytes until they are a response.
// The bytes are never copied, but for a chunked body, which is put together here.

/// A whole response, as offsets into the bytes that were parsed.
struct ParsedResponse: Equatable {
    var status: Int
    /// Status line and headers, each with its line's end; the empty line is not part of it.
    var head: Range<Int>
    /// The body; for a chunked one an empty range: it is in the parser's `chunkedBody`.
    var body: Range<Int>
    var isChunked: Bool
    /// Whether the head has a Content-Length and no header that belongs to the connection, so that it can be passed on
    /// as it is.
    var isPlain: Bool
    /// Whether the shard keeps the connection open after it.
    var keepsConnection: Bool
    /// How many bytes the response takes up, informational responses before it included.
    var consumed: Int
}

/// Reads HTTP/1.1 responses (RFC 9112) to requests other than HEAD, wherever reads split them.
struct ResponseParser: ~Copyable {
    /// What came of a look at the bytes.
    enum Outcome: Equatable {
        case needsMore
        case response(ParsedResponse)
        case malformed(StaticString)

        static func == (left: Outcome, right: Outcome) -> Bool {
            switch (left, right) {
            case (.needsMore, .needsMore): true
            case (.response(let one), .response(let other)): one == other
            case (.malformed(let one), .malformed(let other)): one.utf8Start == other.utf8Start
            default: false
            }
        }
    }

    static let headLimit = 65536
    static let bodyLimit = 1 << 26

    /// The framing that a head announces.
    private struct Head {
        var status = 0
        var contentLength: Int?
        var isChunked = false
        var isPlain = true
        var isOldVersion = false
        var keepsConnection = true
    }

    private var start = 0
    private var searched = 0
    private var head: Head?
    private var headEnd = 0
    private var chunks = ChunkReader()

    /// The body of the last response, when it was chunked.
    var chunkedBody: UnsafeRawBufferPointer { chunks.body.readable }

    /// Whether some of a response has been seen.
    var isInResponse: Bool { searched > 0 || head != nil }

    /// Whether the response under way is a refusal that has no announced length: its status counts, though the shard resets
    /// the connection after it, as Go's server does when it has not read all that was sent.
    var isInRefusalWithoutEnd: Bool {
        head.map { $0.status >= 400 && $0.contentLength == nil && !$0.isChunked } ?? false
    }

    /// Looks at all bytes since the end of the last response; after a response, the next call starts behind it.
    ///
    /// - Parameter isAtEnd: the shard has closed the connection after these bytes.
    mutating func parse(_ bytes: UnsafeRawBufferPointer, isAtEnd: Bool = false) -> Outcome {
        while head == nil {
            if let outcome = parseHead(bytes) { return outcome }
        }
        return parseBody(bytes, isAtEnd)
    }

    private mutating func parseHead(_ bytes: UnsafeRawBufferPointer) -> Outcome? {
        guard let lineEnd = findEmptyLine(bytes) else {
            if bytes.count > ResponseParser.headLimit { return .malformed("its headers are too long") }
            searched = max(start, bytes.count - 3)
            return isPlausible(bytes, from: start) ? .needsMore : .malformed("it is not HTTP")
        }
        headEnd = lineEnd
        let parsed: Head
        switch readHead(UnsafeRawBufferPointer(rebasing: bytes[start..<headEnd])) {
        case .success(let head): parsed = head
        case .failure(let reason): return .malformed(reason.text)
        }
        if parsed.status < 200 {
            // An informational response: the real one follows. All heads together may be as long as one.
            start = headEnd + 2
            if start > ResponseParser.headLimit { return .malformed("its headers are too long") }
            searched = start
            return nil
        }
        head = parsed
        return nil
    }

    /// The offset behind the last header's line end.
    private func findEmptyLine(_ bytes: UnsafeRawBufferPointer) -> Int? {
        var from = max(searched, start)
        while bytes.count - from >= 4, let found = index(of: 0x0D, in: bytes, from: from), bytes.count - found >= 4 {
            if bytes.loadUnaligned(fromByteOffset: found, as: UInt32.self) == ResponseParser.emptyLine {
                return found + 2
            }
            from = found + 1
        }
        return nil
    }

    /// CR LF CR LF, as a little-endian number.
    private static var emptyLine: UInt32 { UInt32(littleEndian: 0x0A0D_0A0D) }

    /// Whether what there is of a head may become one.
    private func isPlausible(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Bool {
        let expected: StaticString = "HTTP/1."
        let count = min(expected.utf8CodeUnitCount, bytes.count - start)
        return (0..<max(0, count)).allSatisfy { bytes[start + $0] == expected.utf8Start[$0] }
    }

    private mutating func parseBody(_ bytes: UnsafeRawBufferPointer, _ isAtEnd: Bool) -> Outcome {
        guard let head else { preconditionFailure("a body without a head") }
        let bodyStart = headEnd + 2
        let available = bytes.count - bodyStart
        if head.status == 204 || head.status == 304 { return finish(head, bodyStart, 0) }
        if head.isChunked {
            switch chunks.read(bytes, from: bodyStart, limit: ResponseParser.bodyLimit) {
            case .needsMore: return .needsMore
            case .malformed: return .malformed("its chunks are malformed")
            case .end(let offset): return finish(head, bodyStart, offset - bodyStart)
            }
        }
        if let length = head.contentLength {
            if length > ResponseParser.bodyLimit { return .malformed("its body is too long") }
            return available >= length ? finish(head, bodyStart, length) : .needsMore
        }
        if available > ResponseParser.bodyLimit { return .malformed("its body is too long") }
        return isAtEnd ? finish(head, bodyStart, available) : .needsMore
    }

    private mutating func finish(_ head: Head, _ bodyStart: Int, _ length: Int) -> Outcome {
        let isUntilClose = head.contentLength == nil && !head.isChunked && head.status != 204 && head.status != 304
        let response = ParsedResponse(
            status: head.status,
            head: start..<headEnd,
            body: bodyStart..<(head.isChunked ? bodyStart : bodyStart + length),
            isChunked: head.isChunked,
            isPlain: head.isPlain && head.contentLength != nil,
            keepsConnection: head.keepsConnection && !isUntilClose,
            consumed: bodyStart + length
        )
        start = 0
        searched = 0
        self.head = nil
        return .response(response)
    }

    private struct Malformed: Error {
        let text: StaticString
    }

    private func readHead(_ bytes: UnsafeRawBufferPointer) -> Result<Head, Malformed> {
        var head = Head()
        var line = 0
        while line < bytes.count {
            guard let end = index(of: 0x0D, in: bytes, from: line), end + 1 < bytes.count, bytes[end + 1] == 0x0A else {
                return .failure(Malformed(text: "a line of its head does not end in CRLF"))
            }
            let text = UnsafeRawBufferPointer(rebasing: bytes[line..<end])
            let problem = line == 0 ? readStatusLine(text, &head) : readHeader(text, &head)
            if let problem { return .failure(Malformed(text: problem)) }
            line = end + 2
        }
        // A version that has no chunks (RFC 9112, section 6.1).
        if head.isChunked, head.isOldVersion { head.keepsConnection = false }
        if head.isChunked, head.contentLength != nil {
            return .failure(Malformed(text: "it has both Content-Length and Transfer-Encoding"))
        }
        return .success(head)
    }

    private func readStatusLine(_ line: UnsafeRawBufferPointer, _ head: inout Head) -> StaticString? {
        guard line.count >= 12, isPlausible(line, from: 0), line[7] == 0x30 || line[7] == 0x31, line[8] == 0x20,
            line.count == 12 || line[12] == 0x20, fieldTextRun(of: line, from: 0) == line.count
        else { return "its status line is malformed" }
        for byte in line[9..<12] {
            guard byte >= 0x30, byte <= 0x39 else { return "its status line is malformed" }
            head.status = head.status * 10 + Int(byte - 0x30)
        }
        guard head.status >= 100, head.status != 101 else { return "its status is not one" }
        head.isOldVersion = line[7] == 0x30
        head.keepsConnection = !head.isOldVersion
        return nil
    }

    private func readHeader(_ line: UnsafeRawBufferPointer, _ head: inout Head) -> StaticString? {
        guard let colon = fieldNameLength(of: line) else { return "a header of it is malformed" }
        let name = UnsafeRawBufferPointer(rebasing: line[..<colon])
        // Nearly all headers are neither framing nor of the connection, and their names' lengths tell.
        guard isHopByHop(name) else { return nil }
        let value = UnsafeRawBufferPointer(rebasing: line[(colon + 1)...])
        if equalsIgnoringCase(name, "content-length") {
            guard head.contentLength == nil, let length = decimal(value) else {
                return "its Content-Length is malformed"
            }
            head.contentLength = length
            return nil
        }
        head.isPlain = false
        if equalsIgnoringCase(name, "transfer-encoding") {
            var codings = 0
            forEachToken(of: value) { _ in codings += 1 }
            guard !head.isChunked, codings == 1, containsToken(value, "chunked") else {
                return "its Transfer-Encoding is not chunked"
            }
            head.isChunked = true
        } else if equalsIgnoringCase(name, "connection") {
            if containsToken(value, "close") { head.keepsConnection = false }
            if containsToken(value, "keep-alive") { head.keepsConnection = true }
        }
        return nil
    }

    private func decimal(_ value: UnsafeRawBufferPointer) -> Int? {
        var number: Int?
        var isOver = false
        for byte in value {
            switch byte {
            case 0x30...0x39 where !isOver:
                guard let next = number.map({ $0 < 1 << 52 ? $0 * 10 : nil }) ?? 0 else { return nil }
                number = next + Int(byte - 0x30)
            case 0x20, 0x09:
                isOver = number != nil
            default:
                return nil
            }
        }
        return number
    }
}
