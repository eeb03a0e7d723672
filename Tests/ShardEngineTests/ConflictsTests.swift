import Testing

@testable import ShardEngine

/// What becomes of families that fail the scrape of their shard together.
@Suite struct ConflictsTests {
    /// A listing of groups, each a job and its families; what is pushed later stands behind.
    private func rewrites(
        _ groups: [(job: String, families: [MetricFamily])],
        own: [PushedFamily] = [],
        copies: Set<String> = [],
        untold: Set<String> = [],
        fault: String = ""
    ) -> [GroupRewrite] {
        var time: Int64 = 0
        let listed = groups.map { job, families in
            let labels = GroupLabels([LabelPair(name: "job", value: job)])
            var copy = GroupCopy(labels: labels, wasLastPushSuccessful: true, families: [:])
            for family in families {
                time += 1
                var content = family
                for index in content.metrics.indices {
                    content.metrics[index].labels.append(LabelPair(name: "job", value: job))
                }
                copy.families[family.name] = FamilyCopy(pushedAt: time, content: content)
            }
            if untold.contains(job) { copy.obstacle = "the listing does not tell all of it" }
            return ListedGroup(copy: copy, counts: !copies.contains(job))
        }
        return Conflicts.rewrites(of: listed, own: own, fault: ScrapeFault(fault))
    }

    private func scalar(_ name: String, _ kind: FamilyKind, _ values: Double..., labels: [LabelPair] = [])
        -> MetricFamily
    {
        let metrics = values.map { Metric(labels: labels, value: $0) }
        return MetricFamily(name: name, kind: kind, help: "", metrics: metrics)
    }

    private func histogram(_ name: String, _ bounds: Double...) -> MetricFamily {
        let parts = bounds.enumerated().map { Metric.Part(bound: $1, value: 0, count: UInt64($0 + 1)) }
        let metric = Metric(sum: 1.5, count: 9, parts: parts)
        return MetricFamily(name: name, kind: .histogram, help: "", metrics: [metric])
    }

    /// `name kind {label=value...} value`, without the job, in the order in which they are written.
    private func told(_ rewrite: GroupRewrite?) -> [String] {
        (rewrite?.families ?? []).flatMap { family in
            let head = "\(family.name) \(family.kind.word)"
            let metrics = family.metrics.map { metric in
                let labels = metric.labels.filter { $0.name != "job" }.map { "\($0.name)=\($0.value)" }
                return ([head] + labels + ["\(metric.value)"]).joined(separator: " ")
            }
            return metrics.isEmpty ? [head] : metrics
        }
    }

    @Test func whatGoesTogetherIsLeftAlone() {
        let found = rewrites([
            ("a", [scalar("f", .gauge, 1), histogram("h", 1)]), ("b", [scalar("f", .gauge, 2), histogram("h", 1)]),
        ])
        #expect(found.isEmpty)
    }

    @Test func aScalarGetsTheTypeOfTheOlderOne() {
        let found = rewrites([
            ("a", [scalar("f", .gauge, 1)]), ("b", [scalar("f", .counter, 2), scalar("k", .gauge, 3)]),
        ])
        #expect(found.map(\.labels.pairs[0].value) == ["b"] && found[0].isPost)
        #expect(told(found.first) == ["f gauge 2.0"])
        #expect(found[0].changes.map(\.what) == [.retyped(.gauge)])
    }

    @Test func aHistogramBecomesItsSeries() {
        let found = rewrites([("a", [scalar("f", .gauge, 1)]), ("b", [histogram("f", 0.25, 1e6)])])
        let buckets = ["le=0.25 1.0", "le=1e+06 2.0", "le=+Inf 9.0"].map { "f_bucket untyped \($0)" }
        #expect(told(found.first) == ["f gauge"] + buckets + ["f_sum untyped 1.5", "f_count untyped 9.0"])
        #expect(found[0].isPost && found[0].changes.map(\.what) == [.flattened])
    }

    @Test func aHistogramWhoseSeriesDoNotGoTogetherEitherIsSetAside() {
        // Its own group has such a family, another group has one with a type, and what it is made of is not known.
        let cases: [(before: MetricFamily, in: String, untold: Set<String>)] = [
            (scalar("f_sum", .untyped, 5), "b", []), (scalar("f_sum", .gauge, 5), "c", []),
            (scalar("g", .gauge, 1), "c", ["b"]),
        ]
        for one in cases {
            let isBeside = one.in == "b"
            let found = rewrites(
                [
                    ("a", [scalar("f", .gauge, 1)]), ("c", isBeside ? [] : [one.before]),
                    ("b", (isBeside ? [one.before] : []) + [histogram("f", 1)]),
                ],
                untold: one.untold
            )
            #expect(told(found.first) == ["f gauge"], "\(one)")
            #expect(found.map { $0.changes.map(\.what) } == [[.setAside]] && found[0].obstacle == nil)
        }
    }

    @Test func aScalarAfterAHistogramIsSetAside() {
        let found = rewrites([("a", [histogram("f", 1)]), ("b", [scalar("f", .gauge, 1)])])
        #expect(told(found.first) == ["f histogram"] && found[0].isPost)
    }

    @Test func aSuffixAfterItsHistogramGoes() {
        let groups = [("a", [histogram("f", 1)]), ("b", [scalar("f_count", .gauge, 1), scalar("k", .gauge, 3)])]
        let found = rewrites(groups)
        #expect(told(found.first) == ["k gauge 3.0"] && !found[0].isPost && found[0].obstacle == nil)
        // Without all that the group has, it cannot be written.
        #expect(rewrites(groups, untold: ["b"]).map { $0.obstacle != nil } == [true])
    }

    @Test func aHistogramAfterItsSuffixLosesItsTypeAndItsSeries() {
        let found = rewrites([("a", [scalar("f_count", .gauge, 1)]), ("b", [histogram("f", 1)])])
        #expect(told(found.first) == ["f gauge"] && found[0].isPost)
    }

    @Test func seriesThatAnotherGroupHasAreLeftOut() {
        let job = LabelPair(name: "job", value: "a")
        var later = scalar("f", .gauge, 2, 3)
        later.metrics[1].labels = [LabelPair(name: "x", value: "1")]
        // As where a label of the one is in the key of the other, both have the same labels in the end.
        let labels = GroupLabels([job])
        let listed = [scalar("f", .gauge, 1), later].enumerated().map { index, family in
            var family = family
            for metric in family.metrics.indices { family.metrics[metric].labels.append(job) }
            let copy = FamilyCopy(pushedAt: Int64(index), content: family)
            return ListedGroup(
                copy: GroupCopy(labels: labels, wasLastPushSuccessful: true, families: ["f": copy]),
                counts: true
            )
        }
        let found = Conflicts.rewrites(of: listed, own: [])
        #expect(told(found.first) == ["f gauge x=1 3.0"] && found.map(\.isPost) == [true])
    }

    @Test func whatAPushgatewayHasOfItselfStays() {
        let own = [
            PushedFamily(name: Array("go_goroutines".utf8), kind: .gauge, help: nil, series: []),
            PushedFamily(name: Array("go_gc_duration_seconds".utf8), kind: .summary, help: nil, series: []),
            PushedFamily(
                name: Array("pushgateway_http_push_size_bytes".utf8),
                kind: .gauge,
                help: Array("S".utf8),
                series: []
            ),
        ]
        let found = rewrites(
            [
                ("a", [scalar("go_goroutines", .counter, 1)]), ("b", [scalar("go_gc_duration_seconds_sum", .gauge, 1)]),
                ("c", [scalar("pushgateway_http_push_size_bytes", .gauge, 1)]),
            ],
            own: own
        )
        #expect(told(found.first) == ["go_goroutines gauge 1.0"])
        #expect(found[1].families.isEmpty && !found[1].isPost)
        #expect(found[2].families.map(\.help) == ["S"])
    }

    @Test func familiesWithoutSeriesAndCopiesGiveWayThoughTheyAreOlder() {
        let empty = rewrites([("a", [scalar("f", .counter)]), ("b", [scalar("f", .gauge, 1)])])
        #expect(empty.map(\.labels.pairs[0].value) == ["a"] && told(empty.first) == ["f gauge"])
        let copy = rewrites([("a", [scalar("f", .counter, 1)]), ("b", [scalar("f", .gauge, 1)])], copies: ["a"])
        #expect(copy.map(\.labels.pairs[0].value) == ["a"])
    }

    @Test func whatAScrapeNamesIsWrittenAgain() {
        let groups = [
            ("a", [scalar("f", .counter, 1), scalar("k", .gauge, 1)]),
            ("b", [scalar("f", .counter, 1, labels: [LabelPair(name: "a b", value: "1")])]),
        ]
        let fault =
            "2 error(s) occurred:\n* collected metric \"f\" { label:<name:\"job\" value:\"a\" > gauge:<value:4 > } is not a COUNTER"
        let found = rewrites(groups, fault: fault)
        #expect(found.map(told) == [["f counter 1.0"], ["f counter"]])
        #expect(found.map { $0.changes.map(\.what) } == [[.writtenAgain], [.setAside]])
        #expect(rewrites(groups, fault: "collected metric \"g\" { } is not a COUNTER").isEmpty)
        // Where something else is found, that comes first.
        let other = ("c", [scalar("f", .gauge, 1)])
        #expect(rewrites(groups + [other], fault: fault).map(\.labels.pairs[0].value) == ["c"])
    }

    @Test func aScrapeTellsTypesOfAPushgatewaysOwn() {
        let fault = "error: \n\ngathered metric family go_goroutines has type COUNTER but should have GAUGE\n"
        #expect(
            told(rewrites([("a", [scalar("go_goroutines", .counter, 1)])], fault: fault).first) == [
                "go_goroutines gauge 1.0"
            ]
        )
    }

    @Test func whatIsLeftGoesTogether() {
        let groups = [
            ("a", [histogram("f", 1), scalar("g", .gauge, 1)]), ("b", [scalar("f", .gauge, 1), histogram("g", 1)]),
            ("c", [scalar("f_count", .counter, 1), scalar("g_count", .counter, 1)]),
            ("d", [scalar("f_bucket", .gauge, 1), histogram("f_bucket", 1)]),
        ]
        var held = Dictionary(uniqueKeysWithValues: groups.map { ($0.0, $0.1) })
        for rewrite in rewrites(groups) {
            let job = rewrite.labels.pairs[0].value
            let names = Set(rewrite.families.map(\.name))
            let kept = rewrite.isPost ? held[job]!.filter { !names.contains($0.name) } : []
            held[job] =
                kept
                + rewrite.families.map { family in
                    var family = family
                    for index in family.metrics.indices { family.metrics[index].labels.removeAll { $0.name == "job" } }
                    return family
                }
        }
        #expect(rewrites(groups.map { ($0.0, held[$0.0]!) }).isEmpty)
    }

    @Test(arguments: [
        (0.005, "0.005"), (1, "1"), (100_000, "100000"), (1e6, "1e+06"), (1_234_567, "1.234567e+06"), (1e-5, "1e-05"),
        (0.0001, "0.0001"), (2.5, "2.5"), (12.5e100, "1.25e+101"), (-0.5, "-0.5"), (0, "0"), (.infinity, "+Inf"),
        (.leastNonzeroMagnitude, "5e-324"), (1e16, "1e+16"), (.nan, "NaN"),
    ])
    func boundsAreWrittenAsGoWritesThem(value: Double, text: String) {
        #expect(goText(value) == text)
    }
}
