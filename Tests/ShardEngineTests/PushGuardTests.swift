// The guard's verdict on every body of a list of bodies that were tried on real Pushgateways, and what it must not cost.
import Foundation
import Testing

@testable import ShardEngine

@Suite struct PushGuardTests {
    /// A row of push-bodies.tsv, which tells what its columns are.
    struct Row: CustomTestStringConvertible, Sendable {
        let verdict: String
        let name: String
        let type: [UInt8]
        let coding: [UInt8]
        let body: [UInt8]

        var testDescription: String { name }
    }

    static let rows: [Row] = {
        let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .appending(path: "Fixtures/push-bodies.tsv")
        let text = (try? String(contentsOf: file, encoding: .utf8)) ?? ""
        return text.split(separator: "\n").filter { !$0.hasPrefix("#") }.map { line in
            let fields = line.split(separator: "\t", omittingEmptySubsequences: false)
            return Row(
                verdict: String(fields[0]),
                name: String(fields[1]),
                type: Array(fields[2].utf8),
                coding: Array(fields[3].utf8),
                body: unescaped(Array(fields[4].utf8))
            )
        }
    }()

    private static func unescaped(_ text: [UInt8]) -> [UInt8] {
        var bytes: [UInt8] = []
        var index = 0
        while index < text.count {
            guard text[index] == UInt8(ascii: "\\") else {
                bytes.append(text[index])
                index += 1
                continue
            }
            switch text[index + 1] {
            case UInt8(ascii: "n"): bytes.append(0x0A)
            case UInt8(ascii: "t"): bytes.append(0x09)
            case UInt8(ascii: "r"): bytes.append(0x0D)
            case UInt8(ascii: "x"):
                bytes.append((hexDigitValue(text[index + 2]) ?? 0) << 4 | (hexDigitValue(text[index + 3]) ?? 0))
                index += 2
            default: bytes.append(text[index + 1])
            }
            index += 2
        }
        return bytes
    }

    private func judge(_ row: Row, by pushGuard: PushGuard = PushGuard()) -> PushRefusal? {
        judge(row.body, type: row.type, coding: row.coding, by: pushGuard)
    }

    private func judge(
        _ body: [UInt8],
        path: String = "/metrics/job/a",
        type: [UInt8] = [],
        coding: [UInt8] = [],
        by pushGuard: PushGuard = PushGuard()
    ) -> PushRefusal? {
        body.withUnsafeBytes { body in
            type.withUnsafeBytes { type in
                coding.withUnsafeBytes { coding in
                    Array(path.utf8).withUnsafeBytes { path in
                        pushGuard.judge(
                            body,
                            path: path,
                            type: type.isEmpty ? nil : type,
                            coding: coding.isEmpty ? nil : coding
                        )
                    }
                }
            }
        }
    }

    @Test func hasRows() {
        #expect(PushGuardTests.rows.count > 300)
    }

    @Test(arguments: rows) func saysWhatTheListSays(_ row: Row) {
        let refusal = judge(row)
        #expect((refusal?.reason.rawValue ?? "forward") == row.verdict, "\(row.name): \(refusal?.line ?? "")")
        #expect(refusal?.line.contains("\n") != true)
    }

    /// Pushgateway's own times of failed pushes: only as Pushgateway has them.
    @Test func aTimeOfFailureIsAGaugeWithoutLabels() {
        let type = "# TYPE push_failure_time_seconds gauge\n"
        for rest in ["", "{}", " { }"] {
            let body = "push_failure_time_seconds\(rest) 1\n"
            #expect(judge(Array((type + body).utf8)) == nil, "\(body)")
            #expect(judge(Array(body.utf8))?.reason == .reserved, "untyped: \(body)")
        }
        let others = [
            "push_failure_time_seconds{a=\"1\"} 1\n", "push_failure_time_seconds {job=\"q\"} 1\n",
            "{\"push_failure_time_seconds\",a=\"1\"} 1\n", "\"push_failure_time_seconds\"{a=\"1\"} 1\n",
            "push_failure_\"time_seconds\"{a=\"1\"} 1\n",
        ]
        for body in others { #expect(judge(Array((type + body).utf8))?.reason == .reserved, "\(body)") }
        for body in ["push_failure_time_seconds_count 1\n", "push_time_seconds 1\n", "pushed 1\n"] {
            #expect(judge(Array(body.utf8)) == nil, "\(body)")
        }
    }

    @Test func aFamilyThatTakesTheGroupsPlaceInListingsIsRefused() {
        let bodies = [
            "labels 1\n", "last_push_successful{a=\"1\"} 1\n", "x 1\nlabels{} 1\n", "{\"labels\"} 1\n",
            "# TYPE labels histogram\nlabels_bucket{le=\"1\"} 1\n", "lab\"els\" 1\n", "\"labels\" 1\n",
            "{\"x\",\"labels\"} 1\n", "{a=\"1\",labels} 1\n", "# TYPE \"labels\" gauge\nx 1\n", "l\"abels\"{} 1\n",
        ]
        for body in bodies { #expect(judge(Array(body.utf8))?.reason == .familyName, "\(body)") }
        for body in ["labels_total 1\n", "label 1\n", "last_push_successful_at 1\n", "# HELP labels a\nx 1\n"] {
            #expect(judge(Array(body.utf8)) == nil, "\(body)")
        }
    }

    @Test func aHistogramIsRefusedInAGroupWithALabelLE() {
        let histogram = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\n"
        for rest in ["le/1", "x/y/le@base64/MQ", "%6Ce/1", "U__le/1"] {
            let path = "/metrics/job/a/\(rest)"
            let others = ["x 1\n# TYPE h HISTOGRAM\nh_count 1\n", "# TYPE h\"a b\" histogram\nx 1\n"]
            for body in [histogram] + others {
                #expect(judge(Array(body.utf8), path: path)?.reason == .metricLabel, "\(path)")
            }
            #expect(judge(Array("# TYPE g gauge\ng 1\n".utf8), path: path) == nil)
        }
        let media =
            "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; a=1; a=2"
        #expect(
            judge(Array(histogram.utf8), path: "/metrics/job/a/le/1", type: Array(media.utf8))?.reason == .metricLabel,
            "read as text by some versions"
        )
        for path in ["/metrics/job/le/instance/le", "/metrics/job/a/length/1", "/metrics/job/a/x/y%20le"] {
            #expect(judge(Array(histogram.utf8), path: path) == nil, "\(path)")
        }
    }

    @Test func labelsThatScrapesCannotTellAreRefused() {
        func body(_ labels: [String]) -> [UInt8] {
            func field(_ number: UInt8, _ bytes: [UInt8]) -> [UInt8] { [number << 3 | 2, UInt8(bytes.count)] + bytes }
            let pairs = labels.flatMap { field(1, field(1, Array($0.utf8)) + field(2, Array("v".utf8))) }
            let metric = pairs + field(2, [9] + [UInt8](repeating: 0, count: 8))
            let family = field(1, Array("x".utf8)) + [3 << 3, 1] + field(4, metric)
            return [UInt8(family.count)] + family
        }
        let media = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
        let type = Array(media.utf8)
        for labels in [["a.b", "a_b"], ["a_b", "a.b"], ["a.b", "a-b"], ["ä", "_"], ["1a", "_a"]] {
            #expect(judge(body(labels), type: type)?.reason == .metricLabel, "\(labels)")
        }
        for labels in [["a.b", "ab"], ["a_b", "a__b"], ["a.b", "a..b"], ["a.b"]] {
            #expect(judge(body(labels), type: type) == nil, "\(labels)")
        }
        #expect(judge(body(["a.b"]), path: "/metrics/job/a/a_b/1", type: type)?.reason == .metricLabel)
        #expect(judge(body(["a.b"]), path: "/metrics/job/a/a_c/1", type: type) == nil)
    }

    /// The same bodies under gzip, one guard for all: what one body leaves behind must not be seen in the next.
    @Test func keepsNothingFromBodyToBody() {
        let pushGuard = PushGuard()
        for _ in 0..<2 {
            for row in PushGuardTests.rows {
                let verdict = judge(row, by: pushGuard)?.reason.rawValue ?? "forward"
                #expect(verdict == row.verdict, "\(row.name)")
            }
        }
    }

    /// A body may break off anywhere: that must be read without a crash, and refused only as the whole body is.
    @Test func readsEveryBeginningOfABody() {
        for row in PushGuardTests.rows where row.body.count < 2000 {
            for count in 0..<row.body.count {
                let part = Array(row.body[..<count])
                let refusal = judge(part, type: row.type, coding: row.coding)
                // What ends within a line, a message or a block may be another one.
                guard row.verdict == "forward", row.type.isEmpty, row.coding.isEmpty, part.last == 0x0A else {
                    continue
                }
                #expect(refusal == nil, "\(row.name), \(count) bytes")
            }
        }
    }

    @Test func refusesWhatInflatesToTooMuch() {
        let pushGuard = PushGuard()
        pushGuard.inflatedLimit = 1000
        var frames: [UInt8] = [0xFF, 6, 0, 0] + Array("sNaPpY".utf8)
        for _ in 0..<3 { frames += [1, 0x94, 1, 0, 0, 0, 0, 0] + [UInt8](repeating: 0x0A, count: 400) }
        let refusal = judge(frames, coding: Array("snappy".utf8), by: pushGuard)
        #expect(refusal?.reason == .tooLarge && refusal?.status == 413)
        #expect(judge(Array(frames.prefix(10 + 408)), coding: Array("snappy".utf8), by: pushGuard) == nil)
    }

    @Test func namesFamilyAndPlace() {
        let body = Array("a 1\n# TYPE b gauge_histogram\n".utf8)
        #expect(judge(body)?.line.hasPrefix("family \"b\" at byte 4 of the body: ") == true)
    }

    /// A long line or name must not make the answer long, and no byte of it may end the line.
    @Test func answersOneShortLine() {
        let body = Array("# TYPE ".utf8) + [UInt8](repeating: 0x61, count: 5000) + Array(" gauge_histogram\n".utf8)
        #expect((judge(body)?.line.count ?? 1000) < 400)
    }

    @Test func tellsFormatsAsPushgatewayDoes() {
        let type = "application/vnd.google.protobuf"
        let family = "io.prometheus.client.MetricFamily"
        let formats: [(String, BodyFormat)] = [
            ("\(type); proto=\(family); encoding=delimited", .protobuf),
            ("\(type);proto=\(family);encoding=delimited;", .protobuf),
            ("\(type.uppercased()) ;\tPROTO = \"\(family)\" ; Encoding=\"delimited\"; q=1", .protobuf),
            ("\(type.uppercased()) ;\tPROTO = \"\(family)\" ; Encoding=\"delimited\"", .protobuf),
            ("\(type); proto=\(family); encoding=Delimited", .text),
            ("\(type); proto=\(family)", .text),
            ("\(type)", .text),
            ("\(type); proto=\(family); encoding=delimited; escaping=underscores", .protobuf),
            ("\(type); proto=\(family); encoding=delimited; a=1; a=2", .either),
            ("\(type); proto=\(family); encoding=delimited; encoding=delimited", .either),
            ("\(type); proto=\(family); encoding*0=deli; encoding*1=mited", .either),
            ("\(type); proto=\(family); encoding*=utf-8''delimited", .either),
            ("\(type); proto=\(family); encoding=deli\"m\"ited", .either),
            ("\(type), text/plain; proto=\(family); encoding=delimited", .text),
            ("text/plain; version=0.0.4; charset=utf-8", .text),
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", .text),
            ("\(type)x; proto=\(family); encoding=delimited", .text),
            ("\(type)\u{A0}; proto=\(family); encoding=delimited", .either),
        ]
        for (contentType, format) in formats {
            let bytes = Array(contentType.utf8)
            #expect(bytes.withUnsafeBytes { BodyFormat(contentType: $0) } == format, "\(contentType)")
        }
        #expect(BodyFormat(contentType: nil) == .text)
    }
}
