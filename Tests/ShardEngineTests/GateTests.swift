// The Gate: what it lets through, what it refuses, and that it does not matter how reads split the bytes.
import Testing

@testable import ShardEngine

private let limits = Gate.Limits(headerBytes: 512, headerCount: 20, bodyBytes: 64)

/// Feeds the text in pieces of `size` bytes; returns the first refusal's status and the number of whole requests.
private func read(_ text: String, pieces size: Int = .max) -> (status: Int?, requests: Int) {
    let bytes = Array(text.utf8)
    let splits = size < bytes.count ? Array(stride(from: size, to: bytes.count, by: size)) : []
    let verdict = readThroughGate(bytes, splits: splits, limits: limits)
    return (verdict.status, verdict.requests.count)
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
        "PUT /a HTTP/1.1\r\nHost:\ta\t\r\nContent-Length:\t 3\t\r\n\r\na 1",
        "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\tchunked \r\n\r\n3\r\na 1\r\n0\r\n\r\n",
        "PUT /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0003;x=1;y=\"a\\\";b\"\r\na 1\r\n00\r\nX:\r\n\r\n",
        "\r\n\r\nPUT /a HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT http://h:80/a?q HTTP/1.1\r\nHost: other\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
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
        ("tab in a length", "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\t3\r\n\r\n"),
        ("empty lines without end", String(repeating: "\r\n", count: 9) + "PUT /a HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("an empty line of LF", "\nPUT /a HTTP/1.1\r\nHost: a\r\n\r\n"),
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
        "0x5\r\n", "+5\r\n", "5 junk\r\n", "\r\n", "5\n", "g\r\n", "123456789\r\n", "2\r\nabc\r\n", "5 \r\n", "5;\r\n",
        "5;=1\r\n",
        "5;a=\r\n", "5;a=\"b\r\n", "5;a=\"b\n\"\r\n", "5;a=\"b\"c\r\n", "5;a b\r\n", "5;a\n", "5;a=b\rc\r\n",
        "5;a=\0\r\n", ";a\r\n",
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

    @Test(arguments: [
        "3;a\r\n", "3;a=b\r\n", "3;a=\"b\"\r\n", "3 ; a = b\r\n", "3\t;\ta\t=\t\"b c\t;d\"\r\n",
        "3;a;b=c;d=\"\\\"\\\\\"\r\n", "003\r\n",
        "000000000000000000000003\r\n", "3;a=\"\"\r\n",
    ])
    func ignoresChunkExtensions(line: String) {
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        let bytes = Array((head + line + "x 1\r\n0;last\r\n\r\n").utf8)
        for size in [1, 2, 5, 1000] {
            let splits = Array(stride(from: size, to: bytes.count, by: size))
            let verdict = readThroughGate(bytes, splits: splits, limits: limits)
            #expect(verdict == GateVerdict(requests: ["post /a [] x 1"]), "in pieces of \(size)")
        }
    }

    @Test func limitsWhatStandsBesideTheChunks() {
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        #expect(read(head + "1;" + String(repeating: "a", count: 600)).status == 431)
        #expect(read(head + String(repeating: "0", count: 600)).status == 431)
        #expect(read(head + String(repeating: "1;aaaaaaaaaaaaaa\r\nx\r\n", count: 40)).status == 431)
        #expect(read(head + "0\r\n" + String(repeating: "X: 1\r\n", count: 21)).status == 431)
    }

    @Test(arguments: [
        "X\r\n", ": 1\r\n", " X: 1\r\n", "X : 1\r\n", "X: \u{1}\r\n", "X: 1\n", "X: 1\r\n 2\r\n",
        "Content-Length: 1\r\n",
    ])
    func refusesTrailers(trailer: String) {
        let head = "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        for size in [1, 3, 1000] { #expect(read(head + trailer + "\r\n", pieces: size).status == 400) }
    }

    @Test func limitsHeadersAndOptions() {
        let start = "PUT /a HTTP/1.1\r\nHost: a\r\n"
        #expect(read(start + String(repeating: "X:1\r\n", count: 19) + "\r\n").requests == 1)
        #expect(read(start + String(repeating: "X:1\r\n", count: 20) + "\r\n").status == 431)
        let options = { String(repeating: "a,", count: $0) }
        #expect(read(start + "Connection: \(options(100))\r\n\r\n").requests == 1)
        #expect(read(start + "Connection: \(options(101))\r\n\r\n").status == 431)
        #expect(read(start + "Connection: \(options(60))\r\nConnection: \(options(60))\r\n\r\n").status == 431)
    }

    @Test(arguments: [
        ("/a?b", "/a?b", ""), ("//h/a", "//h/a", ""), ("http://h/a?b", "/a?b", "h"), ("HTTPS://h:1/a", "/a", "h:1"),
        ("http://h", "", "h"), ("http://h?q=/a", "?q=/a", "h"), ("http://[::1]:2/a", "/a", "[::1]:2"),
    ])
    func findsThePath(target: String, path: String, authority: String) {
        let text = "PUT \(target) HTTP/1.1\r\nHost: x\r\n\r\n"
        let verdict = readThroughGate(Array(text.utf8), limits: limits)
        #expect(verdict == GateVerdict(requests: ["put \(path) [\(authority)] "]))
    }

    @Test(arguments: [
        "a:bc/metrics/job/t", "http:xx/metrics/job/t", "http:/metrics/job/t", "http:///metrics/job/t", "*", "h:80",
        "metrics/job/t",
        "ftp://h/metrics/job/t", "http://h#/metrics/job/t", "http://u@h/metrics/job/t", "http://h:x/a",
        "http://h:99999/a",
        "http://[::1/a", "http://:80/a", "?a", "http://",
    ])
    func refusesTargets(target: String) {
        #expect(read("PUT \(target) HTTP/1.1\r\nHost: h\r\n\r\n").status == 400)
    }

    @Test(arguments: [
        ("", true), ("a", true), ("a:", true), ("a:80", true), ("a-b_c.d~e", true), ("1.2.3.4:65535", true),
        ("[::1]", true),
        ("[::1]:80", true), ("[::ffff:1.2.3.4]", true), ("[fe80::1%25eth0]", true), ("[v1.a:b]", true), ("a%41", true),
        ("a,b", true),
        ("!$&'()*+,;=", true), ("a b", false), ("a/b", false), ("a@b", false), ("[::1", false), ("::1", false),
        ("[::1]a", false),
        ("[]", false), ("[g::1]", false), ("[v1]", false), ("[fe80::1%eth0]", false), ("\u{e9}", false),
        ("\"x\"", false),
        ("a:b", false), ("a:80:80", false), ("a:65536", false), ("a:-1", false), ("a:99999999999999999999", false),
        ("a%4", false),
        ("a%zz", false), ("a\tb", false), ("a?b", false), ("a#b", false), ("a\\b", false), ("<a>", false),
        ("a]", false),
    ])
    func judgesHosts(host: String, isGood: Bool) {
        for size in [1, 1000] {
            let result = read("PUT /a HTTP/1.1\r\nHost: \(host)\r\n\r\n", pieces: size)
            #expect(result.status == (isGood ? nil : 400))
        }
    }

    @Test func stopsAtTheEndOfAHead() {
        var gate = Gate(limits: limits)
        let good = GateTests.good[2]
        guard case .whole = Array((good + good).utf8).withUnsafeBytes({ gate.read($0) }) else {
            Issue.record("not whole")
            return
        }
        #expect(gate.head.byteCount == good.utf8.count - 3 && gate.head.contentLength == 3)
    }
}
