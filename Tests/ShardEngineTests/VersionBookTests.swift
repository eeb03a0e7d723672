// What runs remember of versions that owners were given while a shard was away.
import Testing

@testable import ShardEngine

@Suite struct VersionBookTests {
    private let group = GroupLabels([LabelPair(name: "job", value: "a\"é\n")])
    private let owner = ShardAddress(host: "10.0.0.1", port: 9091)
    private let away = ShardAddress(host: "10.0.0.2", port: 9091)

    private func copy(pushedAt: Int64, _ value: Double = .nan) -> GroupCopy {
        let content = Family(name: "f", kind: .gauge, help: "", metrics: [Metric(value: value)])
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
        let book = VersionBook { _, _ in isTaken }
        book.note(["f"], of: copy(pushedAt: 5), held: copy(pushedAt: 9), on: owner)
        #expect(!book.save())
        isTaken = true
        #expect(book.save())
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
