// What the flags of a Pushgateway say, by what it answers.
import Testing

@testable import ShardEngine

@Suite struct ShardFlagsTests {
    private func read(_ flags: String) -> ShardFlags {
        let body = #"{"status":"success","data":{"build_information":{"a":"b"},"flags":\#(flags),"start_time":"t"}}"#
        return ShardFlags(.response(HTTPResponse(status: 200, headers: [], body: Array(body.utf8))))
    }

    private func interval(_ flags: String) -> TimeSpan? { read(flags).fileInterval }

    @Test func itIsTheFlagWhereThereIsAFile() {
        let flags = #"{"log.level":"info","persistence.file":"/a","persistence.interval":"1m30s"}"#
        #expect(interval(flags) == .seconds(90))
        #expect(interval(#"{"persistence.file":"/a","persistence.interval":"?"}"#) == .seconds(300))
        #expect(interval(#"{"persistence.file":"","persistence.interval":"5m0s"}"#) == nil)
        #expect(interval("{}") == nil)
        #expect(interval("7") == nil)
        #expect(ShardFlags(.failed("no answer")).fileInterval == nil)
    }

    @Test func whetherItChecksIsTold() {
        #expect(read(#"{"push.disable-consistency-check":"true"}"#).isChecking == false)
        #expect(read(#"{"push.disable-consistency-check":"false"}"#).isChecking == true)
        #expect(read("{}").isChecking == nil)
    }

    @Test(arguments: [
        ("5m0s", 300), ("20ms", 0.02), ("1h0m0.5s", 3600.5), ("100µs", 0.0001), ("0s", 0), ("", nil), ("5", nil),
        ("s", nil), ("1d", nil),
    ])
    func durationsAreReadAsGoWritesThem(text: String, seconds: Double?) {
        #expect(TimeSpan(goDuration: text) == seconds.map { .seconds($0) })
    }
}
