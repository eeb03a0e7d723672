// Which hints a shard that is back still has to be told.
import Logging
import Testing

@testable import ShardEngine

@Suite struct HintTests {
    private let path = Array("/metrics/job/a".utf8)
    /// 12:00:00, in nanoseconds since 1970.
    private let noon: Int64 = 1_795_521_600_000_000_000

    /// The group by which a store is known.
    private let marked = #"{"labels":{"job":"shardd","store":"S1"}}"#

    /// One for the store that lists that group.
    private func hint(_ madeAt: Int64, on path: [UInt8]? = nil) -> Hint {
        Hint(path: path ?? self.path, madeAt: seconds(madeAt), store: "S1", doneBy: "S2")
    }

    private func seconds(_ count: Int64) -> Int64 { noon + count * 1_000_000_000 }

    /// What becomes of a group that has families f0, f1 and so on, pushed at some seconds after 12:00, when a request was
    /// made at 12:00:10 and the shard answers again since 12:00:20: the names of those that stay.
    private func left(pushedAt: [String], startedAt: Int64 = -3600) -> [String] {
        let families = pushedAt.enumerated().map { index, time in
            #""f\#(index)":{"time_stamp":"2026-11-24T12:00:\#(time)Z","type":"GAUGE","metrics":[]}"#
        }
        let fields = ([#""labels":{"job":"a"}"#, #""last_push_successful":true"#] + families).joined(separator: ",")
        let listing = Array(#"{"status":"success","data":[{\#(fields)},\#(marked)]}"#.utf8)
        let hint = hint(10)
        let corrections = HintDelivery.corrections(
            [hint],
            in: listing,
            startedAt: seconds(startedAt),
            returnedAt: seconds(20)
        )
        guard let correction = corrections.first else { return pushedAt.indices.map { "f\($0)" } }
        return correction.families.map(\.name).sorted()
    }

    private func isVoid(pushedAt: [String], startedAt: Int64 = -3600) -> Bool {
        left(pushedAt: pushedAt, startedAt: startedAt).isEmpty
    }

    private let other = ShardAddress(host: "127.0.0.1", port: 10)

    /// The address may lead to another store by now, even to the one that has done the request.
    @Test(arguments: [
        (store: "S1", doneBy: "S2", marks: ["S1"], isFor: true),
        ("S1", "S2", ["S2"], false),
        ("S1", "S2", ["S3"], false),
        ("S1", "S2", [], false),
        ("S1", nil, ["S1"], true),
        (nil, "S2", ["S1"], true),
        (nil, "S2", ["S2"], false),
        (nil, "S2", [], false),
        (nil, nil, ["S1"], false),
    ])
    func isForOneStore(store: String?, doneBy: String?, marks: [String], isFor: Bool) {
        #expect(Hint(path: path, madeAt: 0, store: store, doneBy: doneBy).isFor(Set(marks)) == isFor)
    }

    @Test func whatItHeldBeforeIsVoid() {
        #expect(isVoid(pushedAt: ["05"]))
    }

    @Test func whatItHasGotSinceItIsBackDoesNotCount() {
        #expect(isVoid(pushedAt: ["05", "25"]))
        #expect(isVoid(pushedAt: ["25"]))
    }

    /// It has no sockets of before: what it has got after the request is right, and nothing else.
    @Test(arguments: [20, 8])
    func aNewProcessKeepsWhatItHasGotSinceTheHint(startedAt: Int64) {
        #expect(left(pushedAt: ["25"], startedAt: startedAt) == ["f0"])
        #expect(left(pushedAt: ["05", "25", "26"], startedAt: startedAt) == ["f1", "f2"])
        // One would be new that is not.
        #expect(left(pushedAt: ["05", "25", "15"], startedAt: startedAt) == ["f0", "f1", "f2"])
        #expect(isVoid(pushedAt: ["05", "09"], startedAt: startedAt))
        #expect(isVoid(pushedAt: [], startedAt: startedAt))
    }

    /// Labels may come in any order: of one group it is the last request that counts.
    @Test func namesOfOneGroupMakeOneCorrection() {
        let paths = ["/metrics/job/a/b/1/c/2", "/metrics/job/a/c/2/b/1"].map { Array($0.utf8) }
        let hints = [hint(10, on: paths[0]), hint(30, on: paths[1])]
        let group = #""labels":{"job":"a","b":"1","c":"2"},"last_push_successful":true"#
        let family = #""f":{"time_stamp":"2026-11-24T12:00:25Z","type":"GAUGE","metrics":[]}"#
        let listing = Array(#"{"status":"success","data":[{\#(group),\#(family)},\#(marked)]}"#.utf8)
        for hints in [hints, hints.reversed()] {
            let corrections = HintDelivery.corrections(hints, in: listing, startedAt: noon, returnedAt: seconds(20))
            #expect(corrections.map(\.hint) == [hint(30, on: paths[1])])
            #expect(corrections.first?.families.isEmpty == true)
        }
    }

    /// They have one place on the ring, but are two groups.
    @Test func aLabelWithoutAValueMakesAnotherGroup() {
        let paths = ["/metrics/job/a", "/metrics/job/a/b@base64/="].map { Array($0.utf8) }
        let hints = [hint(10, on: paths[0]), hint(30, on: paths[1])]
        let rest = #""last_push_successful":true,"f":{"time_stamp":"2026-11-24T12:00:05Z","type":"GAUGE","metrics":[]}"#
        let groups = [#"{"labels":{"job":"a"},\#(rest)}"#, #"{"labels":{"job":"a","b":""},\#(rest)}"#]
        let listing = Array(#"{"status":"success","data":[\#((groups + [marked]).joined(separator: ","))]}"#.utf8)
        let corrections = HintDelivery.corrections(hints, in: listing, startedAt: 0, returnedAt: seconds(40))
        #expect(corrections.map(\.hint).sorted { $0.madeAt < $1.madeAt } == hints)
    }

    @Test func whatItGotBetweenTheHintAndItsReturnIsNotVoid() {
        #expect(!isVoid(pushedAt: ["15"]))
        #expect(!isVoid(pushedAt: ["05", "15", "25"]))
    }

    @Test func aShardThatCannotBeReachedStaysUntold() {
        let loop = EventLoop()
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let hints = Hints(loop: loop, resolver: Resolver(loop: loop), logger: logger)
        var untold: [Set<ShardAddress>] = []
        hints.onUntold = { untold.append($0) }
        // Nobody listens there.
        let shard = ShardAddress(host: "127.0.0.1", port: 9)
        var isStored = false
        hints.add(shard, path: path, doneBy: other) { isStored = true }
        hints.add(shard, path: path, doneBy: other) {}
        #expect(isStored && untold == [[shard]])
        var ended = 0
        hints.deliver(to: shard) { ended += 1 }
        // Asked for again in the meantime, it is another delivery, as the first one may not tell what came since.
        hints.deliver(to: shard) { ended += 1 }
        while ended < 1 { loop.turn() }
        #expect(ended == 1)
        while ended < 2 { loop.turn() }
        #expect(untold == [[shard]])
    }

    @Test func aShardIsToldWhatItMissesWhileItIsTold() {
        let loop = EventLoop()
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let hints = Hints(loop: loop, resolver: Resolver(loop: loop), logger: logger)
        var untold: Set<ShardAddress> = []
        hints.onUntold = { untold = $0 }
        let nothing = #"{"status":"success","data":[]}"#
        let shard = ScriptedShard { _, _ in .send("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + nothing) }
        defer { shard.stop() }
        hints.add(shard.address, path: path, doneBy: other) {}
        var ended = 0
        hints.catchUp(shard.address) { ended += 1 }
        hints.add(shard.address, path: Array("/metrics/job/missed/since".utf8), doneBy: other) {}
        // It does not begin again.
        hints.catchUp(shard.address) { ended += 1 }
        while ended < 2 { loop.turn() }
        #expect(untold.isEmpty)
        // Two looks, and then one.
        let asked = shard.requests.map { $0.split(separator: " ")[1] }
        #expect(asked == ["status", "metrics", "metrics", "status", "metrics"].map { "/api/v1/\($0)" })
    }

    @Test func whatItDoesNotHoldNeedNotGo() {
        let listing = Array(#"{"status":"success","data":[]}"#.utf8)
        let hint = hint(10)
        #expect(HintDelivery.corrections([hint], in: listing, startedAt: 0, returnedAt: seconds(20)).isEmpty)
    }
}
