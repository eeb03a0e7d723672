// The Gate does not care how reads split what it reads: any split of any bytes, good, bad, or good with something changed, gets
// the verdict that the whole gets. What splits is the network, so a difference would be a way past it.
import Testing

@testable import ShardEngine

/// The same numbers in each run, so that a failure can be repeated (xorshift64).
private struct Numbers: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}

@Suite struct GateSplitTests {
    private static let limits = Gate.Limits(headerBytes: 300, headerCount: 8, bodyBytes: 40)
    private static let corpus =
        GateTests.good + [
            "PUT http://h:80/metrics/job/a?x HTTP/1.1\r\nHost: a\r\nConnection: a, b,close\r\nContent-Length: 5\r\n\r\n12345",
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=\"b;c\";d=e\r\na 1\r\n0;z\r\nX: 1\r\nY:\r\n\r\n",
            "PUT /a HTTP/1.1\r\nHost: [::1]:9\r\nX: \t a\tb\r\nContent-Length:\t007 \r\n\r\n1234567",
        ]
    /// What is put in the place of a byte, or between two.
    private static let bits = [
        "\r", "\n", "\r\n", "\0", " ", "\t", ":", ";", ",", "\"", "0", "f", "A", "/", "*", "@", "\u{7f}", "\u{e9}",
        "\r\n\r\n",
        "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Host: b\r\n", "0\r\n\r\n",
    ]

    private static func changed(_ text: String, _ numbers: inout Numbers) -> [UInt8] {
        var bytes = Array(text.utf8)
        for _ in 0..<Int.random(in: 0...3, using: &numbers) {
            let place = Int.random(in: 0..<bytes.count, using: &numbers)
            let new = Array((bits.randomElement(using: &numbers) ?? "").utf8)
            bytes.replaceSubrange(place..<(place + Int.random(in: 0...1, using: &numbers)), with: new)
        }
        return bytes
    }

    @Test func anySplitGetsTheVerdictOfTheWhole() {
        var numbers = Numbers(state: 0x9E37_79B9_7F4A_7C15)
        var refused = 0
        var passed = 0
        for round in 0..<4000 {
            var bytes: [UInt8] = []
            for _ in 0..<Int.random(in: 1...3, using: &numbers) {
                bytes += Self.changed(Self.corpus.randomElement(using: &numbers) ?? "", &numbers)
            }
            let whole = readThroughGate(bytes, limits: Self.limits)
            if whole.status == nil { passed += 1 } else { refused += 1 }
            var splits = [Array(1..<bytes.count)]
            for count in [1, 2, 5] {
                splits.append((0..<count).map { _ in Int.random(in: 0..<bytes.count, using: &numbers) }.sorted())
            }
            for split in splits {
                let verdict = readThroughGate(bytes, splits: split, limits: Self.limits)
                guard verdict != whole else { continue }
                let text = String(decoding: bytes, as: UTF8.self).debugDescription
                Issue.record("round \(round), split at \(split): \(verdict), but the whole \(whole): \(text)")
                return
            }
        }
        // The changes are such that both kinds come.
        #expect(refused > 500 && passed > 500)
    }
}
