// How often a Pushgateway writes its file, by what it answers.
import Testing

@testable import ShardEngine

@Suite struct FileIntervalTests {
    private func interval(_ flags: String) -> TimeSpan? {
        let body = #"{"status":"success","data":{"build_information":{"a":"b"},"flags":\#(flags),"start_time":"t"}}"#
        return HTTPOutcome.response(HTTPResponse(status: 200, headers: [], body: Array(body.utf8))).fileInterval
    }

    @Test func itIsTheFlagWhereThereIsAFile() {
        let flags = #"{"log.level":"info","persistence.file":"/a","persistence.interval":"1m30s"}"#
        #expect(interval(flags) == .seconds(90))
        #expect(interval(#"{"persistence.file":"/a","persistence.interval":"?"}"#) == .seconds(300))
        #expect(interval(#"{"persistence.file":"","persistence.interval":"5m0s"}"#) == nil)
        #expect(interval("{}") == nil)
        #expect(interval("7") == nil)
        #expect(HTTPOutcome.failed("no answer").fileInterval == nil)
    }

    @Test(arguments: [
        ("5m0s", 300), ("20ms", 0.02), ("1h0m0.5s", 3600.5), ("100µs", 0.0001), ("0s", 0), ("", nil), ("5", nil),
        ("s", nil), ("1d", nil),
    ])
    func durationsAreReadAsGoWritesThem(text: String, seconds: Double?) {
        #expect(TimeSpan(goDuration: text) == seconds.map { .seconds($0) })
    }
}
