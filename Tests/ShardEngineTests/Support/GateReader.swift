// Reads requests as an InboundConnection does, with the Gate and what it passes bodies to, and without sockets.
@testable import ShardEngine

/// What came of some bytes.
struct GateVerdict: Equatable, CustomStringConvertible {
    /// The status of the first refusal.
    var status: Int?
    /// Method, path and query, host, and body of each whole request.
    var requests: [String] = []

    var description: String { "\(status.map(String.init) ?? "fine") after \(requests)" }
}

/// Feeds the bytes in pieces that end at these places, and at the end.
func readThroughGate(_ bytes: [UInt8], splits: [Int] = [], limits: Gate.Limits) -> GateVerdict {
    var reader = GateReader(limits: limits)
    var start = 0
    for end in splits + [bytes.count] where end > start {
        reader.feed(Array(bytes[start..<end]))
        if reader.verdict.status != nil { break }
        start = end
    }
    return reader.verdict
}

private struct GateReader {
    let limits: Gate.Limits
    var verdict = GateVerdict()
    private var gate: Gate
    private var headBytes: [UInt8] = []
    private var bodyBytes: [UInt8] = []
    private var chunks: ChunkGate?
    private var isInBody = false
    private var emptyLines = 0

    init(limits: Gate.Limits) {
        self.limits = limits
        gate = Gate(limits: limits)
    }

    mutating func feed(_ bytes: [UInt8]) {
        var rest = bytes
        while !rest.isEmpty, verdict.status == nil { rest = isInBody ? readBody(rest) : readHead(rest) }
    }

    private mutating func readHead(_ bytes: [UInt8]) -> [UInt8] {
        if headBytes.isEmpty { gate.begin(limits, emptyLines: emptyLines) }
        headBytes += bytes
        switch headBytes.withUnsafeBytes({ gate.read($0) }) {
        case .refused(let refusal):
            verdict.status = refusal.status
        case .unfinished:
            guard gate.isBeforeRequest else { break }
            emptyLines = gate.emptyLines
            headBytes = []
        case .whole:
            let rest = Array(headBytes[gate.head.byteCount...])
            if gate.head.isChunked { chunks = ChunkGate(limits: limits) }
            isInBody = true
            if !gate.head.isChunked, gate.head.contentLength <= 0 { endRequest() }
            return rest
        }
        return []
    }

    private mutating func readBody(_ bytes: [UInt8]) -> [UInt8] {
        var body = bodyBytes
        let count: Int
        if chunks != nil {
            let (read, refusal) = bytes.withUnsafeBytes { bytes in
                chunks?.read(bytes) { body += Array($0) } ?? (0, nil)
            }
            count = read
            verdict.status = refusal?.status
        } else {
            count = min(bytes.count, gate.head.contentLength - body.count)
            body += bytes[..<count]
        }
        bodyBytes = body
        if verdict.status == nil, chunks?.isAtEnd ?? (body.count == gate.head.contentLength) { endRequest() }
        return Array(bytes[count...])
    }

    private mutating func endRequest() {
        let target = headBytes[gate.head.target.start..<gate.head.target.end]
        let authority = headBytes[gate.head.authority.start..<gate.head.authority.end]
        let parts = [Array(target), Array(authority), bodyBytes].map { String(decoding: $0, as: UTF8.self) }
        verdict.requests.append("\(gate.head.method) \(parts[0]) [\(parts[1])] \(parts[2])")
        headBytes = []
        bodyBytes = []
        chunks = nil
        isInBody = false
        emptyLines = 0
    }
}
