// The Gate: what it lets through, what it refuses, and that it does not matter how reads split the bytes.
import Testing

@testable import ShardEngine

private let limits = Gate.Limits(headerBytes: 512, bodyBytes: 64)

/// Feeds the text in pieces of `size` bytes; returns the first refusal's status and the number of whole requests.
private func read(_ text: String, pieces size: Int = .max) -> (status: Int?, requests: Int) {
    var gate = Gate(limits: limits)
    let bytes = Array(text.utf8)
    var start = 0
    var requests = 0
    while start < bytes.count {
        let end = start + min(size, bytes.count - start)
        while start < end {
            let reading = bytes[start..<end].withUnsafeBytes { gate.read($0) }
            if let refusal = reading.refusal { return (refusal.status, requests) }
            start += reading.count
            if gate.isBetweenRequests { requests += 1 }
        }
    }
    return (nil, requests)
}

@Suite struct GateTests {
    static let good = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "PUT /metrics/job/a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\na 1",
        "PUT /a HTTP/1.1\r\nhost:a\r\ncontent-length:   3  \r\n\r\na 1",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\na 1\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: 1\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        "DELETE /a%20b?x=y HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX-Tab: a\tb\r\nX-Latin: \u{e9}\r\n\r\n",
        "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    ]

    @Test(arguments: good)
    func letsThrough(text: String) {
        for size in [1, 2, 3, 7, 16, 17, Int.max] {
            let result = read(text, pieces: size)
            #expect(result.status == nil && result.requests == 1, "in pieces of \(size)")
        }
    }

    @Test func letsPipelinedRequestsThrough() {
        let all = GateTests.good.joined()
        for size in [1, 5, 64, Int.max] {
            #expect(read(all, pieces: size).requests == GateTests.good.count)
        }
    }

    @Test(arguments: [
        ("two lengths", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n"),
        ("length and chunked", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("chunked and length", "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
        ("signed length", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n"),
        ("negative zero", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n"),
        ("list of lengths", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n"),
        ("split length", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\n"),
        ("empty length", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"),
        ("huge length", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n"),
        ("gzip coding", "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
        ("gzip, chunked", "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        ("tab before chunked", "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked\r\n\r\n"),
        ("tab before a length", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length:\t3\r\n\r\n"),
        ("xchunked", "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        (
            "two codings",
            "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        ("chunked in 1.0", "PUT /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("space before colon", "PUT /a HTTP/1.1\r\nHost : a\r\n\r\n"),
        ("folded header", "PUT /a HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n"),
        ("bare LF", "PUT /a HTTP/1.1\nHost: a\n\n"),
        ("bare LF after headers", "PUT /a HTTP/1.1\r\nHost: a\r\n\n"),
        ("bare CR", "PUT /a HTTP/1.1\r\nHost: a\rX: b\r\n\r\n"),
        ("NUL in a header", "PUT /a HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
        ("NUL in the target", "PUT /a\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("control in the target", "PUT /a\u{1} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("space in the target", "PUT /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("no target", "PUT  HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("other version", "PUT /a HTTP/1.7\r\nHost: a\r\n\r\n"),
        ("no version", "PUT /a\r\nHost: a\r\n\r\n"),
        ("not HTTP", "\u{16}\u{3}\u{1}\u{2}\0\u{1}"),
        ("no host", "PUT /a HTTP/1.1\r\n\r\n"),
        ("two hosts", "PUT /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        ("no header name", "PUT /a HTTP/1.1\r\n: a\r\n\r\n"),
        ("no colon", "PUT /a HTTP/1.1\r\nHost: a\r\nnothing\r\n\r\n"),
        ("body of a GET", "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"),
        ("body of a HEAD", "HEAD /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ])
    func refuses(name: String, text: String) {
        for size in [1, 3, 16, Int.max] {
            let result = read(text, pieces: size)
            #expect(result.status == 400 && result.requests == 0, "\(name), in pieces of \(size)")
        }
    }

    @Test(arguments: [
        "0x5\r\n", "+5\r\n", "5 junk\r\n", "5;ext=1\r\n", "\r\n", "5\n", "g\r\n", "123456789\r\n", "2\r\nabc\r\n",
    ])
    func refusesChunks(chunk: String) {
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        #expect(read(head + chunk + "0\r\n\r\n").status == 400)
        #expect(read(head + chunk + "0\r\n\r\n", pieces: 1).status == 400)
    }

    @Test func refusesWhatIsTooLarge() {
        let long = String(repeating: "a", count: 600)
        #expect(read("PUT /\(long) HTTP/1.1\r\nHost: a\r\n\r\n").status == 431)
        #expect(read("PUT / HTTP/1.1\r\nHost: a\r\nX: \(long)\r\n\r\n", pieces: 1).status == 431)
        #expect(read("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 65\r\n\r\n").status == 413)
        #expect(read("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 64\r\n\r\n").status == nil)
        let chunked = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        let chunk = "20\r\n" + String(repeating: "x", count: 32) + "\r\n"
        #expect(read(chunked + chunk + chunk + "0\r\n\r\n").requests == 1)
        #expect(read(chunked + chunk + chunk + "1\r\n").status == 413)
        #expect(read(chunked + "0\r\nX: \(long)\r\n\r\n").status == 431)
    }

    @Test func namesUnknownMethodsAndExpectations() {
        #expect(read("BREW /a HTTP/1.1\r\nHost: a\r\n\r\n").status == 405)
        #expect(read("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n").status == 405)
        #expect(read("PUT /a HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n").status == 417)
    }

    @Test func stopsAtTheEndOfARequest() {
        var gate = Gate(limits: limits)
        let good = GateTests.good[2]
        let reading = Array((good + good).utf8).withUnsafeBytes { gate.read($0) }
        #expect(reading.count == good.utf8.count && reading.refusal == nil && gate.isBetweenRequests)
    }
}
