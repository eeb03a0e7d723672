import Foundation
import Logging
import Synchronization
import Testing

@testable import ShardEngine

@Suite struct LogTests {
    /// Collects what a logger writes.
    private final class Collector: Sendable {
        private let bytes = Mutex<[UInt8]>([])

        func logger(_ format: LogFormat, level: LogLevelBox = LogLevelBox(.debug)) -> Logger {
            Logger(label: "test") { _ in
                LineLogHandler(format: format, level: level) { line in self.bytes.withLock { $0 += line } }
            }
        }

        var text: String { bytes.withLock { String(decoding: $0, as: UTF8.self) } }
    }

    /// The line without its time, which must look like one.
    private static func afterTime(_ line: String) throws -> String {
        let match = try #require(try /^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*\n)$/.wholeMatch(in: line))
        return String(match.output.1)
    }

    @Test(arguments: [
        ("plain", "plain"), ("", #""""#), ("two words", #""two words""#), ("a=b", #""a=b""#),
        (#"say "hi""#, #""say \"hi\"""#), (#"back\slash"#, #""back\\slash""#), ("a\nb\r\tc", #""a\nb\r\tc""#),
        ("\u{0}\u{1B}[31m\u{7F}", #""\u0000\u001b[31m\u007f""#), ("\u{85}\u{2028}", #""\u0085\u2028""#),
        ("grüße", #""grüße""#), ("10.0.0.1:9091", "10.0.0.1:9091"), ("/metrics/job/a", "/metrics/job/a"),
    ])
    func logfmtQuotesWhatNeedsIt(value: String, expected: String) throws {
        let collector = Collector()
        collector.logger(.logfmt).info("changed", metadata: ["value": .string(value)])
        #expect(try Self.afterTime(collector.text) == "level=info msg=changed value=\(expected)\n")
    }

    @Test(arguments: [
        "plain", "", "say \"hi\"", "back\\slash", "a\nb\r\tc", "\u{0}\u{1B}[31m\u{7F}", "\u{85}\u{2028}", "grüße 👍",
        String(decoding: [0x61, 0xFF, 0xC3, 0x28], as: UTF8.self),
    ])
    func jsonGivesBackWhatWentIn(value: String) throws {
        let collector = Collector()
        collector.logger(.json).warning(
            "changed",
            metadata: ["\(value)key": .string(value), "n": .stringConvertible(5)]
        )
        #expect(collector.text.hasSuffix("}\n"))
        #expect(collector.text.unicodeScalars.count { $0.properties.generalCategory == .control } == 1)
        let object = try JSONSerialization.jsonObject(with: Data(collector.text.utf8)) as? [String: Any]
        let entry = try #require(object)
        #expect(entry["level"] as? String == "warn")
        #expect(entry["msg"] as? String == "changed")
        #expect(entry["\(value)key"] as? String == value)
        #expect(entry["n"] as? Int == 5)
    }

    @Test func fieldsStandInOneOrderInBothFormats() throws {
        let metadata: Logger.Metadata = [
            "zone": "z", "alive": .stringConvertible(true), "count": .stringConvertible(UInt64.max), "shard": "a:1",
            "list": ["x", .stringConvertible(2)], "map": ["b": "2", "a": "1"], "ratio": .stringConvertible(0.5),
        ]
        for format in LogFormat.allCases {
            let collector = Collector()
            var logger = collector.logger(format)
            logger[metadataKey: "shard"] = "replaced"
            logger[metadataKey: "bad key="] = "kept"
            logger.error("failed", metadata: metadata)
            let expected =
                switch format {
                case .logfmt:
                    #"level=error msg=failed alive=true bad_key_=kept count=18446744073709551615 list="[\"x\",2]" "#
                        + #"map="{\"a\":\"1\",\"b\":\"2\"}" ratio=0.5 shard=a:1 zone=z"#
                case .json:
                    #""level":"error","msg":"failed","alive":true,"bad key=":"kept","count":18446744073709551615,"#
                        + #""list":["x",2],"map":{"a":"1","b":"2"},"ratio":"0.5","shard":"a:1","zone":"z"}"#
                }
            #expect(collector.text.hasSuffix(expected + "\n"), "\(collector.text)")
        }
    }

    @Test func theLevelOfAllLoggersChangesAtOnce() {
        let collector = Collector()
        let box = LogLevelBox(.warn)
        let first = collector.logger(.logfmt, level: box)
        var second = collector.logger(.logfmt, level: box)
        second.info("one")
        first.debug("two")
        box.level = .debug
        first.debug("three")
        second.logLevel = .error
        second.warning("four")
        first.critical("five")
        box.level = .error
        first.notice("six")
        #expect(collector.text.split(separator: "\n").map { $0.suffix(5) } == ["three", "=five"])
    }

    @Test func timesAreUTCToTheMillisecond() {
        #expect(LogLine.timestamp(timespec(tv_sec: 0, tv_nsec: 999_999)) == "1970-01-01T00:00:00.000Z")
        let leap = timespec(tv_sec: 1_709_210_096, tv_nsec: 7_000_000)
        #expect(LogLine.timestamp(leap) == "2024-02-29T12:34:56.007Z")
    }
}
