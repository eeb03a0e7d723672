// Which hints a shard that is back still has to be told.
import Logging
import Testing

@testable import ShardEngine

@Suite struct HintTests {
    private let path = Array("/metrics/job/a".utf8)
    /// 12:00:00, in nanoseconds since 1970.
    private let noon: Int64 = 1_795_521_600_000_000_000

    private func seconds(_ count: Int64) -> Int64 { noon + count * 1_000_000_000 }

    /// Whether the shard has to be told of a request made at 12:00:10, when it is back since 12:00:20.
    private func isVoid(pushedAt: [String], startedAt: Int64 = 0) -> Bool {
        let families = pushedAt.enumerated().map { index, time in
            #""f\#(index)":{"time_stamp":"2026-11-24T12:00:\#(time)Z","type":"GAUGE","metrics":[]}"#
        }
        let fields = ([#""labels":{"job":"a"}"#, #""last_push_successful":true"#] + families).joined(separator: ",")
        let listing = #"{"status":"success","data":[{\#(fields)}]}"#
        let hint = Hint(path: path, madeAt: seconds(10))
        return !HintDelivery.void(
            [hint],
            in: Array(listing.utf8),
            startedAt: noon + startedAt * 1_000_000_000,
            returnedAt: seconds(20)
        )
        .isEmpty
    }

    @Test func whatItHeldBeforeIsVoid() {
        #expect(isVoid(pushedAt: ["05"]))
    }

    @Test func whatItHasGotSinceItIsBackDoesNotCount() {
        #expect(isVoid(pushedAt: ["05", "25"]))
        #expect(isVoid(pushedAt: ["25"]))
    }

    @Test func whatANewProcessHasGotSinceTheHintIsNotVoid() {
        #expect(!isVoid(pushedAt: ["25"], startedAt: 20))
        #expect(isVoid(pushedAt: ["05", "25"], startedAt: 20))
        #expect(isVoid(pushedAt: [], startedAt: 20))
    }

    @Test func whatItGotBetweenTheHintAndItsReturnIsNotVoid() {
        #expect(!isVoid(pushedAt: ["15"]))
        #expect(!isVoid(pushedAt: ["05", "15", "25"]))
    }

    @Test func aShardIsUntoldUntilItHasBeenReached() {
        let loop = EventLoop()
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let hints = Hints(loop: loop, resolver: Resolver(loop: loop), logger: logger)
        var untold: [Set<ShardAddress>] = []
        hints.onUntold = { untold.append($0) }
        // Nobody listens there.
        let shard = ShardAddress(host: "127.0.0.1", port: 9)
        var isStored = false
        hints.add(shard, path: path) { isStored = true }
        hints.add(shard, path: path) {}
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

    @Test func whatItDoesNotHoldNeedNotGo() {
        let listing = Array(#"{"status":"success","data":[]}"#.utf8)
        let hint = Hint(path: path, madeAt: seconds(10))
        #expect(HintDelivery.void([hint], in: listing, startedAt: 0, returnedAt: seconds(20)).isEmpty)
    }
}
