// What a run is about to push, written to Consul before it is: a run that is killed between a push and the look after it
// leaves an owner with what a PUT or DELETE has taken away meanwhile. The next run looks in its place.
import FoundationEssentials

/// Pushes from one shard to owners that no second look has confirmed.
struct CopyJournal: Codable, Equatable, Sendable {
    /// A group, and what of it was pushed.
    struct Group: Codable, Equatable, Sendable {
        /// The grouping labels, each a name and a value.
        var labels: [[String]]
        /// The names of the families.
        var families: [String]
    }

    /// The shard whose copies are pushed, as `host:port`.
    var from: String
    /// When the first of the pushes was about to be made, in nanoseconds since 1970.
    var startedAt: Int64
    var groups: [Group]

    init(from: ShardAddress, startedAt: Int64, _ pushes: [GroupLabels: Set<String>]) {
        self.from = from.text
        self.startedAt = startedAt
        groups = pushes.map { labels, families in
            Group(labels: labels.pairs.map { [$0.name, $0.value] }, families: families.sorted())
        }
    }

    /// What was pushed of each group.
    var pushes: [GroupLabels: Set<String>] {
        let pairs = groups.map { group in
            let labels = group.labels.filter { $0.count == 2 }.map { LabelPair(name: $0[0], value: $0[1]) }
            return (GroupLabels(labels), Set(group.families))
        }
        return Dictionary(pairs) { $0.union($1) }
    }
}
