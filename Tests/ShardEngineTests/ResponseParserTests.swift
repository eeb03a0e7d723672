// The response parser: what it makes of shards' answers, wherever reads split them.
import Testing

@testable import ShardEngine

/// What a text holds, read in pieces of one size.
private struct Answers: Equatable {
    var statuses: [Int] = []
    var bodies: [String] = []
    var problem: String?
    var keepsConnection = true
}

private func read(_ text: String, pieces size: Int = .max, closes: Bool = false) -> Answers {
    var parser = ResponseParser()
    var answers = Answers()
    var held: [UInt8] = []
    let bytes = Array(text.utf8)
    var start = 0
    while start < bytes.count {
        let end = start + min(size, bytes.count - start)
        held += bytes[start..<end]
        start = end
        var isDone = false
        while !isDone, !held.isEmpty {
            let outcome = held.withUnsafeBytes { parser.parse($0, isAtEnd: closes && start == bytes.count) }
            switch outcome {
            case .needsMore:
                isDone = true
            case .malformed(let reason):
                answers.problem = reason.description
                return answers
            case .response(let response):
                answers.statuses.append(response.status)
                let body = response.isChunked ? Array(parser.chunkedBody) : Array(held[response.body])
                answers.bodies.append(String(decoding: body, as: UTF8.self))
                answers.keepsConnection = response.keepsConnection
                held.removeFirst(response.consumed)
            }
        }
    }
    return answers
}

@Suite struct ResponseParserTests {
    private static let accepted = "HTTP/1.1 202 Accepted\r\nDate: x\r\nContent-Length: 0\r\n\r\n"
    private static let refused =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbad\n"
    private static let chunked =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nWiki\r\n6;x=1\r\npedia \r\n0\r\nX-T: 1\r\n\r\n"

    @Test func readsPipelinedAnswersSplitAtEveryByte() {
        let text = Self.accepted + Self.refused + Self.chunked + "HTTP/1.1 100 Continue\r\n\r\n" + Self.accepted
        let expected = Answers(statuses: [202, 400, 200, 202], bodies: ["", "bad\n", "Wikipedia ", ""])
        for size in 1...text.utf8.count {
            #expect(read(text, pieces: size) == expected, "in pieces of \(size)")
        }
    }

    @Test func readsABodyThatEndsWithTheConnection() {
        let text = "HTTP/1.0 200 OK\r\nServer: old\r\n\r\nsome body"
        for size in 1...text.utf8.count {
            let answers = read(text, pieces: size, closes: true)
            #expect(answers == Answers(statuses: [200], bodies: ["some body"], keepsConnection: false))
        }
        #expect(read(text).statuses.isEmpty)
    }

    @Test func knowsWhenTheConnectionEnds() {
        #expect(!read("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").keepsConnection)
        #expect(!read("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").keepsConnection)
        #expect(read("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n").keepsConnection)
        #expect(read(Self.accepted).keepsConnection)
    }

    @Test func knowsStatusesWithoutABody() {
        let text =
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n" + Self.accepted
        #expect(read(text).statuses == [204, 304, 202])
    }

    @Test func knowsWhatCanBePassedOnAsItIs() {
        func isPlain(_ text: String) -> Bool? {
            var parser = ResponseParser()
            guard case .response(let response) = Array(text.utf8).withUnsafeBytes({ parser.parse($0) }) else {
                return nil
            }
            return response.isPlain
        }
        #expect(isPlain(Self.accepted) == true)
        #expect(isPlain("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: 1\r\n\r\n") == false)
        #expect(isPlain(Self.chunked) == false)
        #expect(isPlain("HTTP/1.1 204 No Content\r\n\r\n") == false)
    }

    @Test(arguments: [
        "garbage\r\n\r\n", "SSH-2.0-OpenSSH\r\n", "HTTP/2 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 099 OK\r\n\r\n", "HTTP/1.1 101 Switching\r\n\r\n",
        "HTTP/1.1200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "HTTP/1.1 200 OK\r\n: x\r\n\r\n", "HTTP/1.1 200 OK\r\nA B: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n",
        // Control bytes and bare line feeds in the status line, and other versions, also after an informational response.
        "HTTP/1.1 200 O\0K\r\n\r\n", "HTTP/1.1 200 OK\nA: b\r\n\r\n", "HTTP/1.1 200 \u{1}\r\n\r\n",
        "HTTP/1.1 200 \u{7F}\r\n\r\n", "HTTP/1.1 200 a\rb\r\n\r\n", "HTTP/1.7 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.7 200 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nhttp/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 103 Hints\r\nA: b\r\n\r\nXTTP/1.1 200 OK\r\n\r\n",
        // Other codings.
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        // A header that goes on in the next line.
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "HTTP/1.1 200 OK\r\n\tA: b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ])
    func refusesGarbage(text: String) {
        for size in [1, 4, Int.max] {
            #expect(read(text, pieces: size).problem != nil, "in pieces of \(size)")
        }
    }

    @Test(arguments: [
        "zz\r\n", "\r\n", ";a\r\n", "5 \r\nabcde\r\n", "5 junk\r\nabcde\r\n", "0x5\r\nabcde\r\n", "+5\r\nabcde\r\n",
        "-5\r\nabcde\r\n", "5\nabcde\r\n", "5\r\nabcde\n0\r\n\r\n", "5;a=\"\n\"\r\nabcde\r\n", "5;a\0\r\nabcde\r\n",
        "5\rabcde\r\n", "fffffffffffffffff\r\n", "0\r\nno colon\r\n\r\n", "0\r\nA: b\r\n c\r\n\r\n", "0\r\n: b\r\n\r\n",
        "0\r\nA b: c\r\n\r\n", "0\r\nA: b\n\r\n", "0\n\n", "0\r\nA: \0\r\n\r\n", "0\r\n\n",
        "5;" + String(repeating: "a", count: 5000) + "\r\nabcde\r\n", String(repeating: "0", count: 5000) + "5\r\n",
        "0\r\n" + String(repeating: "A: b\r\n", count: 20_000),
    ])
    func refusesBadChunks(chunks: String) {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        for size in [chunks.count > 5000 ? 4096 : 1, 4, Int.max] {
            #expect(read(text, pieces: size).problem != nil, "in pieces of \(size)")
        }
    }

    @Test(arguments: [
        "5;a\r\nabcde\r\n0\r\n\r\n", "5;a=b;c=\"d;\\\"e\"\r\nabcde\r\n0;last\r\n\r\n",
        "5 ; a = b\r\nabcde\r\n0\r\n\r\n", "5\t;\ta\r\nabcde\r\n0\r\n\r\n",
        "0000000000000000000005\r\nabcde\r\n000\r\n\r\n", "2\r\nab\r\n3;x\r\ncde\r\n0\r\n\r\n",
        "5\r\nabcde\r\n0\r\nA: b\r\nC:\td\r\nE:\r\n\r\n", "5;a=\"\u{E9}\"\r\nabcde\r\n0\r\n\r\n",
    ])
    func passesOverExtensionsAndTrailers(chunks: String) {
        let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding:\tchunked\t\r\n\r\n" + chunks + Self.accepted
        for size in 1...text.utf8.count {
            let answers = read(text, pieces: size)
            #expect(answers == Answers(statuses: [200, 202], bodies: ["abcde", ""]), "in pieces of \(size)")
        }
    }

    @Test func takesTabsForSpace() {
        let text = "HTTP/1.1 200 OK\tthen\r\nContent-Length:\t 4\t\r\nConnection:\tclose\t\r\n\r\nbad\n"
        #expect(read(text) == Answers(statuses: [200], bodies: ["bad\n"], keepsConnection: false))
    }

    @Test func aVersionWithoutChunksEndsTheConnection() {
        let head = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"
        let text = head + "1\r\na\r\n0\r\n\r\n"
        #expect(read(text) == Answers(statuses: [200], bodies: ["a"], keepsConnection: false))
    }

    @Test func refusesEndlessInformation() {
        let endless = String(repeating: "HTTP/1.1 100 Continue\r\n\r\n", count: 5000)
        for size in [25, 1000, Int.max] { #expect(read(endless, pieces: size).problem != nil) }
    }

    @Test func refusesEndlessHeads() {
        let endless = "HTTP/1.1 200 OK\r\n" + String(repeating: "X: y\r\n", count: 20_000)
        #expect(read(endless, pieces: 4096).problem != nil)
    }
}
