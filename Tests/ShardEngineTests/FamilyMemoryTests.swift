import Foundation
import Testing

@testable import ShardEngine

/// What a tier with many families costs.
@Suite struct FamilyMemoryTests {
    /// Of this process, in bytes.
    private static func resident() throws -> Int {
        let text = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
        return try #require(text.split(separator: " ").dropFirst().first.flatMap { Int($0) }) * 4096
    }

    /// Other tests take memory of the process meanwhile, so that one measure may be too high. What was measured stays, as the next one
    /// would be made of it.
    @Test func aFamilyAndItsShapeTakeLessThan200Bytes() throws {
        let count = 200_000
        var kept: [KnownFamilies] = []
        var measured: [Int] = []
        repeat {
            let known = KnownFamilies()
            let before = try Self.resident()
            for number in 0..<count {
                let shape = SeriesShape(keyNames: 1, allNames: UInt64(number % 7))
                let name = Array("application_requests_\(number)_total".utf8)
                known.hear([FamilyClaim(name: name, kind: .gauge, shapes: [shape])][...], at: .now())
            }
            measured.append(try (Self.resident() - before) / count)
            kept.append(known)
        } while measured.last! >= 200 && measured.count < 5
        #expect(measured.last! < 200, "\(measured) bytes")
        withExtendedLifetime(kept) {}
    }
}
