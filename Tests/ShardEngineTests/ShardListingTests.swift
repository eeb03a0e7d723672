// Reading listings of shards, and writing what was read as Pushgateways take it.
import Testing

@testable import ShardEngine

@Suite struct ShardListingTests {
    private func read(
        _ groups: String,
        detail: (GroupLabels) -> ShardListing.Detail = { _ in .content }
    ) -> ShardListing? {
        var text = #"{"status":"success","data":[\#(groups)]}"#
        return text.withUTF8 { ShardListing(UnsafeRawBufferPointer($0), detail: detail) }
    }

    private func family(_ type: String, _ metrics: String) -> String {
        #"{"time_stamp":"2026-11-24T12:00:00.5Z","type":"\#(type)","help":"h","metrics":[\#(metrics)]}"#
    }

    private func group(_ families: String) -> String {
        #"{"a":1,"labels":{"job":"j","x":""},"last_push_successful":false,\#(families)}"#
            .replacing(#""a":1,"#, with: "")
    }

    private let labels = GroupLabels([LabelPair(name: "x", value: ""), LabelPair(name: "job", value: "j")])

    @Test func readsEveryType() throws {
        let parts = #""count":"3","sum":"1e-300""#
        let listing = try #require(
            read(
                group(
                    #""c":\#(family("COUNTER", #"{"labels":{"b":"\"","a":"1"},"value":"1e+06"}"#)),"#
                        + #""g":\#(family("GAUGE", #"{"labels":{},"value":"NaN"},{"labels":{},"value":"-Inf"}"#)),"#
                        + #""u":\#(family("UNTYPED", #"{"labels":{},"value":"-0"}"#)),"#
                        + #""h":\#(family("HISTOGRAM", #"{"labels":{},"buckets":{"+Inf":"3","0.1":"2"},\#(parts)}"#)),"#
                        + #""s":\#(family("SUMMARY", #"{"labels":{},"quantiles":{"0.5":"0.25"},\#(parts)}"#)),"#
                        + #""push_time_seconds":\#(family("GAUGE", ""))"#
                )
            )
        )
        let copy = try #require(listing.groups[labels])
        #expect(!copy.wasLastPushSuccessful && copy.obstacle == nil && copy.families.count == 5)
        #expect(copy.families["c"]?.pushedAt == 1_795_521_600_500_000_000)
        let counter = try #require(copy.families["c"]?.content)
        #expect(counter.kind == .counter && counter.help == "h" && counter.metrics[0].value == 1e6)
        #expect(counter.metrics[0].labels == [LabelPair(name: "a", value: "1"), LabelPair(name: "b", value: "\"")])
        let gauge = try #require(copy.families["g"]?.content)
        #expect(gauge.metrics[0].value.isNaN && gauge.metrics[1].value == -.infinity)
        #expect(copy.families["u"]?.content?.metrics[0].value.sign == .minus)
        let histogram = try #require(copy.families["h"]?.content?.metrics.first)
        #expect(histogram.count == 3 && histogram.sum == 1e-300)
        #expect(histogram.parts.map(\.bound) == [0.1, .infinity] && histogram.parts.map(\.count) == [2, 3])
        #expect(copy.families["s"]?.content?.metrics.first?.parts == [Metric.Part(bound: 0.5, value: 0.25, count: 0)])
    }

    @Test func readsTimesOnlyWhereThatIsEnough() throws {
        let listing = try #require(read(group(#""g":\#(family("NEW_TYPE", "1"))"#)) { _ in .times })
        let copy = try #require(listing.groups[labels])
        #expect(copy.families["g"]?.content == nil && copy.families["g"]?.pushedAt != 0 && copy.obstacle == nil)
    }

    @Test(arguments: [
        (#"GAUGE_HISTOGRAM"#, #"{"labels":{},"value":"0"}"#),
        (#"HISTOGRAM"#, #"{"labels":{},"buckets":[[0,"1","2","3"]],"count":"3","sum":"4"}"#),
        (#"HISTOGRAM"#, #"{"labels":{},"buckets":{},"count":"3","sum":"4"}"#),
        (#"HISTOGRAM"#, #"{"labels":{},"buckets":{"1":"1.5"},"count":"3.5","sum":"4"}"#),
        (#"GAUGE"#, #"{"labels":{"a":"\ufffd"},"value":"1"}"#),
        (#"GAUGE"#, #"{"labels":{},"value":"much"}"#),
    ])
    func tellsWhatCannotBePushedAsItIs(_ type: String, _ metric: String) throws {
        let listing = try #require(read(group(#""m":\#(family(type, metric))"#)))
        #expect(listing.groups[labels]?.obstacle != nil)
    }

    /// Beside the group without an instance it would fail every push and scrape of a shard.
    @Test func aGroupWithAnEmptyInstanceIsNotPushed() throws {
        let rest = #""last_push_successful":true,"g":\#(family("GAUGE", ""))"#
        let listing = try #require(read(#"{"labels":{"job":"b","instance":""},\#(rest)}"#))
        #expect(listing.groups.count == 1 && listing.groups.values.allSatisfy { $0.obstacleToMove != nil })
    }

    @Test func tellsGroupsApartWhoseLabelsAreHidden() throws {
        let hidden = #"{"labels":\#(family("GAUGE", "")),"last_push_successful":true}"#
        let listing = try #require(read("\(hidden),\(group(#""g":\#(family("GAUGE", ""))"#))"))
        #expect(listing.unreadable == 1 && listing.groups.count == 1)
    }

    @Test(arguments: ["", "[]", #"{"status":"error","data":[]}"#, #"{"status":"success","data":[{]}"#])
    func refusesWhatIsNoListing(_ body: String) {
        var body = body
        #expect(body.withUTF8 { ShardListing(UnsafeRawBufferPointer($0)) { _ in .times } } == nil)
    }

    @Test(arguments: [
        ("1970-01-01T00:00:00Z", 0 as Int64?),
        ("2026-11-24T12:00:00.123456789Z", 1_795_521_600_123_456_789),
        ("2026-11-24T13:30:00.1+01:30", 1_795_521_600_100_000_000),
        ("2026-11-24T11:00:00-01:00", 1_795_521_600_000_000_000),
        ("2026-11-24", nil),
        ("2026-11-24T12:00:00.1234567890Z", nil),
        ("yesterday", nil), ("1969-12-31T23:59:59Z", nil), ("9999-01-01T00:00:00Z", nil),
    ])
    func readsDates(_ text: String, _ expected: Int64?) {
        #expect(nanoseconds(rfc3339: text) == expected)
    }

    @Test func encodesAsTheProtocolHasIt() {
        var encoder = FamilyEncoder()
        let metric = Metric(labels: [LabelPair(name: "a", value: "é")], value: 1)
        encoder.append(MetricFamily(name: "m", kind: .gauge, help: "", metrics: [metric]))
        let label: [UInt8] = [0x0A, 1, 0x61, 0x12, 2, 0xC3, 0xA9]
        let gauge: [UInt8] = [0x09, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F]
        let metricBytes: [UInt8] = [0x0A, 7] + label + [0x12, 9] + gauge
        #expect(encoder.bytes == [27, 0x0A, 1, 0x6D, 0x18, 1, 0x22, 20] + metricBytes)
    }

    @Test(arguments: [
        ([("job", "a/b"), ("x", "")], "/metrics/job@base64/YS9i/x@base64/="),
        ([("instance", "ÿ>"), ("job", "j")], "/metrics/job@base64/ag/instance@base64/w78-"),
        ([("job", "j"), ("my.name_2", "v")], "/metrics/job@base64/ag/U__my_2e_name__2@base64/dg"),
    ])
    func writesPathsThatAnyValueFitsInto(_ pairs: [(String, String)], _ expected: String) {
        let labels = GroupLabels(pairs.map { LabelPair(name: $0.0, value: $0.1) })
        #expect(GroupPath().path(of: labels) == expected)
    }
}
