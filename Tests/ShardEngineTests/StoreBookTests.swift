// Which addresses are one store, several, or none, by what they told.
import Testing

@testable import ShardEngine

@Suite struct StoreBookTests {
    private let a = ShardAddress(host: "10.0.0.1", port: 9091)
    private let b = ShardAddress(host: "10.0.0.2", port: 9091)
    private let name = ShardAddress(host: "gateway", port: 9091)

    /// A book after rounds in which the addresses told these start times; nil: did not answer.
    private func book(_ rounds: [[ShardAddress: String?]]) -> StoreBook {
        var book = StoreBook()
        for round in rounds { add(round, to: &book) }
        return book
    }

    private func add(_ round: [ShardAddress: String?], to book: inout StoreBook) {
        for (shard, process) in round { book.record(process.map { .process($0) } ?? .unreachable("gone"), of: shard) }
        book.endRound(Set(round.filter { $0.value != nil }.keys))
    }

    @Test func oneStoreIsOnTheRingUnderTheFirstOfItsAddresses() {
        let book = book([[a: "p1", b: "p2", name: "p1"]])
        let selection = book.select([name, b, a])
        #expect(selection == StoreSelection(shards: [a, b], sameStore: [name: a]))
        #expect(book.map.areSame(a, name) && !book.map.areSame(a, b))
        #expect(!book.map.areSame(name, b))
        #expect(book.select([name, b]).shards == [b, name])
    }

    @Test func equalStartTimesTellBeforeTheRoundHasEnded() {
        var book = StoreBook()
        book.record(.process("p1"), of: a)
        book.record(.process("p1"), of: name)
        #expect(book.map.areSame(a, name))
    }

    /// A restart falls between the two questions.
    @Test func twoAddressesOfOneStoreStayOneThroughARestart() {
        var book = book([[a: "p1", name: "p1"], [a: "p1", name: "p2"]])
        #expect(book.map.areSame(a, name) && book.select([a, name]).shards == [a])
        add([a: nil, name: "p2"], to: &book)
        #expect(book.map.areSame(a, name))
        add([a: "p2", name: "p2"], to: &book)
        #expect(book.map.areSame(a, name))
    }

    @Test func twoAddressesThatComeToLeadToTwoStoresPart() {
        var book = book([[a: "p1", name: "p1"], [a: "p1", name: "p2"]])
        add([a: "p1", name: "p2"], to: &book)
        #expect(!book.map.areSame(a, name) && book.select([a, name]).shards == [a, name])
    }

    @Test func aStoreThatDoesNotAnswerIsStillTheOneThatItWas() {
        let book = book([[a: "p1", name: "p1"], [a: "p1", name: nil]])
        #expect(book.map.areSame(a, name))
    }

    @Test func anAddressThatLeadsToSeveralStoresIsNoShard() {
        var book = book([[a: "p1"], [a: "p2"]])
        // A restart looks like this, too.
        #expect(book.select([a, b]).shards == [a, b])
        add([a: "p1"], to: &book)
        let selection = book.select([a, b])
        #expect(selection.shards == [b] && selection.unusable[a]?.contains("several Pushgateways") == true)
        for _ in 0..<12 { add([a: "p1"], to: &book) }
        #expect(book.select([a, b]).shards == [a, b])
    }

    /// As a Service is that is turned to another version of a Pushgateway, and back.
    @Test func anAddressThatIsTurnedElsewhereAndBackIsAShardThroughout() {
        let rounds = [String](repeating: "p1", count: 5) + [String](repeating: "p2", count: 5) + ["p1", "p1"]
        var book = StoreBook()
        for process in rounds {
            add([a: process], to: &book)
            #expect(book.select([a]).shards == [a])
        }
    }

    @Test func aMarkIsKnownAgainAfterASpellWithoutAnswers() {
        var book = book([[a: "p1"]])
        book.note(mark: "S1", of: a, process: "p1")
        book.record(.unidentified("/api/v1/status answered 401"), of: a)
        #expect(book.map.identity(of: a) == nil)
        book.record(.process("p1"), of: a)
        #expect(book.map.identity(of: a) == StoreIdentity(process: "p1", mark: "S1", isMarkRead: true))
    }

    @Test func sharddIsNoShard() {
        var book = StoreBook()
        book.record(.shardd, of: a)
        #expect(book.select([a, b]).unusable[a]?.contains("shardd itself") == true)
        book.record(.process("p1"), of: a)
        #expect(book.select([a, b]).shards == [a, b])
    }

    @Test func whereTheStoreCannotBeToldPushesGoThereAndNothingIsDeleted() {
        var book = book([[a: "p1", b: "p2"]])
        book.record(.unidentified("/api/v1/status answered 403"), of: a)
        #expect(book.select([a, b]).shards == [a, b])
        #expect(book.obstacle(of: a) == "/api/v1/status answered 403" && book.obstacle(of: b) == nil)
    }

    @Test func aMarkIsItsProcesss() {
        var book = book([[a: "p1"]])
        book.note(mark: "S1", of: a, process: "p0")
        #expect(book.map.identity(of: a)?.mark == nil)
        book.note(mark: "S1", of: a, process: "p1")
        add([a: "p2"], to: &book)
        #expect(book.map.identity(of: a) == StoreIdentity(process: "p2", mark: "S1"))
    }

    /// As when a file is taken to another host; which of the two is asked first is chance.
    @Test(arguments: [true, false]) func aStoreIsWhereItsFileIsNowOnceTheFormerProcessIsGone(isGoneFirst: Bool) {
        var book = book([[a: "p1", b: "p2"]])
        book.note(mark: "S1", of: a, process: "p1")
        if isGoneFirst { add([a: nil], to: &book) }
        book.note(mark: "S1", of: b, process: "p2")
        if !isGoneFirst {
            #expect(book.map.identity(of: a)?.mark == "S1", "both answer")
            add([a: nil], to: &book)
        }
        #expect(book.map.identity(of: a)?.mark == nil && book.map.identity(of: b)?.mark == "S1")
    }

    @Test func countsGroupsAndFindsMarksInAScrape() {
        let text = """
            # TYPE push_time_seconds gauge
            push_time_seconds{instance="",job="a"} 1.7e+09
            push_time_seconds{instance="",job="shardd",store="17"} 1.7e+09
            push_time_seconds{a=",job=",instance="",job="b",store="18"} 1.7e+09
            push_time_seconds{a="x,job=\\"shardd\\",store=\\"19\\"",job="c"} 1.7e+09
            other{job="shardd",store="20"} 1
            """
        let census = Array(text.utf8).withUnsafeBytes { GroupCensus(exposition: $0) }
        #expect(census.marks == ["17"] && census.groups == 3)
    }

    /// A proxy that does not let the question through, for more than a moment.
    @Test func whatDoesNotTellItsStoreForLongKeepsGroupsWhereTheyAre() {
        var book = book([[a: "p1"]])
        book.record(.unidentified("403"), of: a)
        #expect(book.obstacle(of: a) == "403" && book.lastingObstacle(of: a) == nil)
        book.record(.unidentified("403"), of: a)
        #expect(book.lastingObstacle(of: a) == "403")
        book.record(.process("p1"), of: a)
        #expect(book.lastingObstacle(of: a) == nil)
        book.note(refusal: "read only", of: a, process: "p1")
        #expect(book.lastingObstacle(of: a) == "read only")
        book.note(mark: "m", of: a, process: "p1")
        #expect(book.lastingObstacle(of: a) == nil)
    }

    @Test func aMarkIsReadFromEachProcess() {
        var book = book([[a: "p1"]])
        #expect(book.isUnread(a))
        book.note(mark: "m", of: a, process: "p1")
        #expect(!book.isUnread(a))
        book.record(.process("p2"), of: a)
        #expect(book.isUnread(a), "another store may be behind the address")
    }

    /// A file that was taken to another address: there is the store from then on.
    @Test func aStoreIsWhereItsMarkWasReadLast() {
        var book = book([[a: "p1", b: "p2"]])
        book.note(mark: "m", of: a, process: "p1")
        add([a: nil, b: "p3"], to: &book)
        book.note(mark: "m", of: b, process: "p3")
        #expect(book.map.identity(of: a)?.mark == nil && book.map.identity(of: b)?.mark == "m")
    }
}
