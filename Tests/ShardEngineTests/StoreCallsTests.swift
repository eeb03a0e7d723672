// What the mover asks of stores, asked of real Pushgateways: listings that can be pushed, pushes and how they end, marks.
import Foundation
import Glibc
import Testing

@testable import MovingCore
@testable import ShardEngine

@Suite struct StoreCallsTests {
    private let caller = StoreCaller()
    private func push(_ method: ShardEngine.Method, _ path: String, _ body: String, _ store: RealPushgateway) -> Int {
        caller.send(method, path, Array(body.utf8), at: store.address)
    }

    private func list(_ store: RealPushgateway) throws -> Listing {
        let (listing, reason) = caller.list(store.address)
        #expect(reason == nil)
        return try #require(listing)
    }

    private func key(_ pairs: [(String, String)]) -> GroupKey {
        let labels = GroupLabels(pairs.map { LabelPair(name: $0.0, value: $0.1) })
        return GroupKey(text: GroupPath().path(of: labels), hash: GroupPath().hash(of: labels))
    }

    private func send(_ what: Send.What) -> Send {
        Send(store: StoreID(1), what: what, slot: Slot(range: 0, before: StoreID(1), after: StoreID(2)))
    }

    private static let everyType = """
        # TYPE c counter
        c{a="1"} 1e300
        # HELP g Of help, with \\\\ and \\n.
        # TYPE g gauge
        g{l="é\\n\\"漢字"} NaN
        g{l="\u{1}"} -Inf
        u 0.1
        # TYPE s summary
        s{quantile="0.5"} 0.25
        s{quantile="0.99"} NaN
        s_sum 1e-300
        s_count 3
        # TYPE h histogram
        h_bucket{le="0.1"} 2
        h_bucket{le="+Inf"} 3
        h_sum -0.5
        h_count 3

        """

    @Test(arguments: [true, false]) func whatIsListedCanBePushed(isChecking: Bool) throws {
        let (one, other) = (try RealPushgateway(isChecking: isChecking), try RealPushgateway(isChecking: isChecking))
        let good = isChecking ? 200 : 202
        #expect(push(.put, "/metrics/job/all/instance/x", StoreCallsTests.everyType, one) == good)
        #expect(push(.put, "/metrics/job/caf%C3%A9/x@base64/=", "plain 1\n", one) == good)
        #expect(push(.put, "/metrics/job/bare", "", one) == good)
        let have = try list(one)
        #expect(have.groups.count == 3 && have.marks.isEmpty)
        #expect(have.start > 1_600_000_000_000_000_000 && have.start == caller.start(one.address))
        for (key, group) in have.groups {
            let (result, reason) = caller.push(send(.put(key, group.families)), at: other.address)
            #expect(result == .done && reason == nil, "\(reason ?? "")")
        }
        let copy = try list(other)
        #expect(copy.start != have.start)
        #expect(copy.groups == have.groups)
        let all = try #require(have.groups[key([("job", "all"), ("instance", "x")])])
        #expect(all.families.map(\.name) == ["", "c", "g", "h", "s", "u"])
        for key in copy.groups.keys {
            #expect(caller.push(send(.delete(key)), at: other.address).result == .done)
        }
        #expect(try list(other).groups.isEmpty)
        #expect(caller.body("/metrics", at: other.address)?.contains("shardd") == false)
    }

    @Test func aPostAddsFamilies() throws {
        let (one, other) = (try RealPushgateway(), try RealPushgateway())
        #expect(push(.put, "/metrics/job/a", "m 1\nn 1\n", one) == 200)
        #expect(push(.put, "/metrics/job/a", "n 2\n", other) == 200)
        let group = key([("job", "a")])
        let lacking = try #require(try list(one).groups[group]).families.filter { $0.name == "m" }
        #expect(caller.push(send(.post(group, lacking)), at: other.address).result == .done)
        #expect(try list(other).groups[group]?.families.map(\.name) == ["", "m", "n"])
        #expect(caller.body("/metrics", at: other.address)?.contains("n{instance=\"\",job=\"a\"} 2\n") == true)
    }

    /// One that has metrics from before, and one that has nothing but the time of the failure.
    @Test func groupsWhoseLastPushFailedAreCopiedAsSuch() throws {
        let (one, other) = (try RealPushgateway(), try RealPushgateway())
        #expect(push(.put, "/metrics/job/after", "m 1\n", one) == 200)
        for path in ["/metrics/job/after", "/metrics/job/never"] {
            #expect([400, 0].contains(push(.put, path, "stamped 1 1000\n", one)), "1.11 breaks the connection")
        }
        #expect(push(.put, "/metrics/job/fine", "n 1\n", one) == 200)
        let have = try list(one)
        for (key, group) in have.groups {
            #expect(caller.push(send(.put(key, group.families)), at: other.address).result == .done)
        }
        #expect(try list(other).groups == have.groups)
        let listed = caller.body("/api/v1/metrics", at: other.address) ?? ""
        #expect(listed.components(separatedBy: "\"last_push_successful\":false").count == 3)
        // What is merged into a group that is there says nothing about that one's last push.
        let fine = key([("job", "fine")])
        #expect(caller.push(send(.post(fine, [])), at: other.address).result == .done)
        #expect(try list(other).groups[fine] == have.groups[fine])
    }

    @Test func marksAreListedByTheirGreatestNumber() throws {
        let store = try RealPushgateway(isChecking: false)
        let marks = [MarkID(hash: 1, digest: 0xFFFF_FFFF_FFFF_FFFF), MarkID(hash: 0xFFFF_FFFF, digest: 2)]
        for (mark, number) in [(marks[0], 7 as Epoch), (marks[1], 7), (marks[0], 9), (marks[1], 5)] {
            #expect(caller.push(send(.mark(mark, scope: number)), at: store.address).result == .done)
        }
        var listing = try list(store)
        #expect(listing.marks == [marks[0]: 9, marks[1]: 7] && listing.groups.isEmpty)
        #expect(caller.calls.markNumbers[store.address] == [5, 7, 9])
        #expect(caller.body("/metrics", at: store.address)?.contains("shardd_void_") == false)
        let deleted = caller.wait { done in
            caller.calls.deleteMarks(below: 9, at: store.address) { result, _ in done(result) }
        }
        listing = try list(store)
        #expect(deleted == .done && listing.marks == [marks[0]: 9])
        #expect(caller.calls.markNumbers[store.address] == [9])
    }

    @Test func aStoreIsMarkedAsAMemberInPlaceOfItsMarksOfBefore() throws {
        let store = try RealPushgateway(isChecking: false)
        let status = try #require(caller.body("/api/v1/status", at: store.address))
        let process = try #require(processStartTime(Array(status.utf8)))
        for path in [StoreMark.path("a1"), StoreMark.memberPath("a1", birth: "7")] {
            #expect(push(.put, path, "", store) == 202)
        }
        let identity = StoreIdentity(process: process, mark: "a1", tiers: ["7"])
        #expect(caller.wait { caller.calls.markMember(identity, birth: "8", at: store.address, $0) })
        let exposition = try #require(caller.body("/metrics", at: store.address))
        #expect(exposition.contains(#"store="a1",tier="8""#))
        #expect(exposition.components(separatedBy: #"push_time_seconds{"#).count == 2, "no other mark is left")
    }

    @Test func noMarkIsLeftAtAProcessThatTookAnothersPlaceMeanwhile() throws {
        let store = try RealPushgateway(isChecking: false)
        let before = StoreIdentity(process: "2020-01-01T00:00:00Z", mark: "a1")
        #expect(caller.wait { caller.calls.markMember(before, birth: "8", at: store.address, $0) } == false)
        let listing = try list(store)
        #expect(listing.groups.isEmpty)
        #expect(caller.body("/metrics", at: store.address)?.contains(#"store="a1""#) == false)
    }

    @Test func aMarkIsOfAGroupHoweverItsPathIsWritten() throws {
        let store = try RealPushgateway(isChecking: false)
        #expect(push(.put, "/metrics/job@base64/YS9i/x/1/y@base64/=/instance/i", "m 1\n", store) == 202)
        let listed = try #require(try list(store).groups.values.first).mark
        let parser = GroupingKeyParser(key: .path)
        func mark(_ path: String) -> MarkID? {
            Array(path.utf8).withUnsafeBytes { MarkID(path: $0, parser) }
        }
        #expect(mark("/metrics/job@base64/YS9i/y@base64/=/instance/i/x@base64/MQ") == listed)
        #expect(mark("/metrics/job@base64/YS9i/instance/i/x/1") != listed)
        #expect(mark("/metrics/job/a") == mark("/metrics/job/a/instance@base64/="))
        #expect(mark("/metrics/job@base64/YS94LzE") != mark("/metrics/job/a/x/1"))
        #expect(mark("/metrics/job/a/x") == nil)
    }

    @Test func whatCannotBePushedAsItIsIsListedAndRejected() throws {
        let (one, other) = (try RealPushgateway(isChecking: false), try RealPushgateway(isChecking: false))
        #expect(push(.put, "/metrics/job/bare", "# TYPE b histogram\nb_sum 3\nb_count 4\n", one) == 202)
        #expect(push(.put, "/metrics/job/poison/instance@base64/=", "p 1\n", one) == 202)
        #expect(push(.put, "/metrics/job/hidden", "labels 1\n", one) == 202)
        #expect(push(.put, "/metrics/job/bad%FF", "f 1\n", one) == 202)
        let (have, again) = (try list(one), try list(one))
        #expect(have.groups.count == 4 && have.groups.keys == again.groups.keys)
        for (key, group) in have.groups {
            #expect(group.families != again.groups[key]?.families)
            for what in [Send.What.put(key, group.families), .post(key, group.families.suffix(1))] {
                let (result, reason) = caller.push(send(what), at: other.address)
                #expect(result == .rejected && reason?.isEmpty == false)
            }
        }
        #expect(try list(other).groups.isEmpty)
        let hidden = have.groups[key([("job", "hidden")])]
        #expect(hidden?.families.map(\.name) == [""])
    }

    /// Pushgateway 1.5.1 lists it as if it had its ordinary buckets alone.
    @Test func aNativeHistogramStaysWhereItIs() throws {
        let store = try RealPushgateway(isChecking: false)
        let one = withUnsafeBytes(of: 1.0.bitPattern.littleEndian) { Array($0) }
        let bucket: [UInt8] = [0x08, 3, 0x11] + one
        let native: [UInt8] = [0x28, 6, 0x31] + one + [0x38, 3]
        let histogram = [0x08, 3, 0x11] + one + [0x1A, UInt8(bucket.count)] + bucket + native
        let metric = [0x3A, UInt8(histogram.count)] + histogram
        let family = [0x0A, 1, 0x68, 0x18, 4, 0x22, UInt8(metric.count)] + metric
        let questions = StoreQuestions(calls: caller.calls, address: store.address)
        for (path, body) in [("native", [UInt8(family.count)] + family), ("plain", [])] {
            let isTaken = caller.wait { done in
                questions.send(.put, "/metrics/job/\(path)", body, within: .seconds(5)) { end in
                    if case .answered(let response) = end { done(response.status == 202) } else { done(false) }
                }
            }
            #expect(isTaken)
        }
        #expect(push(.put, "/metrics/job/ordinary", StoreCallsTests.everyType, store) == 202)
        let results = try list(store).groups.map { key, group in
            let (result, reason) = caller.push(send(.put(key, group.families)), at: store.address)
            #expect(result == .done || reason?.hasSuffix(" of h") == true)
            return (key, result == .done)
        }
        // The ordinary one has the same name.
        #expect(results.filter(\.1).map(\.0) == [key([("job", "plain")])])
    }

    @Test func endsOfPushesAreTold() throws {
        let store = try RealPushgateway()
        #expect(push(.put, "/metrics/job/a", "# TYPE m counter\nm 1\n", store) == 200)
        let group = key([("job", "b")])
        let gauge = MetricFamily(name: "m", kind: .gauge, help: "", metrics: [Metric(value: 1)])
        var encoder = FamilyEncoder()
        encoder.append(gauge)
        let put = send(.put(group, [Family(name: "m", content: encoder.bytes)]))
        let rejected = caller.push(put, at: store.address)
        #expect(rejected.result == .rejected && rejected.reason?.isEmpty == false)
        #expect(caller.push(put, at: RefusingAddress().address).result == .refused)
        store.stop()
        let before = MonotonicTime.now()
        #expect(caller.push(put, at: store.address).result == .late)
        #expect(MonotonicTime.now().since(before) < .seconds(1.05))
        #expect(caller.start(store.address) == nil)
        let (listing, reason) = caller.list(store.address)
        #expect(listing == nil && reason?.contains("\(store.address)") == true)
        store.go()
    }

    @Test func aPushThatIsLateIsTakenBack() throws {
        let (listener, port) = listenOnLoopback()
        defer { close(listener) }
        let address = ShardAddress(host: "127.0.0.1", port: port)
        let delete = send(.delete(key([("job", "a")])))
        #expect(caller.push(delete, at: address).result == .late)
        let client = accept(listener, nil, nil)
        defer { close(client) }
        var byte: UInt8 = 0
        while recv(client, &byte, 1, 0) == 1 {}
        #expect(errno == ECONNRESET)
    }

    @Test func aConnectionThatBreaksIsTriedOnceMore() throws {
        let peer = ScriptedShard { connection, _ in connection == 0 ? .close : .answer }
        defer { peer.stop() }
        #expect(caller.push(send(.delete(key([("job", "a")]))), at: peer.address).result == .done)
        #expect(peer.requests.count == 2)
        let other = ScriptedShard { _, _ in .close }
        defer { other.stop() }
        #expect(caller.push(send(.delete(key([("job", "a")]))), at: other.address).result == .refused)
        #expect(other.requests.count == 4)
    }

    /// So does Pushgateway 1.11, in place of answering 400.
    @Test func aPushOverWhichALivingStoreBreaksTheConnectionIsWrong() throws {
        let status = #"{"status":"success","data":{"start_time":"2026-11-24T12:00:00Z"}}"#
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: \(status.utf8.count)\r\n\r\n\(status)"
        let peer = ScriptedShard { _, _, text in text.hasPrefix("PUT") ? .close : .send(answer) }
        defer { peer.stop() }
        let (result, reason) = caller.push(send(.put(key([("job", "a")]), [])), at: peer.address)
        #expect(result == .rejected && reason != nil && peer.requests.count == 3)
    }

    /// A Pushgateway that does not check pushes has a thousand of them waiting at times.
    @Test func aListingShowsAllThatWasAnswered() throws {
        let store = try RealPushgateway(isChecking: false)
        var groups: [GroupKey: UInt64] = [:]
        for round in 0..<20 as Range<UInt64> {
            let sends = (0..<300).map { index in
                let group = key([("job", "a"), ("n", "\((Int(round) * 17 + index) % 500)")])
                groups[group] = round
                var encoder = FamilyEncoder()
                let metric = Metric(value: Double(round))
                encoder.append(MetricFamily(name: "m", kind: .gauge, help: "", metrics: [metric]))
                return send(.put(group, [Family(name: "m", content: encoder.bytes)]))
            }
            #expect(caller.pushAll(sends, at: store.address).allSatisfy { $0 == .done })
            let listing = try list(store)
            let values = listing.groups.mapValues { group in
                let value = group.families[1].content.suffix(8).reversed().reduce(0) { $0 << 8 | UInt64($1) }
                return UInt64(Double(bitPattern: value))
            }
            #expect(values == groups)
        }
    }
}
