// What runs remember of versions that owners were given while a shard was away.
import FoundationEssentials
import Testing

@testable import ShardEngine

@Suite struct VersionBookTests {
    private let group = GroupLabels([LabelPair(name: "job", value: "a\"é\n")])
    private let owner = ShardAddress(host: "10.0.0.1", port: 9091)
    private let away = ShardAddress(host: "10.0.0.2", port: 9091)

    private func copy(pushedAt: Int64, _ value: Double = .nan) -> GroupCopy {
        let content = MetricFamily(name: "f", kind: .gauge, help: "", metrics: [Metric(value: value)])
        return GroupCopy(
            labels: group,
            wasLastPushSuccessful: true,
            families: ["f": FamilyCopy(pushedAt: pushedAt, content: content)]
        )
    }

    private func version(_ book: VersionBook, pushedAt: Int64) -> Int64? {
        var listing = ShardListing()
        listing.groups[group] = copy(pushedAt: pushedAt)
        book.correct(&listing, of: owner)
        return listing.groups[group]?.families["f"]?.version
    }

    @Test func whatWasGivenIsAsOldAsItsCopyInTheNextRunToo() {
        var pages: [VersionBook.PageKey: VersionBook.Page] = [:]
        let write = { (page: VersionBook.Page?, key: VersionBook.PageKey) in
            pages[key] = page
            return true
        }
        let book = VersionBook(write: write)
        book.note(["f"], of: copy(pushedAt: 5), held: copy(pushedAt: 9), on: owner)
        #expect(book.save())
        #expect(pages.count == 1)
        let next = VersionBook(Array(pages.values), write: write)
        #expect(version(next, pushedAt: 9) == 5)
        #expect(next.save() && pages.count == 1)
        next.forget()
        #expect(pages.isEmpty)
        #expect(version(next, pushedAt: 9) == 9)
    }

    @Test func whatAClientHasPushedSinceIsNew() {
        var removed: [VersionBook.PageKey] = []
        let book = VersionBook { page, key in
            if page == nil { removed.append(key) }
            return true
        }
        book.note(["f"], of: copy(pushedAt: 5), held: copy(pushedAt: 9), on: owner)
        #expect(version(book, pushedAt: 10) == 10)
        #expect(version(book, pushedAt: 9) == 9)
        #expect(book.save())
        #expect(removed.count == 1)
    }

    /// It has come between the push and the look.
    @Test func anotherContentIsAClients() {
        let book = VersionBook()
        book.note(["f"], of: copy(pushedAt: 5, 1), held: copy(pushedAt: 9, 2), on: owner)
        #expect(version(book, pushedAt: 9) == 9)
    }

    @Test func whatCannotBeWrittenIsWrittenLater() {
        var isTaken = false
        var pages: [VersionBook.Page] = []
        let book = VersionBook { page, _ in
            if isTaken { pages += [page].compactMap { $0 } }
            return isTaken
        }
        book.note(["f"], of: copy(pushedAt: 5), held: copy(pushedAt: 9), on: owner)
        #expect(!book.save())
        isTaken = true
        #expect(book.save())
        #expect(version(VersionBook(pages), pushedAt: 9) == 5)
    }

    /// Consul takes no value of more than 512 kB.
    @Test(arguments: [(groups: 3000, families: 40, isFull: false), (groups: 60_000, families: 1, isFull: true)])
    func pagesHaveAsMuchAsThereIsRoomFor(count: (groups: Int, families: Int, isFull: Bool)) throws {
        var pages: [VersionBook.PageKey: VersionBook.Page] = [:]
        let book = VersionBook { page, key in
            pages[key] = page
            return true
        }
        let content = MetricFamily(name: "f", kind: .gauge, help: "", metrics: [])
        for number in 0..<count.groups {
            let job = LabelPair(name: "job", value: String(repeating: "j", count: 60))
            var copy = GroupCopy(
                labels: GroupLabels([job, LabelPair(name: "instance", value: "host-\(number).example.org")]),
                wasLastPushSuccessful: true,
                families: [:]
            )
            // Where pages are too full, each group has names of its own.
            let prefix = count.isFull ? "\(number)_" : ""
            let names = (0..<count.families).map { "\(prefix)a_metric_family_of_a_usual_name_\($0)" }
            for name in names {
                copy.families[name] = FamilyCopy(pushedAt: 1_700_000_000_000_000_000, content: content)
            }
            var held = copy
            for name in names { held.families[name]?.version += 5 }
            book.note(Set(names), of: copy, held: held, on: owner)
        }
        #expect(book.save())
        #expect(book.isFull == count.isFull)
        let known = pages.values.reduce(0) { $0 + $1.groups.count }
        #expect(count.isFull ? known > 20_000 : known == count.groups)
        for page in pages.values {
            #expect(try JSONEncoder().encode(page).count < 512 << 10)
            #expect(page.names.count == (count.isFull ? page.groups.count : count.families))
        }
    }

    @Test func onlyAShardThatMayHaveTheGroupIsThoughtOf() {
        let both = StoredRing(Ring(shards: [owner, away], vnodes: 1))
        let ring = Ring(shards: [owner, away], vnodes: 1)
        let holder = ring.shards[ring.owner(of: GroupPath().hash(of: group))]
        let other = holder == owner ? away : owner
        let book = VersionBook(rings: [both])
        #expect(book.mayHold(group, [holder]))
        #expect(!book.mayHold(group, [other]))
        #expect(!VersionBook().mayHold(group, [owner, away]))
    }
}
