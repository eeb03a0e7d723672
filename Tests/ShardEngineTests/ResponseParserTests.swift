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
    ])
    func refusesGarbage(text: String) {
        for size in [1, 4, Int.max] {
            #expect(read(text, pieces: size).problem != nil, "in pieces of \(size)")
        }
    }

    @Test func refusesEndlessHeads() {
        let endless = "HTTP/1.1 200 OK\r\n" + String(repeating: "X: y\r\n", count: 20_000)
        #expect(read(endless, pieces: 4096).problem != nil)
    }
}
