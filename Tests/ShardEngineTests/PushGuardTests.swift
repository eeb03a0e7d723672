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
        type: [UInt8] = [],
        coding: [UInt8] = [],
        by pushGuard: PushGuard = PushGuard()
    ) -> PushRefusal? {
        body.withUnsafeBytes { body in
            type.withUnsafeBytes { type in
                coding.withUnsafeBytes { coding in
                    pushGuard.judge(
                        body,
                        type: type.isEmpty ? nil : type,
                        coding: coding.isEmpty ? nil : coding
                    )
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
