import Testing

@testable import ShardEngine

/// What is decided by what is known, and what by a listing of the shards.
@Suite struct KnownFamiliesTests {
    private let known = KnownFamilies()
    private let start = MonotonicTime(nanoseconds: 1_000_000_000_000)

    /// A push of `job` of one family with one series.
    private func push(_ job: String, _ name: String, _ kind: FamilyKind, isPost: Bool = false) -> CheckedPush {
        let group = SeriesHash.group([("job", job)])
        let series = PushedSeries(shape: SeriesShape(keyNames: 1, allNames: 1), hash: group)
        let family = PushedFamily(name: Array(name.utf8), kind: kind, help: nil, series: [series])
        return CheckedPush(families: [family], group: group, isPost: isPost)
    }

    /// What one shard answers with such families, each of a job.
    private func listing(_ held: [(job: String, name: String, type: String)], after seconds: Double) throws
        -> TierListing
    {
        let groups = held.map { group in
            """
            {"labels": {"job": "\(group.job)"}, "\(group.name)": {"type": "\(group.type)", "metrics": [
            {"labels": {"instance": "", "job": "\(group.job)"}, "value": "1"}]}}
            """
        }
        var listing = TierListing(begun: start.advanced(by: .seconds(seconds)))
        var body = #"{"status": "success", "data": ["# + groups.joined(separator: ",") + "]}"
        let shard = try #require(ShardAddress(parsing: "10.0.0.1:9091"))
        let isRead = body.withUTF8 { bytes in
            listing.add(UnsafeRawBufferPointer(bytes), of: shard, isWanted: { _ in true }, counts: { _ in true })
        }
        #expect(isRead)
        return listing
    }

    private func decide(_ push: CheckedPush, by listing: TierListing) -> KnownFamilies.Decision {
        known.decide(push, by: listing, isLast: false, at: listing.begun)
    }

    private func isTaken(_ decision: KnownFamilies.Decision) -> Bool {
        if case .take = decision { true } else { false }
    }

    private func refusal(_ decision: KnownFamilies.Decision) -> String? {
        if case .refuse(let refusal) = decision { refusal.line } else { nil }
    }

    @Test func aNameThatIsNewIsLookedUpOnceAndThenTakenAtOnce() throws {
        known.isComplete = true
        let first = push("a", "x", .gauge)
        guard case .lookUp = known.decide(first, at: start) else {
            return #expect(Bool(false), "nothing is known of x")
        }
        #expect(isTaken(decide(first, by: try listing([], after: 0))))
        #expect(isTaken(known.decide(push("b", "x", .gauge), at: start)))
    }

    @Test func nothingIsTakenBeforeTheShardsHaveBeenListed() throws {
        known.learn(try listing([("a", "x", "GAUGE")], after: 0))
        guard case .lookUp = known.decide(push("b", "x", .gauge), at: start) else { return #expect(Bool(false)) }
    }

    @Test func anotherGroupsTypeIsRefusedAndItsOwnIsReplaced() throws {
        let held = try listing([("a", "x", "GAUGE")], after: 9)
        let line = try #require(refusal(decide(push("b", "x", .counter), by: held)))
        #expect(line == #"family "x" is a counter here and a gauge in group {job="a"} on shard 10.0.0.1:9091"#)
        #expect(isTaken(decide(push("a", "x", .counter), by: held)))
    }

    @Test func partsOfASummaryAreRefusedInBothDirections() throws {
        #expect(refusal(decide(push("b", "x_sum", .gauge), by: try listing([("a", "x", "SUMMARY")], after: 9))) != nil)
        #expect(refusal(decide(push("b", "x", .summary), by: try listing([("a", "x_sum", "GAUGE")], after: 9))) != nil)
        #expect(isTaken(decide(push("b", "x_bucket", .gauge), by: try listing([("a", "x", "SUMMARY")], after: 9))))
        let own = try listing([("c", "y_sum", "GAUGE")], after: 9)
        #expect(refusal(decide(push("c", "y", .summary, isPost: true), by: own)) != nil, "a POST leaves it there")
        #expect(isTaken(decide(push("c", "y", .summary), by: own)), "a PUT does not")
    }

    /// A shard answers before it has stored a push, so a listing may lack it.
    @Test func whatWasTakenJustNowIsWaitedFor() throws {
        do {
            let first = decide(push("a", "x", .gauge), by: try listing([], after: 1))
            #expect(isTaken(first))
        }
        // It has ended just now, by the clock of the process.
        let second = push("b", "x", .counter)
        let soon = TierListing(begun: .now())
        guard case .wait(let time) = decide(second, by: soon) else {
            return #expect(Bool(false), "x may be stored yet")
        }
        #expect(time > soon.begun)
        let later = TierListing(begun: MonotonicTime.now().advanced(by: .seconds(2)))
        #expect(isTaken(decide(second, by: later)), "nobody holds it")
    }

    @Test func whatWasDeletedJustNowIsWaitedFor() throws {
        let held = try listing([("a", "x", "GAUGE")], after: 9)
        let delete = CheckedPush(families: [], group: SeriesHash.group([("job", "a")]), isPost: false)
        #expect(isTaken(decide(delete, by: held)))
        guard case .wait = decide(push("b", "x", .counter), by: held) else { return #expect(Bool(false)) }
        #expect(refusal(known.decide(push("b", "x", .counter), by: held, isLast: true, at: held.begun)) != nil)
    }

    @Test func aFamilyOfPushgatewaysOwnKeepsItsType() throws {
        known.isComplete = true
        let scrape = """
            # HELP go_goroutines Number of goroutines that currently exist.
            # TYPE go_goroutines gauge
            go_goroutines 8
            # TYPE go_gc_duration_seconds summary
            go_gc_duration_seconds_sum 0
            # TYPE x gauge
            x{instance="",job="a"} 1
            """
        var text = scrape
        let own = text.withUTF8 { OwnFamilies.read(UnsafeRawBufferPointer($0)) }
        #expect(own.map { String(decoding: $0.name, as: UTF8.self) } == ["go_gc_duration_seconds", "go_goroutines"])
        known.learn(own: own)
        #expect(isTaken(known.decide(push("a", "go_goroutines", .gauge), at: start)))
        #expect(refusal(known.decide(push("a", "go_goroutines", .counter), at: start)) != nil)
        #expect(refusal(known.decide(push("a", "go_gc_duration_seconds_sum", .untyped), at: start)) != nil)
    }

    @Test func whatNobodyWaitsForIsNeitherKeptNorDecided() throws {
        let questions = FamilyQuestions(known)
        func question() -> FamilyQuestions.Question {
            FamilyQuestions.Question(push: push("a", "x", .gauge), deadline: start.advanced(by: .seconds(10))) { _ in
                Issue.record("its client is gone")
            }
        }
        let kept = question()
        questions.ask(kept, at: start)
        kept.asker.leave()
        questions.forget()
        #expect(questions.nextTime == nil)
        let listed = question()
        questions.ask(listed, at: start)
        let due = questions.due(at: start)
        listed.asker.leave()
        questions.decide(due, by: try listing([], after: 0), at: start) { _ in .failed }
        known.isComplete = true
        guard case .lookUp = known.decide(push("b", "x", .gauge), at: start) else {
            return #expect(Bool(false), "nothing was stored of x")
        }
    }
}
