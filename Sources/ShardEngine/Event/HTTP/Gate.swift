// A strict reader of HTTP/1.1 framing that sees an inbound connection's bytes before evhttp does.
// evhttp lets through much that another server would read differently; what the Gate refuses never becomes a request.
// InboundConnection feeds it every byte that arrives and acts on its refusal. GateLines.swift has its quick way through a
// head, GateBody.swift the body's part.

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

/// Validates a stream of requests (RFC 9112), wherever the reads happen to split it.
struct Gate {
    /// The most that one request may hold, in bytes.
    struct Limits: Equatable, Sendable {
        var headerBytes: Int
        var bodyBytes: Int
    }

    /// Where in a request the next byte falls.
    enum Place: UInt8 {
        case method, target, version, headLine, name, beforeValue, value, valueEnd, lineFeed, headEnd
        case sizedBody, chunkSize, chunkSizeEnd, chunkData, chunkDataEnd, chunkDataLineFeed
        case trailerLine, trailer, trailerLineFeed, trailersEnd
        case refused
    }

    /// The headers that decide framing.
    enum Header: UInt8 {
        case other, contentLength, transferEncoding, expect, host
    }

    var limits: Limits
    var place = Place.method
    /// Bytes of the present head, or of the present body's trailers.
    var headBytes = 0
    /// Bytes of the present body so far (chunked), or that are still to come (sized).
    var bodyBytes = 0
    /// What is left of the present chunk.
    var chunkBytes = 0
    var chunkDigits = 0

    private var word = ShortWord()
    var method = Method.get
    var isHTTP11 = false
    private var header = Header.other
    var contentLength = -1
    private var isChunked = false
    var hasHost = false
    private var hasExpect = false
    private var isStartOfTarget = false

    init(limits: Limits) {
        self.limits = limits
    }

    /// Whether the connection is between two requests.
    var isBetweenRequests: Bool { place == .method && headBytes == 0 }

    /// Whether the head of the present request is complete and its body is not.
    var isInBody: Bool { place.rawValue >= Place.sizedBody.rawValue && place != .refused }

    /// What came of some bytes.
    struct Reading {
        /// How many of them belong to the present request; those after them are for the next call.
        var count: Int
        /// Why the connection must be closed, when it must.
        var refusal: Refusal?
    }

    /// Reads the next bytes of the connection, up to the end of a request.
    mutating func read(_ bytes: UnsafeRawBufferPointer) -> Reading {
        var index = 0
        while index < bytes.count {
            let refusal: Refusal?
            switch place {
            case .sizedBody, .chunkData:
                index += skipBody(upTo: bytes.count - index)
                refusal = nil
            case .chunkSize, .chunkSizeEnd, .chunkDataEnd, .chunkDataLineFeed, .trailerLine, .trailer,
                .trailerLineFeed, .trailersEnd:
                refusal = readBodyFraming(bytes[index])
                index += 1
            case .refused:
                return Reading(count: bytes.count)
            default:
                let run = readRun(bytes, from: index)
                index += max(run, 1)
                headBytes += max(run, 1)
                if headBytes > limits.headerBytes {
                    refusal = Refusal(431, "the request's headers are over the limit")
                } else {
                    refusal = run == 0 ? readHead(bytes[index - 1]) : nil
                }
            }
            if let refusal {
                place = .refused
                return Reading(count: bytes.count, refusal: refusal)
            }
            if isBetweenRequests { break }
        }
        return Reading(count: index)
    }

    /// Reads at once as many bytes as only make longer what they are part of; returns how many there were.
    private mutating func readRun(_ bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
        let run: Int
        switch place {
        case .method where headBytes == 0:
            let line = readRequestLine(bytes, from: index)
            if line > 0 { return line }
            run = tokenRun(of: bytes, from: index)
        case .headLine:
            return readHeaders(bytes, from: index)
        case .target where !isStartOfTarget:
            return visibleRun(of: bytes, from: index)
        case .value where header == .other || header == .host:
            return printableRun(of: bytes, from: index)
        case .method, .name:
            run = tokenRun(of: bytes, from: index)
        case .version:
            run = visibleRun(of: bytes, from: index)
        default:
            return 0
        }
        word.append(UnsafeRawBufferPointer(rebasing: bytes[index..<(index + run)]))
        return run
    }

    /// Ends the present request; the next byte begins another.
    mutating func completeRequest() {
        place = .method
        headBytes = 0
        bodyBytes = 0
        isHTTP11 = false
        contentLength = -1
        isChunked = false
        hasHost = false
        hasExpect = false
        word = ShortWord()
    }

    private mutating func readHead(_ byte: UInt8) -> Refusal? {
        switch place {
        case .method:
            return readMethod(byte)
        case .target:
            return readTarget(byte)
        case .version:
            return readVersion(byte)
        case .headLine:
            return startHeadLine(byte)
        case .name:
            return readName(byte)
        case .beforeValue where byte == 0x20 || byte == 0x09 && (header == .other || header == .host):
            // Before what decides framing, evhttp up to 2.1.12 takes a tab for a part of it.
            return nil
        case .beforeValue, .value, .valueEnd:
            return readValue(byte)
        case .lineFeed:
            place = .headLine
            return byte == 0x0A ? nil : Refusal(400, "bad request: a line does not end in CRLF")
        default:
            return byte == 0x0A ? endHead() : Refusal(400, "bad request: the headers do not end in CRLF")
        }
    }

    private mutating func readMethod(_ byte: UInt8) -> Refusal? {
        guard byte == 0x20, word.length > 0 else { return Refusal(400, "bad request: malformed method") }
        guard let known = word.withBytes({ Method($0) }) else { return Refusal(405, "method not allowed") }
        method = known
        place = .target
        isStartOfTarget = true
        return nil
    }

    private mutating func readTarget(_ byte: UInt8) -> Refusal? {
        if byte == 0x20, !isStartOfTarget {
            place = .version
            word = ShortWord()
            return nil
        }
        isStartOfTarget = false
        return byte > 0x20 && byte != 0x7F ? nil : Refusal(400, "bad request: malformed request target")
    }

    private mutating func readVersion(_ byte: UInt8) -> Refusal? {
        isHTTP11 = word.equals("HTTP/1.1")
        guard byte == 0x0D, isHTTP11 || word.equals("HTTP/1.0") else {
            return Refusal(400, "bad request: the version is neither HTTP/1.0 nor HTTP/1.1")
        }
        place = .lineFeed
        return nil
    }

    private mutating func startHeadLine(_ byte: UInt8) -> Refusal? {
        if byte == 0x0D {
            place = .headEnd
            return nil
        }
        guard isTokenByte(byte) else { return Refusal(400, "bad request: malformed header name") }
        place = .name
        word = ShortWord()
        word.append(byte)
        return nil
    }

    private mutating func readName(_ byte: UInt8) -> Refusal? {
        guard byte == 0x3A else { return Refusal(400, "bad request: malformed header name") }
        header =
            switch word.length {
            case 4 where word.equalsIgnoringCase("host"): .host
            case 6 where word.equalsIgnoringCase("expect"): .expect
            case 14 where word.equalsIgnoringCase("content-length"): .contentLength
            case 17 where word.equalsIgnoringCase("transfer-encoding"): .transferEncoding
            default: .other
            }
        place = .beforeValue
        word = ShortWord()
        return startValue()
    }

    private mutating func startValue() -> Refusal? {
        switch header {
        case .contentLength:
            if contentLength >= 0 { return Refusal(400, "bad request: more than one Content-Length") }
            contentLength = 0
        case .transferEncoding:
            if isChunked { return Refusal(400, "bad request: more than one Transfer-Encoding") }
            isChunked = true
        case .host:
            if hasHost { return Refusal(400, "bad request: more than one Host") }
            hasHost = true
        case .expect:
            hasExpect = true
        case .other:
            break
        }
        return nil
    }

    private mutating func readValue(_ byte: UInt8) -> Refusal? {
        if byte == 0x0D {
            place = .lineFeed
            return endValue()
        }
        guard byte >= 0x20 && byte != 0x7F || byte == 0x09 else {
            return Refusal(400, "bad request: a control character in a header")
        }
        if header == .other || header == .host {
            place = .value
            return nil
        }
        if byte == 0x20 || byte == 0x09 {
            place = .valueEnd
            return nil
        }
        guard place != .valueEnd else { return framingRefusal() }
        place = .value
        switch header {
        case .contentLength:
            guard byte >= 0x30 && byte <= 0x39, word.length < 18 else { return framingRefusal() }
            contentLength = contentLength * 10 + Int(byte - 0x30)
        default:
            break
        }
        word.append(byte)
        return nil
    }

    private func endValue() -> Refusal? {
        switch header {
        case .contentLength where word.length == 0: framingRefusal()
        case .transferEncoding where !word.equalsIgnoringCase("chunked"): framingRefusal()
        case .expect where !word.equalsIgnoringCase("100-continue"): framingRefusal()
        default: nil
        }
    }

    private func framingRefusal() -> Refusal {
        switch header {
        case .contentLength: Refusal(400, "bad request: malformed Content-Length")
        case .transferEncoding: Refusal(400, "bad request: Transfer-Encoding other than chunked")
        default: Refusal(417, "the only expectation that can be met is 100-continue")
        }
    }

    private mutating func endHead() -> Refusal? {
        if isChunked, contentLength >= 0 {
            return Refusal(400, "bad request: both Content-Length and Transfer-Encoding")
        }
        if isChunked, !isHTTP11 { return Refusal(400, "bad request: Transfer-Encoding in HTTP/1.0") }
        if isHTTP11, !hasHost { return Refusal(400, "bad request: no Host") }
        if isChunked || contentLength > 0, !method.mayHaveBody {
            return Refusal(400, "bad request: a body where the method has none")
        }
        if contentLength > limits.bodyBytes { return Refusal.bodyTooLarge }
        if isChunked {
            startChunkedBody()
        } else if contentLength > 0 {
            place = .sizedBody
            bodyBytes = contentLength
        } else {
            completeRequest()
        }
        return nil
    }
}

extension Refusal {
    static let bodyTooLarge = Refusal(413, "the request's body is over the limit")
}
