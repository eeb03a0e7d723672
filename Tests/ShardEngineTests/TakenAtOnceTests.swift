// Pushes that are taken at once by what is known, and the tables by which that goes.
import Testing

@testable import ShardEngine

@Suite struct TakenAtOnceTests {
    private let known = KnownFamilies()
    private let reader = ContentsReader()
    private let start = MonotonicTime(nanoseconds: 1_000_000_000_000)

    init() {
        known.isComplete = true
    }

    /// Reads a push of text and calls `body` while the reader has it.
    private func withPush<Result>(_ path: String, _ text: String, _ body: () -> Result) -> Result {
        let parser = GroupingKeyParser(key: .group)
        return Array(path.utf8).withUnsafeBytes { path in
            reader.key.removeAll()
            parser.forEachLabel(path: path) { name, value in reader.key.add(name, value) }
            return Array(text.utf8).withUnsafeBytes { text in
                guard case .read = reader.read(text, isProtobuf: false) else {
                    Issue.record("the body is not read")
                    return body()
                }
                return body()
            }
        }
    }

    private func take(_ path: String, _ text: String) -> CountedPush? {
        var taken: CountedPush?
        withPush(path, text) { taken = known.takeAtOnce(reader.families, at: start) }
        return taken
    }

    private func isTakenAtOnce(_ path: String, _ text: String) -> Bool {
        take(path, text) != nil
    }

    private func pushed(_ path: String, _ text: String) -> CheckedPush {
        withPush(path, text) {
            CheckedPush(families: reader.families.pushed(), group: reader.key.group, isPost: true)
        }
    }

    /// Has it decided by an empty listing that begins later than anything has been pushed.
    private func decide(_ path: String, _ text: String) -> KnownFamilies.Decision {
        let later = MonotonicTime.now().advanced(by: .seconds(5))
        return known.decide(pushed(path, text), by: TierListing(begun: later), isLast: false, at: start)
    }

    private func isTaken(_ decision: KnownFamilies.Decision) -> Bool {
        if case .take = decision { true } else { false }
    }

    private static let gauge = "# TYPE x gauge\nx{a=\"1\"} 1\n"

    @Test func onlyWhatIsKnownIsTakenAtOnce() {
        #expect(!isTakenAtOnce("/metrics/job/a", Self.gauge))
        #expect(isTaken(decide("/metrics/job/a", Self.gauge)))
        #expect(isTakenAtOnce("/metrics/job/a", Self.gauge))
        #expect(isTakenAtOnce("/metrics/job/b", "# TYPE x gauge\nx{a=\"2\"} 1\nx{a=\"3\"} 5\n"))
        #expect(isTakenAtOnce("/metrics/job/b", "push_time_seconds 1\n"), "nothing of it is stored")
        for other in ["x{a=\"1\"} 1\n", "# TYPE x gauge\nx{a=\"1\"} 1\nx 1\n", Self.gauge + "y 1\n"] {
            #expect(!isTakenAtOnce("/metrics/job/a", other), "\(other)")
        }
        // The same labels may be those of the first group.
        #expect(!isTakenAtOnce("/metrics/job/a/a/1", "# TYPE x gauge\nx 1\n"))
        known.isComplete = false
        #expect(!isTakenAtOnce("/metrics/job/a", Self.gauge))
    }

    @Test func aNewSetOfLabelsIsLearnedFirst() {
        #expect(isTaken(decide("/metrics/job/a", Self.gauge)))
        let more = "# TYPE x gauge\nx{b=\"1\"} 1\n"
        #expect(!isTakenAtOnce("/metrics/job/a", more))
        #expect(isTaken(known.decide(pushed("/metrics/job/a", more), at: start)))
        #expect(isTakenAtOnce("/metrics/job/a", more))
    }

    @Test func whatPushgatewaysHaveOfTheirOwnIsAskedForFirst() {
        #expect(isTaken(decide("/metrics/job/a", "x_sum 1\npushgateway_http_requests_total 1\n")))
        #expect(isTakenAtOnce("/metrics/job/a", "x_sum 1\n"))
        #expect(!isTakenAtOnce("/metrics/job/a", "pushgateway_http_requests_total 1\n"), "its HELP counts")
        known.learn(own: [PushedFamily(name: Array("x".utf8), kind: .summary, help: nil, series: [])])
        #expect(!isTakenAtOnce("/metrics/job/a", "x_sum 1\n"))
        guard case .refuse = known.decide(pushed("/metrics/job/a", "x_sum 1\n"), at: start) else {
            return #expect(Bool(false), "it is of a Pushgateway's own summary")
        }
    }

    @Test func pushesUnderWayAreCountedExactly() {
        #expect(isTaken(decide("/metrics/job/a", Self.gauge)))
        let counter = "# TYPE x counter\nx 1\n"
        func isWaitedFor() -> Bool {
            if case .wait = decide("/metrics/job/c", counter) { true } else { false }
        }
        var one = take("/metrics/job/a", Self.gauge)
        var two = take("/metrics/job/b", Self.gauge)
        #expect(isWaitedFor())
        two = nil
        #expect(isWaitedFor())
        // A listing leaves the numbers of pushes under way as they are.
        known.learn(TierListing(begun: MonotonicTime.now().advanced(by: .seconds(5))), isWhole: true)
        #expect(isWaitedFor())
        one = nil
        #expect(isTaken(decide("/metrics/job/c", counter)))
        let areOver = areEnded(one, two)
        #expect(areOver)
    }

    /// Also keeps both until then.
    private func areEnded(_ one: borrowing CountedPush?, _ two: borrowing CountedPush?) -> Bool {
        one == nil && two == nil
    }

    @Test func anEndAfterAllWasForgottenCountsForNothing() {
        #expect(isTaken(decide("/metrics/job/a", Self.gauge)))
        var one = take("/metrics/job/a", Self.gauge)
        known.clear()
        known.isComplete = true
        #expect(isTaken(decide("/metrics/job/b", "y 1\n")))
        one = nil
        let isOver = areEnded(one, nil)
        #expect(isOver)
        #expect(isTakenAtOnce("/metrics/job/b", "y 1\n"))
    }

    // MARK: Tables

    @Test func aTableOfFamiliesIsADictionary() {
        var table = FamilyTable<Int>()
        var expected: [[UInt8]: Int] = [:]
        var chance = SystemRandomNumberGenerator()
        for round in 0..<20_000 {
            let name = Array("family_\(Int.random(in: 0..<500, using: &chance))".utf8)
            switch Int.random(in: 0..<4, using: &chance) {
            case 0: (table[name], expected[name]) = (nil, nil)
            case 1:
                table[name]? += 1
                expected[name]? += 1
            default: (table[name], expected[name]) = (round, round)
            }
            if round % 4000 == 3999 {
                table.keep { _, value in value % 3 > 0 }
                expected = expected.filter { $1 % 3 > 0 }
            }
            #expect(table.count == expected.count && table[name] == expected[name])
        }
        for (name, value) in expected { #expect(table[name] == value) }
    }

    @Test func bytesOfEveryLengthHaveHashesOfTheirOwn() {
        let bytes = (0..<100).map { UInt8($0) }
        var hashes: Set<UInt64> = []
        for length in 0..<100 {
            for changed in 0...length {
                var text = Array(bytes[..<length])
                if changed < length { text[changed] ^= 0x80 }
                let hash = text.withUnsafeBytes { KeyedHash.ofProcess.hash($0) }
                #expect(hashes.insert(hash).inserted, "\(length) \(changed)")
                // The same wherever they lie.
                let moved = ([7] + text).withUnsafeBytes {
                    KeyedHash.ofProcess.hash(UnsafeRawBufferPointer(rebasing: $0[1...]))
                }
                #expect(moved == hash)
                #expect(
                    text.withUnsafeBytes { one in
                        bytes.withUnsafeBytes { other in
                            length == 0 || areSame(one.baseAddress!, other.baseAddress!, length) == (changed == length)
                        }
                    }
                )
            }
        }
    }
}
