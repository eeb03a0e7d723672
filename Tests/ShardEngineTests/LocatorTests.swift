import Foundation
import Testing

@testable import ShardEngine

@Suite struct LocatorTests {
    private let ring = Ring(
        shards: ["10.0.0.1:9091", "10.0.0.2:9091", "10.0.0.3:9091"].compactMap { ShardAddress(parsing: $0) },
        vnodes: 500
    )

    /// What a locator writes for the content of its input: lines, errors, and whether all were pushes.
    private func locate(_ input: [UInt8], as format: Locator.Format = .tabSeparated, key: HashKey = .group) throws
        -> (lines: String, errors: String, areAllPushes: Bool)
    {
        let files = try (0..<3).map { _ in try #require(tmpfile()) }
        defer { files.forEach { fclose($0) } }
        let descriptors = files.map(fileno)
        try #require(input.withUnsafeBytes { write(descriptors[0], $0.baseAddress, $0.count) } == input.count)
        lseek(descriptors[0], 0, SEEK_SET)
        var configuration = Configuration()
        configuration.hash.key = key
        let (output, errors) = (descriptors[1], descriptors[2])
        let locator = Locator(
            ring: ring,
            configuration: configuration,
            format: format,
            output: output,
            errors: errors
        )
        try locator.locateLines(of: descriptors[0])
        let texts = descriptors[1...].map { descriptor in
            lseek(descriptor, 0, SEEK_SET)
            return String(decoding: FileHandle(fileDescriptor: descriptor).readDataToEndOfFile(), as: UTF8.self)
        }
        return (texts[0], texts[1], locator.areAllPushes)
    }

    private func shard(of key: String) -> String {
        ring.shards[ring.owner(of: Array(key.utf8).withUnsafeBytes { murmur3($0) })].text
    }

    private func hash(_ key: String) -> String {
        String(format: "%08x", Array(key.utf8).withUnsafeBytes { murmur3($0) })
    }

    @Test func writesOneLineForEachPath() throws {
        let result = try locate(Array("/metrics/job/x/b/2/a/1?q=/\r\n\nhttps://h:1/metrics/job/y".utf8))
        let (first, second) = ("/metrics/job/x/a/1/b/2", "/metrics/job/y")
        #expect(
            result.lines == """
                /metrics/job/x/b/2/a/1?q=/\t\(first)\t\(hash(first))\t\(shard(of: first))
                https://h:1/metrics/job/y\t\(second)\t\(hash(second))\t\(shard(of: second))

                """
        )
        #expect(result.errors == "" && result.areAllPushes)
    }

    @Test func hashesByTheDecodedPathWhereThatIsTheKey() throws {
        let result = try locate(Array("/metrics/job/x/b/%32/a/1".utf8), key: .path)
        let key = "/metrics/job/x/b/2/a/1"
        #expect(result.lines == "/metrics/job/x/b/%32/a/1\t\(key)\t\(hash(key))\t\(shard(of: key))\n")
    }

    @Test func tellsWhatIsNoPushAndGoesOn() throws {
        let result = try locate(Array("/metrics\nhttp://host\n/metrics/job/x\n/a\tb?c\n".utf8))
        #expect(result.lines.hasPrefix("/metrics/job/x\t") && result.lines.split(separator: "\n").count == 1)
        #expect(!result.areAllPushes)
        let errors = result.errors.split(separator: "\n")
        #expect(errors.count == 3)
        for (line, path) in zip(errors, ["/metrics", "http://host", "/a\\tb?c"]) {
            #expect(line.hasSuffix(": \(path)"))
        }
    }

    @Test func nothingInAKeyCanBreakALine() throws {
        let path = "/metrics/job/%09%0A%0D%5C%00%7F%FF%C3%A9%C2%85%E2%80%A8%E2%80%AA%F0%9F%98%80"
        let escaped = #"/metrics/job/\t\n\r\\\x00\x7f\xff\#u{E9}\xc2\x85\xe2\x80\xa8\#u{202A}\#u{1F600}"#
        let fields = try locate(Array(path.utf8)).lines.split(separator: "\t")
        #expect(fields.count == 4)
        #expect(fields[0] == path)
        #expect(fields[1] == escaped)
        let raw = try locate(Array("/metrics/job/\u{1}\t".utf8) + [0xFF]).lines.split(separator: "\t")
        #expect(raw[0] == raw[1] && raw[0] == #"/metrics/job/\x01\t\xff"#)
    }

    @Test func writesJSONThatSaysTheSame() throws {
        let path = "/metrics/job/%09%0A%0D%5C%22%00%7F%FF%C3%A9%C2%85%E2%80%A8%F0%9F%98%80"
        let line = try locate(Array("\(path)?\"".utf8), as: .json).lines
        let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: String])
        #expect(object["path"] == "\(path)?\"")
        #expect(object["grouping_key"] == "/metrics/job/\t\n\r\\\"\0\u{7F}\u{FFFD}\u{E9}\u{85}\u{2028}\u{1F600}")
        let plain = try locate(Array(path.utf8)).lines.split(separator: "\t")
        #expect(object["hash"].map { $0[...] } == plain[2])
        #expect(object["shard"].map { "\($0)\n" } == String(plain[3]))
        let rest = Ring(shards: ring.shards.filter { $0.text != object["shard"] }, vnodes: 500)
        let hash = try #require(UInt32(plain[2], radix: 16))
        #expect(object["next"] == rest.shards[rest.owner(of: hash)].text)
    }

    @Test func readsLinesLongerThanAnyBuffer() throws {
        let long = "/metrics/job/x/a/" + String(repeating: "v", count: 200_000)
        let result = try locate(Array("\(long)\n/metrics/job/y\n\(long)".utf8))
        #expect(
            result.lines.split(separator: "\n").map { $0.split(separator: "\t")[1] } == [
                long[...], "/metrics/job/y", long[...],
            ]
        )
    }
}
