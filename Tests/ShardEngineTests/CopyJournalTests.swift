// What a run that was killed has given owners, as the next one reads it.
import Testing

@testable import ShardEngine

@Suite struct CopyJournalTests {
    private let group = GroupLabels([LabelPair(name: "job", value: "a")])
    private let shard = ShardAddress(host: "10.0.0.1", port: 9091)

    /// What may be of a run that has pushed for `seconds` until now, of a family that the owner has got since; it had taken
    /// the run's push so many seconds ago, if it had.
    private func given(seconds: Int64, takenAgo: Int64? = nil) -> [String: FamilyCopy] {
        let now = wallClockNanoseconds()
        let pushes: [GroupLabels: Set<String>] = [group: ["f"]]
        let startedAt = now - seconds * 1_000_000_000
        let journal = CopyJournal(
            from: shard,
            startTime: nil,
            startedAt: startedAt,
            pushes,
            owner: { _ in shard },
            takenBy: { _ in takenAgo.map { now - $0 * 1_000_000_000 } }
        )
        let held = GroupCopy(
            labels: group,
            wasLastPushSuccessful: true,
            families: ["f": FamilyCopy(pushedAt: now + 1, content: nil)]
        )
        return journal.given(journal.groups[0], of: held, copy: nil)
    }

    @Test func whatCameAtTheTimeOfThePushesMayBeTheirs() {
        #expect(given(seconds: 2).keys.sorted() == ["f"])
    }

    @Test func whatCameAfterTheOwnerHadTakenThePushIsAClients() {
        #expect(given(seconds: 2, takenAgo: 1).isEmpty)
        #expect(given(seconds: 2, takenAgo: -1).count == 1)
    }

    /// As with a clock that was set back, or that of another machine.
    @Test func aTimeThatIsToComeIsNobodys() {
        #expect(given(seconds: -3600).isEmpty)
    }
}
