// What libFuzzer calls with each body that it makes up; `make fuzz` builds and runs it. FORMAT in the environment tells whether they
// are text or protobuf. Its corpus, beside this file, is replayed by `swift test` as well.
import Glibc

@testable import ShardEngine

/// As a worker has one for all its pushes.
nonisolated(unsafe) private let replay = BodyReplay(
    isProtobuf: getenv("FORMAT").map { strcmp($0, "protobuf") == 0 } ?? false
)

/// The name of it is libFuzzer's.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ bytes: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    if let problem = replay.problem(UnsafeRawBufferPointer(start: bytes, count: count)) { fatalError(problem) }
    return 0
}
