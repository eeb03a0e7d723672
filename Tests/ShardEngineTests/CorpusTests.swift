// The bodies that the fuzzer begins with, each judged as that of a push. What a Pushgateway does with them the system tests see.
import Foundation
import Testing

@testable import ShardEngine

@Suite struct CorpusTests {
    @Test(arguments: ["text", "protobuf"]) func everyBodyIsJudgedTheSameEachTime(format: String) throws {
        let tests = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        let folder = tests.appendingPathComponent("Fuzz/corpus/\(format)")
        let files = try FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)
        #expect(files.count > 50)
        let replay = BodyReplay(isProtobuf: format == "protobuf")
        for file in files.sorted(by: { $0.path < $1.path }) {
            let problem = try Data(contentsOf: file).withUnsafeBytes { replay.problem($0) }
            #expect(problem == nil, "\(file.lastPathComponent)")
        }
    }
}
