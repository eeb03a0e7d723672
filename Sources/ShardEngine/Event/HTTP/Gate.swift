// A strict reader of a request's head (RFC 9112): what it refuses never becomes a request, and it alone says how long the
// body is and where the request goes. InboundConnection shows it every byte of a head; GateHeaders.swift has the headers,
// GateTarget.swift the target and the host, ChunkGate.swift the framing of a chunked body.
//
// It reads whole lines. Of a line that is not there yet it looks at each byte once, for what no line may have, so that it
// does not matter how reads split a head.

/// Why a request, or the connection it came on, is turned away before any shard hears of it.
struct Refusal: Equatable {
    /// The HTTP status of the answer.
    let status: Int
    /// The line of text that the client is given.
    let message: StaticString

    init(_ status: Int, _ message: StaticString) {
        self.status = status
        self.message = message
    }

    static func == (left: Refusal, right: Refusal) -> Bool {
        left.status == right.status && left.message.utf8Start == right.message.utf8Start
    }
}

/// What the Gate has found in a head; the places are offsets into its bytes.
struct RequestHead {
    var method = Method.get
    var isHTTP11 = false
    /// Path and query, where they begin and end; with an empty path they begin with the query.
    var target = (start: 0, end: 0)
    /// Where the target as a whole ends.
    var requestTargetEnd = 0
    /// Host and port of an absolute-form target, which take the place of the Host header; empty otherwise.
    var authority = (start: 0, end: 0)
    /// The length of the head in bytes.
    var byteCount = 0
    var headerCount = 0
    /// The body's length; -1 where no Content-Length came.
    var contentLength = -1
    var isChunked = false
    /// Whether the client waits for a 100 before it sends the body.
    var expectsContinue = false
    var hasHost = false
    var asksForClose = false
    var asksForKeepAlive = false
    /// Whether Connection names headers, which then must not be passed on.
    var namesHeaders = false

    /// Whether the connection ends with this request, by the client's wish or by the version that it speaks.
    var isLast: Bool { asksForClose || !isHTTP11 && !asksForKeepAlive }
}

/// Validates one head after the other.
struct Gate {
    /// The most that one request may hold.
    struct Limits: Equatable, Sendable {
        var headerBytes: Int
        var headerCount: Int
        var bodyBytes: Int
    }

    /// What came of the bytes so far.
    enum Outcome {
        case unfinished
        case whole
        case refused(Refusal)
    }

    private(set) var limits: Limits
    var head = RequestHead()
    var optionCount = 0
    /// Empty lines that came before the request.
    private(set) var emptyLines = 0
    private var isInHeaders = false
    private var isWhole = false
    private var lineStart = 0
    /// How far the unfinished line has been looked at.
    private var seen = 0

    init(limits: Limits) {
        self.limits = limits
    }

    /// Makes ready for another head.
    ///
    /// - Parameter emptyLines: how many have come before it.
    mutating func begin(_ limits: Limits, emptyLines: Int) {
        self.limits = limits
        self.emptyLines = emptyLines
        head = RequestHead()
        optionCount = 0
        isInHeaders = false
        isWhole = false
        lineStart = 0
        seen = 0
    }

    /// Whether all that has come is empty lines.
    var isBeforeRequest: Bool { !isInHeaders && seen == lineStart }

    /// Reads on; `bytes` is all that has come of the head, from its first byte on, and may have more after it.
    mutating func read(_ bytes: UnsafeRawBufferPointer) -> Outcome {
        let limited = UnsafeRawBufferPointer(rebasing: bytes[..<min(bytes.count, limits.headerBytes)])
        while let lineFeed = index(of: 0x0A, in: limited, from: seen) {
            if let refusal = readLine(limited, to: lineFeed) {
                // What is refused before its line is whole is refused for this.
                return .refused(hasControl(limited, from: lineStart, to: lineFeed) ? Gate.control : refusal)
            }
            lineStart = lineFeed + 1
            seen = lineStart
            if isWhole {
                head.byteCount = lineStart
                return .whole
            }
        }
        if hasControl(limited, from: max(lineStart, seen - 1), to: limited.count) { return .refused(Gate.control) }
        seen = limited.count
        if bytes.count > limits.headerBytes {
            return .refused(Refusal(431, "the request's headers are over the limit"))
        }
        return .unfinished
    }

    private mutating func readLine(_ bytes: UnsafeRawBufferPointer, to lineFeed: Int) -> Refusal? {
        let end = lineFeed - 1
        guard end >= lineStart, bytes[end] == 0x0D else {
            return Refusal(400, "bad request: a line does not end in CRLF")
        }
        if end > lineStart {
            if isInHeaders { return readHeader(bytes, from: lineStart, to: end) }
            isInHeaders = true
            return readRequestLine(bytes, to: end)
        }
        guard !isInHeaders else {
            isWhole = true
            return endHead()
        }
        // Some old clients send one after a body (RFC 9112, section 2.2).
        emptyLines += 1
        return emptyLines > Gate.mostEmptyLines ? Refusal(400, "bad request: too many empty lines") : nil
    }

    private mutating func readRequestLine(_ bytes: UnsafeRawBufferPointer, to end: Int) -> Refusal? {
        let methodEnd = lineStart + tokenRun(of: bytes, from: lineStart)
        guard methodEnd > lineStart, bytes[methodEnd] == 0x20 else {
            return Refusal(400, "bad request: malformed method")
        }
        guard let method = Method(UnsafeRawBufferPointer(rebasing: bytes[lineStart..<methodEnd])) else {
            return Refusal(405, "method not allowed")
        }
        head.method = method
        let targetEnd = methodEnd + 1 + visibleRun(of: bytes, from: methodEnd + 1)
        guard targetEnd > methodEnd + 1, bytes[targetEnd] == 0x20 || targetEnd == end else {
            return Refusal(400, "bad request: malformed request target")
        }
        guard end == targetEnd + 9, isVersion(bytes, at: targetEnd + 1) else {
            return Refusal(400, "bad request: the version is neither HTTP/1.0 nor HTTP/1.1")
        }
        head.isHTTP11 = bytes[end - 1] == 0x31
        head.requestTargetEnd = targetEnd
        head.target = (methodEnd + 1, targetEnd)
        return bytes[methodEnd + 1] == 0x2F ? nil : readTarget(bytes)
    }

    private func isVersion(_ bytes: UnsafeRawBufferPointer, at start: Int) -> Bool {
        let text = UnsafeRawBufferPointer(rebasing: bytes[start..<(start + 7)])
        return equals(text, "HTTP/1.") && bytes[start + 7] & ~1 == 0x30
    }

    private func endHead() -> Refusal? {
        if head.isChunked, head.contentLength >= 0 {
            return Refusal(400, "bad request: both Content-Length and Transfer-Encoding")
        }
        if head.isChunked, !head.isHTTP11 { return Refusal(400, "bad request: Transfer-Encoding in HTTP/1.0") }
        if head.isHTTP11, !head.hasHost { return Refusal(400, "bad request: no Host") }
        if head.isChunked || head.contentLength > 0, !head.method.mayHaveBody {
            return Refusal(400, "bad request: a body where the method has none")
        }
        return head.contentLength > limits.bodyBytes ? .bodyTooLarge : nil
    }

    /// Whether there is a byte that no line may have: a control character other than a tab and the CR that ends the line.
    private func hasControl(_ bytes: UnsafeRawBufferPointer, from start: Int, to end: Int) -> Bool {
        var place = start
        while true {
            place += printableRun(of: bytes, from: place)
            guard place < end else { return false }
            guard bytes[place] == 0x09 || bytes[place] == 0x0D && place == end - 1 else { return true }
            place += 1
        }
    }

    private static var control: Refusal { Refusal(400, "bad request: a control character in the head") }
    private static let mostEmptyLines = 8
}

extension Refusal {
    static let bodyTooLarge = Refusal(413, "the request's body is over the limit")
}
