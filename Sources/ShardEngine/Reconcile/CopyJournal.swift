// What a run is about to push, written to Consul before it is: a run that is killed between a push and the look after it
// leaves an owner with what a PUT or DELETE has taken away meanwhile. The next run looks in its place.
import FoundationEssentials

/// Pushes from one shard to owners that no second look has confirmed.
struct CopyJournal: Codable, Equatable, Sendable {
    /// A group, and what of it was pushed.
    struct Group: Codable, Equatable, Sendable {
        /// The grouping labels, each a name and a value.
        var labels: [[String]]
        /// The owner that was given it, as `host:port`.
        var to: String
        /// The names of the families.
        var families: [String]
        /// By when the owner had taken them, by its clock, in nanoseconds since 1970; nil when it had not answered yet.
        var takenBy: Int64?
    }

    /// The shard whose copies are pushed, as `host:port`.
    var from: String
    /// When that shard's process was started, as it told.
    var startTime: String?
    /// When the first of the pushes was about to be made, in nanoseconds since 1970.
    var startedAt: Int64
    /// When the last of them were, in nanoseconds since 1970.
    var writtenAt: Int64
    var groups: [Group]

    init(
        from: ShardAddress,
        startTime: String?,
        startedAt: Int64,
        _ pushes: [GroupLabels: Set<String>],
        owner: (GroupLabels) -> ShardAddress,
        takenBy: (GroupLabels) -> Int64? = { _ in nil }
    ) {
        self.from = from.text
        self.startTime = startTime
        self.startedAt = startedAt
        writtenAt = wallClockNanoseconds()
        groups = pushes.map { labels, families in
            Group(
                labels: labels.listed,
                to: owner(labels).text,
                families: families.sorted(),
                takenBy: takenBy(labels)
            )
        }
    }

    /// What was pushed of each group.
    var pushes: [GroupLabels: Set<String>] {
        Dictionary(groups.map { (GroupLabels(listed: $0.labels), Set($0.families)) }) { $0.union($1) }
    }

    /// The owner of each group at that time.
    var owners: [GroupLabels: ShardAddress] {
        let pairs = groups.compactMap { group in
            ShardAddress(parsing: group.to).map { (GroupLabels(listed: group.labels), $0) }
        }
        return Dictionary(pairs) { first, _ in first }
    }

    /// What an owner holds of a group that may be of these pushes, and not of a client's: where the copy, which may have
    /// missed requests since, is as it was before, it does not matter whose it is: the owner's is no older.
    func given(_ group: Group, of held: GroupCopy?, copy: GroupCopy?) -> [String: FamilyCopy] {
        let names = Set(group.families)
        let end = group.takenBy ?? writtenAt + CopyJournal.pushTime
        return (held?.families ?? [:]).filter { name, family in
            let isOfThatTime = startedAt <= family.pushedAt && family.pushedAt <= end
            let isAsItWas = (copy?.families[name]?.pushedAt).map { $0 < startedAt } ?? false
            return names.contains(name) && isOfThatTime && !isAsItWas
        }
    }

    /// About how many bytes a group takes: a value in Consul may have 512 kB.
    static func size(of group: GroupLabels, _ families: some Sequence<String>) -> Int {
        let labels = group.pairs.reduce(0) { $0 + $1.name.utf8.count + $1.value.utf8.count }
        return families.reduce(labels + 100) { $0 + $1.utf8.count + 3 }
    }

    /// How long it may take until an owner has taken what it was given, in nanoseconds.
    private static let pushTime: Int64 = 5_000_000_000
    /// What is pushed between two looks may take so much of it.
    static let roomForBatch = 128 << 10
}
