import Foundation
import Testing

@testable import ShardEngine

/// One path and the text that is hashed for it.
struct KeyCase: CustomTestStringConvertible {
    let path: String
    let key: String
    var testDescription: String { path }

    init(_ path: String, _ key: String) {
        self.path = path
        self.key = key
    }

    /// A path that a Pushgateway refuses, and that is hashed as it is.
    init(refused path: String) {
        self.init(path, path)
    }
}

private func key(_ path: [UInt8], _ parser: GroupingKeyParser = GroupingKeyParser(key: .group)) -> [UInt8] {
    path.withUnsafeBytes { path in
        let hash = parser.hash(path: path)
        #expect(hash == murmur3(parser.text))
        return Array(parser.text)
    }
}

private func key(_ path: String, as hashKey: HashKey = .group) -> String {
    String(decoding: key(Array(path.utf8), GroupingKeyParser(key: hashKey)), as: UTF8.self)
}

private func base64(_ text: String, padding: Bool = false) -> String {
    let encoded = Data(text.utf8).base64EncodedString()
        .replacing("+", with: "-").replacing("/", with: "_")
    return padding ? encoded : encoded.replacing("=", with: "")
}

@Suite struct GroupingKeyTests {
    static let plain: [KeyCase] = [
        KeyCase("/metrics/job/x", "/metrics/job/x"),
        KeyCase("/metrics/job/x/", "/metrics/job/x"),
        KeyCase("/metrics/job/x/a/1", "/metrics/job/x/a/1"),
        KeyCase("/metrics/job/x/a/1/b/2/c/3", "/metrics/job/x/a/1/b/2/c/3"),
        KeyCase("/metrics/job/x/b/2/a/1", "/metrics/job/x/a/1/b/2"),
        KeyCase("/metrics/job/x/c/3/b/2/a/1", "/metrics/job/x/a/1/b/2/c/3"),
        KeyCase("/metrics/job/x/ab/2/a/1", "/metrics/job/x/a/1/ab/2"),
        KeyCase("/metrics/job/x/a/1/Z/2/_/3", "/metrics/job/x/Z/2/_/3/a/1"),
        KeyCase("/metrics/job/x/label_one_b/2/label_one_a/1", "/metrics/job/x/label_one_a/1/label_one_b/2"),
        KeyCase("/metrics/job/a+b/a/+", "/metrics/job/a+b/a/+"),
        KeyCase("/metrics/job/x/a/b#c", "/metrics/job/x/a/b#c"),
        KeyCase("/metrics/job/.x/a/...", "/metrics/job/.x/a/..."),
        KeyCase("/metrics/job/x/a/\u{E9}", "/metrics/job/x/a/\u{E9}"),
    ]
    static let duplicatesAndEmptyValues: [KeyCase] = [
        KeyCase("/metrics/job/x/a/1/a/2", "/metrics/job/x/a/2"),
        KeyCase("/metrics/job/x/b/1/a/0/b/2", "/metrics/job/x/a/0/b/2"),
        KeyCase("/metrics/job/x/job/y", "/metrics/job/x"),
        KeyCase("/metrics/job/x/a/1/job/y/z/2", "/metrics/job/x/a/1/z/2"),
        KeyCase("/metrics/job/x/job@base64/\(base64("y"))", "/metrics/job/x"),
        KeyCase("/metrics/job/x/a/", "/metrics/job/x"),
        KeyCase("/metrics/job/x/a/1/b/", "/metrics/job/x/a/1"),
        KeyCase("/metrics/job/x/a/1/a/", "/metrics/job/x"),
        KeyCase("/metrics/job/x/a@base64/=/b/1", "/metrics/job/x/b/1"),
        KeyCase("/metrics/job/x/a@base64//", "/metrics/job/x/a@base64//"),
        KeyCase("/metrics/job/x/a@base64/", "/metrics/job/x"),
    ]
    static let escapes: [KeyCase] = [
        KeyCase("/metrics/job/x%20y", "/metrics/job/x y"),
        KeyCase("/metrics/job/x/a/%31", "/metrics/job/x/a/1"),
        KeyCase("/metrics/job/x/%62/2/%61/1", "/metrics/job/x/a/1/b/2"),
        KeyCase("/metrics/job/x/a/%2B%2b", "/metrics/job/x/a/++"),
        KeyCase("/metrics/job/x/a/%252F", "/metrics/job/x/a/%2F"),
        KeyCase("/metrics/job/x/a/%C3%A9", "/metrics/job/x/a/\u{E9}"),
        KeyCase("/metrics/job/x/a/%01%7F", "/metrics/job/x/a/\u{1}\u{7F}"),
        KeyCase("/metrics%2Fjob/x", "/metrics/job/x"),
        KeyCase("/%6detrics/job/x", "/metrics/job/x"),
        KeyCase("/metrics/job/x%2F", "/metrics/job/x"),
        KeyCase("/metrics/job/x%2Fa%2F1", "/metrics/job/x/a/1"),
        KeyCase("/metrics/job/x/a%2F1", "/metrics/job/x/a/1"),
        KeyCase("/metrics/job%40base64/eA", "/metrics/job/x"),
        KeyCase("/metrics/job/x/a%40base64/MQ", "/metrics/job/x/a/1"),
        // Taken since Go 1.22, whose mux cleans the path as it is encoded.
        KeyCase("/metrics/job/x/a/%2Fb/c", "/metrics/job/x/b/c"),
        KeyCase("/metrics/job/%2e/a/%2E%2E", "/metrics/job/./a/.."),
    ]
    static let base64Values: [KeyCase] = [
        KeyCase("/metrics/job@base64/eA", "/metrics/job/x"),
        KeyCase("/metrics/job@base64/eA==", "/metrics/job/x"),
        KeyCase("/metrics/job@base64/eA%3D%3d%3D", "/metrics/job/x"),
        KeyCase("/metrics/job@base64/eB", "/metrics/job/x"),
        KeyCase("/metrics/job@base64/e%0AA%0d", "/metrics/job/x"),
        KeyCase("/metrics/job@base64/\(base64("a/b"))/", "/metrics/job/a/b"),
        KeyCase("/metrics/job@base64/eA/b/2/a/1", "/metrics/job/x/a/1/b/2"),
        KeyCase("/metrics/job/x/a@base64/\(base64("/var/tmp"))", "/metrics/job/x/a//var/tmp"),
        KeyCase("/metrics/job/x/b@base64/\(base64("~~?"))/a/1", "/metrics/job/x/a/1/b/~~?"),
        KeyCase("/metrics/job/x/a@base64/\(base64("four"))", "/metrics/job/x/a/four"),
        KeyCase("/metrics/job/x/a@base64/\(base64("fives"))", "/metrics/job/x/a/fives"),
        KeyCase("/metrics/job/x/a@base64/\(base64("six six"))", "/metrics/job/x/a/six six"),
        KeyCase("/metrics/job/x/a/1/a@base64/Mg", "/metrics/job/x/a/2"),
        KeyCase("/metrics/job/x/a@base64/Mg/a/1", "/metrics/job/x/a/1"),
        KeyCase("/metrics/job@base64/-_-_", "/metrics/job/\u{FFFD}\u{FFFD}\u{FFFD}"),
    ]
    /// Names as `model.UnescapeName` of prometheus/common undoes them with value encoding.
    static let escapedNames: [KeyCase] = [
        KeyCase("/metrics/job/x/U__a_2e_b/1", "/metrics/job/x/a.b/1"),
        KeyCase("/metrics/job/x/U__a_2E_b/1", "/metrics/job/x/a.b/1"),
        KeyCase("/metrics/job/x/a.b/1", "/metrics/job/x/a.b/1"),
        KeyCase("/metrics/job/x/U__a__b/1", "/metrics/job/x/a_b/1"),
        KeyCase("/metrics/job/x/U______name____/1", "/metrics/job/x/__name__/1"),
        KeyCase("/metrics/job/x/U__caf_e9_/1", "/metrics/job/x/caf\u{E9}/1"),
        KeyCase("/metrics/job/x/caf%C3%A9/1", "/metrics/job/x/caf\u{E9}/1"),
        KeyCase("/metrics/job/x/U___1F600_/1", "/metrics/job/x/\u{1F600}/1"),
        KeyCase("/metrics/job/x/z/2/U__a_2e_b@base64/MQ", "/metrics/job/x/a.b/1/z/2"),
        KeyCase("/metrics/job/x/U__job/y", "/metrics/job/x"),
        KeyCase("/metrics/job/x/U__a_2e_b/1/U__a_2E_b/2", "/metrics/job/x/a.b/2"),
        KeyCase("/metrics/job/x/U__a_FFFFF_/1", "/metrics/job/x/a\u{FFFFF}/1"),
        // Six digits are too many for it, and neither half of a pair nor an open escape is a character.
        KeyCase("/metrics/job/x/U__a_10FFFF_/1", "/metrics/job/x/U__a_10FFFF_/1"),
        KeyCase("/metrics/job/x/U__a_d800_/1", "/metrics/job/x/U__a_d800_/1"),
        KeyCase("/metrics/job/x/U__a_2e/1", "/metrics/job/x/U__a_2e/1"),
        KeyCase("/metrics/job/x/U__a_/1", "/metrics/job/x/U__a_/1"),
        KeyCase("/metrics/job/x/U__a_2g_/1", "/metrics/job/x/U__a_2g_/1"),
        KeyCase("/metrics/job/x/U__/1", "/metrics/job/x/U__/1"),
        KeyCase("/metrics/job/x/U_/1/U/2", "/metrics/job/x/U/2/U_/1"),
    ]
    static let refused: [KeyCase] = [
        "/metrics/job", "/metrics/job/", "/metrics/job//", "/metrics/job/x//", "/metrics/jobs/x", "/metrics/x",
        "/metrics/job@base64", "/metrics/job@base64/", "/metrics/job@base64/=", "/metrics/job@base64/%0A",
        "/metrics/job@base64/e", "/metrics/job@base64/eA=%0A=", "/metrics/job@base64/a+/b/%31",
        "/metrics/job@base64/a%2Fb", "/metrics/job@base32/eA", "/metrics/Job/x/b/%31/a/2", "",
        "metrics/job/x", "/metrics/job/x/a", "/metrics/job/x/b/2/a/1/", "/metrics/job/x/b/2/a", "/metrics/job/x/%61",
        "/metrics/job/x/b/2//a/1", "/metrics/job/x/b//a/1", "/metrics/job//b/2/a/1", "//metrics/job/x/b/%31/a/1",
        "/metrics/job/x/b/2/a/.", "/metrics/job/x/b/2/a/..", "/metrics/job/x/b/./a/1", "/metrics/job/x/./2/a/1",
        "/metrics/job/./b/2/a/1", "/metrics/job/../b/%32/a/1", "/metrics/./job/x/b/2/a/1", "/metrics/job/x/b/%32/a/.",
        "/metrics/job/x/b/2/a/%", "/metrics/job/x/b/2/a/%1", "/metrics/job/x/b/2/a/%zz", "/metrics/job/x/%zz/2/a/1",
        "/metrics/job/x/b/%31/a/%4", "/metrics/job/x/b/2/a/\u{1}", "/metrics/job/x/b/2/a/\u{7F}",
        "/metrics/job/x/b/%31/a/\n", "/metrics/job/\t/b/2/a/1", "/metrics/job/x/\t/2/a/1",
        // The mux looks at the decoded path where a byte should have been encoded.
        "/metrics/job/%2e/b/#", "/metrics/job/x/b/\u{E9}/a/%2E%2e", "/metrics/job/x/a/%2Fb/\"",
        "/metrics/job/%2Fb/2/a/1", "/metrics/job/x/%2Fb/2/a/1", "/metrics/job/x/%2F",
        "/metrics/job/x/b/2/__a/1", "/metrics/job/x/b/2/__/1", "/metrics/job/x/b/2/%5F_a/1",
        "/metrics/job/x/b/2/__a@base64/MQ", "/metrics/job/x/b/2/@base64/MQ", "/metrics/job/x/b/2/a@base64/M",
        "/metrics/job/x/b/2/a@base64/M+==", "/metrics/job/x/b/2/a@base64/M=Q", "/metrics/job/x/b/2/a@base64/%2Fabc",
        "/metrics/job/x/b/2/%ff/1", "/metrics/job/x/b/2/%c3/1", "/metrics/job/x/b/2/%ed%a0%80/1",
        "/metrics/job/x/b/2/%f4%90%80%80/1", "/metrics/job/x/b/2/%c0%af/1", "/metrics/job/x/b/2/U__a%ff/1",
    ].map(KeyCase.init(refused:))

    @Test(arguments: plain + duplicatesAndEmptyValues + escapes + base64Values + escapedNames + refused)
    func isWhatAPushgatewayWouldFileThePushUnder(_ expected: KeyCase) {
        #expect(key(expected.path) == expected.key)
    }

    /// All of them by one parser, so that nothing of one path may reach the next.
    @Test func aParserKeepsNothingFromOnePathToTheNext() {
        let parser = GroupingKeyParser(key: .group)
        let cases = Self.plain + Self.duplicatesAndEmptyValues + Self.escapes + Self.base64Values + Self.refused
        for expected in cases + cases.reversed() {
            #expect(String(decoding: key(Array(expected.path.utf8), parser), as: UTF8.self) == expected.key)
        }
    }

    @Test func takesBytesThatAreNoUTF8AsValues() {
        #expect(
            key(Array("/metrics/job/x/b/2/a/".utf8) + [0xFF]) == Array("/metrics/job/x/a/".utf8) + [0xFF]
                + Array("/b/2".utf8)
        )
        #expect(key("/metrics/job/%FF".utf8 + []) == Array("/metrics/job/".utf8) + [0xFF])
        let refused = Array("/metrics/job/x/b/2/".utf8) + [0xFF] + Array("/1".utf8)
        #expect(key(refused) == refused)
    }

    @Test func aPlainPathIsHashedWhereItLies() {
        let parser = GroupingKeyParser(key: .group)
        for (path, length) in [("/metrics/job/x/a/1/b/2", 22), ("/metrics/job/x/", 14), ("/metrics/job/x/b/%zz", 20)] {
            Array(path.utf8).withUnsafeBytes { bytes in
                _ = parser.hash(path: bytes)
                #expect(parser.text.baseAddress == bytes.baseAddress)
                #expect(parser.text.count == length)
            }
        }
    }

    @Test func sortsAnyNumberOfLabels() {
        for count in [2, 23, 24, 25, 26, 100, 1000] {
            let numbers = Array(0..<count)
            let text = numbers.map { String(format: "/label_%06d/%d", $0, $0) }
            for order in [Array(numbers.reversed()), numbers.shuffled(), numbers.map { ($0 * 7 + 3) % count }] {
                guard Set(order).count == count else { continue }
                // The first of each is overridden by the second.
                let path = order.map { String(format: "/label_%06d/old", $0) } + order.map { text[$0] }
                #expect(key("/metrics/job/x" + path.joined()) == "/metrics/job/x" + text.joined())
            }
        }
    }
}

@Suite struct GroupingKeyLimitTests {
    /// 64 KiB of the shortest labels there are, in descending order; a quadratic parser takes 16,000 times as long for
    /// each label as it does for one of four, a good one about twice as long.
    @Test(arguments: ["/%c%c/1", "/U__%c%c/1", "/%%%02x%c@base64/MQ"])
    func manyLabelsTakeNoMoreThanTheyShould(format: String) {
        let letters = Array("zyxwvutsrqponmlkjihgfedcba".utf8)
        func path(length: Int) -> [UInt8] {
            var path = Array("/metrics/job/x".utf8)
            var number = 0
            while path.count < length {
                let (first, second) = (letters[number / 26 % 26], letters[number % 26])
                path += String(format: format, CInt(first), CInt(second)).utf8
                number += 1
            }
            return path
        }
        func time(_ path: [UInt8], rounds: Int) -> Double {
            let parser = GroupingKeyParser(key: .group)
            return path.withUnsafeBytes { path in
                (0..<5).map { _ in
                    let start = MonotonicTime.now()
                    for _ in 0..<rounds { _ = parser.hash(path: path) }
                    return MonotonicTime.now().since(start).seconds / Double(rounds) / Double(path.count)
                }.min() ?? 0
            }
        }
        let short = time(path(length: 1 << 10), rounds: 100)
        let long = time(path(length: 1 << 16), rounds: 4)
        #expect(long < short * 8, "\(short * 1e9) ns a byte for 1 KiB, \(long * 1e9) for 64 KiB")
    }

    @Test func aPathOfAnyLengthIsTaken() {
        let value = String(repeating: "v", count: 1 << 20)
        #expect(key("/metrics/job/x/b/\(value)/a/%31") == "/metrics/job/x/a/1/b/\(value)")
        #expect(key("/metrics/job/x/a/1") == "/metrics/job/x/a/1")
    }
}

@Suite struct PathKeyTests {
    @Test(arguments: [
        KeyCase("/metrics/job/x/b/2/a/1", "/metrics/job/x/b/2/a/1"),
        KeyCase("/metrics/job/x/", "/metrics/job/x/"),
        KeyCase("/metrics/job/x/a/%2F%20+", "/metrics/job/x/a// +"),
        KeyCase("/metrics/job@base64/eA%3D", "/metrics/job@base64/eA="),
        KeyCase("/metrics/job/x/a/%252F", "/metrics/job/x/a/%2F"),
        KeyCase(refused: "/metrics/job/x/%41/%zz"),
        KeyCase(refused: "/metrics/job/x/%41/%4"),
        KeyCase(refused: ""),
    ])
    func isTheDecodedPath(_ expected: KeyCase) {
        #expect(key(expected.path, as: .path) == expected.key)
    }
}

@Suite struct PushPathTests {
    @Test(arguments: [
        ("/metrics/job/x", true), ("/metrics/job/", true), ("/metrics/job@base64/x", true),
        ("/metrics/job@base64/", true),
        ("/metrics%2Fjob/x", true), ("/%6Detrics/job%40base64%2f", true), ("/metrics/job/%zz", true),
        ("/metrics/job", false), ("/metrics/job@base64", false), ("/metrics", false), ("", false), ("/", false),
        ("/metrics/job@base6/x", false), ("/metrics/jobs/x", false), ("/Metrics/job/x", false),
        ("metrics/job/x", false),
        ("%2Fmetrics/job/x", false), ("//metrics/job/x", false), ("/metrics%2/job/x", false), ("/metrics/job%2", false),
        ("/metrics%252Fjob/x", false),
    ])
    func isToldByItsDecodedBeginning(path: String, expected: Bool) {
        let parser = GroupingKeyParser(key: .group)
        #expect(Array(path.utf8).withUnsafeBytes { parser.isPushPath($0) } == expected)
    }
}

@Suite struct UTF8Tests {
    @Test func agreesWithTheStandardLibraryOnEverySequence() {
        let seconds: [UInt8] = [0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF]
        let tails: [UInt8] = [0x7F, 0x80, 0xBF, 0xC0]
        for lead in UInt8.min...UInt8.max {
            for second in seconds {
                for third in tails {
                    for fourth in tails {
                        let bytes = [lead, second, third, fourth]
                        let length = bytes.withUnsafeBytes { utf8SequenceLength($0, at: 0) }
                        let expected = (1...4).first {
                            String(validating: bytes[..<$0], as: UTF8.self)?.unicodeScalars.count == 1
                        }
                        #expect(length == expected)
                    }
                }
            }
        }
    }
}
