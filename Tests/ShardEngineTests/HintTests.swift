// Which hints a shard that is back still has to be told.
import Testing

@testable import ShardEngine

@Suite struct HintTests {
    private let path = Array("/metrics/job/a".utf8)
    /// 12:00:00, in nanoseconds since 1970.
    private let noon: Int64 = 1_795_521_600_000_000_000

    private func seconds(_ count: Int64) -> Int64 { noon + count * 1_000_000_000 }

    /// Whether the shard has to be told of a request made at 12:00:10, when it is back since 12:00:20.
    private func isVoid(pushedAt: [String]) -> Bool {
        let families = pushedAt.enumerated().map { index, time in
            #""f\#(index)":{"time_stamp":"2026-11-24T12:00:\#(time)Z","type":"GAUGE","metrics":[]}"#
        }
        let fields = ([#""labels":{"job":"a"}"#, #""last_push_successful":true"#] + families).joined(separator: ",")
        let listing = #"{"status":"success","data":[{\#(fields)}]}"#
        let hint = Hint(path: path, madeAt: seconds(10))
        return !HintDelivery.void([hint], in: Array(listing.utf8), returnedAt: seconds(20)).isEmpty
    }

    @Test func whatItHeldBeforeIsVoid() {
        #expect(isVoid(pushedAt: ["05"]))
    }

    @Test func whatItHasGotSinceItIsBackDoesNotCount() {
        #expect(isVoid(pushedAt: ["05", "25"]))
    }

    @Test func whatItGotBetweenTheHintAndItsReturnIsNotVoid() {
        #expect(!isVoid(pushedAt: ["15"]))
        #expect(!isVoid(pushedAt: ["05", "15", "25"]))
    }

    @Test func whatItDoesNotHoldNeedNotGo() {
        let listing = Array(#"{"status":"success","data":[]}"#.utf8)
        let hint = Hint(path: path, madeAt: seconds(10))
        #expect(HintDelivery.void([hint], in: listing, returnedAt: seconds(20)).isEmpty)
    }
}
