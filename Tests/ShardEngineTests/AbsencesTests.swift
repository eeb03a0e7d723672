// What is known of shards that were off the ring: in seconds here, by a clock of the test's own.
import Testing

@testable import ShardEngine

@Suite struct AbsencesTests {
    private let group = GroupLabels([LabelPair(name: "job", value: "a")])
    private let shard = ShardAddress(host: "10.0.0.1", port: 9091)
    private let other = ShardAddress(host: "10.0.0.2", port: 9091)
    private static let second: Int64 = 1_000_000_000
    private var stores: StoreMap { StoreMap(identities: [shard: StoreIdentity(process: "first")]) }

    /// The shard has to leave at the first of these times, has left at the second, and is seen to be back at the third, if it
    /// is.
    private func absences(
        _ times: (leaves: Int64, gone: Int64, back: Int64?),
        noticeTime: TimeSpan? = .seconds(10)
    ) -> Absences {
        var absences = Absences()
        (absences.noticeTime, absences.lag) = (noticeTime, .seconds(2))
        let (both, one) = ([shard, other], [other])
        func willUse(_ shards: [ShardAddress], after before: [ShardAddress], at seconds: Int64) {
            absences.willUse(shards, after: before, stores: stores, at: seconds * AbsencesTests.second)
        }
        willUse(one, after: both, at: times.leaves)
        absences.didUse(one, at: times.gone * AbsencesTests.second)
        guard let back = times.back else { return absences }
        willUse(both, after: one, at: back)
        absences.didUse(both, at: (back + 2) * AbsencesTests.second)
        return absences
    }

    /// Which version a family is that the shard got at that time, in seconds.
    private func version(_ absences: Absences, pushedAt: Double, now: Int64 = 400, process: String = "first") -> Int64?
    {
        let time = Int64(pushedAt * 1e9)
        var listing = ShardListing()
        listing.groups[group] = GroupCopy(
            labels: group,
            wasLastPushSuccessful: true,
            families: ["f": FamilyCopy(pushedAt: time)]
        )
        listing.correct(by: absences.times(of: shard, at: now * AbsencesTests.second), process: process)
        return (listing.groups[group]?.families["f"]?.version).map { $0 == time ? nil : $0 / AbsencesTests.second }
            ?? nil
    }

    @Test func whatAShardGotWhileItWasOffTheRingIsAsOldAsItsAbsence() {
        let absences = absences((leaves: 100, gone: 103, back: 112))
        #expect(version(absences, pushedAt: 108) == 100)
        #expect(version(absences, pushedAt: 112.2) == 100)
    }

    @Test(arguments: [
        // Another replica may have given it this as to an owner.
        104,
        // Requests come to it as to an owner again.
        112.3,
        // Before it left.
        99,
    ])
    func whatItGotAsAnOwnerIsNot(pushedAt: Double) {
        #expect(version(absences((leaves: 100, gone: 103, back: 112)), pushedAt: pushedAt) == nil)
    }

    @Test func onlyWhatCameAboutWhenItWasSeenToBeBackIsLate() {
        let times = (leaves: Int64(100), gone: Int64(103), back: Int64?.some(300))
        #expect(version(absences(times), pushedAt: 289) == nil)
        #expect(version(absences(times), pushedAt: 291) == 100)
        #expect(version(absences(times, noticeTime: nil), pushedAt: 289) == 100)
    }

    @Test func anAbsenceThatIsShorterThanReplicasAreApartIsNone() {
        #expect(absences((leaves: 100, gone: 103, back: 104)).times(of: shard).isEmpty)
    }

    @Test func aShardThatHasNotBeenSeenToBeBackIsAbsentStill() {
        let times = (leaves: Int64(100), gone: Int64(103), back: Int64?.none)
        #expect(version(absences(times, noticeTime: nil), pushedAt: 200, now: 300) == 100)
        #expect(version(absences(times), pushedAt: 200, now: 300) == nil)
        #expect(version(absences(times), pushedAt: 200, now: 201) == 100)
    }

    @Test func aShardThatGoesAgainBeforeItIsOnTheRingIsAbsentStill() {
        var absences = absences((leaves: 100, gone: 103, back: nil), noticeTime: nil)
        absences.willUse([shard, other], after: [other], stores: stores, at: 112 * AbsencesTests.second)
        absences.willUse([other], after: [other], stores: stores, at: 113 * AbsencesTests.second)
        #expect(version(absences, pushedAt: 200) == 100)
        absences.willUse([shard, other], after: [other], stores: stores, at: 201 * AbsencesTests.second)
        absences.didUse([shard, other], at: 203 * AbsencesTests.second)
        #expect(version(absences, pushedAt: 200) == 100)
        #expect(version(absences, pushedAt: 202) == nil)
    }

    /// Only what its own sockets have kept is late.
    @Test func anotherProcessHasNotBeenAbsent() {
        let absences = absences((leaves: 100, gone: 103, back: 112))
        #expect(version(absences, pushedAt: 108, process: "second") == nil)
    }

    /// Two changes of the ring overlap: the shard is to leave, and is back before the ring without it is in force.
    @Test func aShardThatIsBackBeforeItHasLeftIsNotAbsentAfterwards() {
        var absences = Absences()
        absences.lag = .milliseconds(400)
        absences.willUse([other], after: [shard, other], stores: stores, at: 100 * AbsencesTests.second)
        absences.willUse([shard, other], after: [shard, other], stores: stores, at: 101 * AbsencesTests.second)
        absences.didUse([other], at: 102 * AbsencesTests.second)
        #expect(version(absences, pushedAt: 103) == nil)
        absences.didUse([shard, other], at: 104 * AbsencesTests.second)
        #expect(version(absences, pushedAt: 103) == nil)
        #expect(version(absences, pushedAt: 300) == nil)
    }

    @Test func aShardThatIsNewHasNotBeenAbsent() {
        var absences = Absences()
        absences.willUse([shard, other], after: [other], stores: stores, at: 0)
        #expect(absences.times(of: shard).isEmpty)
    }
}
