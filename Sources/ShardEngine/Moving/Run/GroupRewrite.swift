// How groups are rewritten that fail the scrape of their shard. Consistency finds out how; a store listing that is made to heal its
// store has that as pushes for the core, and as changes for people; the tier makes the pushes and tells of the changes.
import MovingCore

/// A group as it is listed to heal its store.
struct ListedGroup: Sendable {
    var copy: GroupCopy
    /// Whether it counts here; other copies of it are void, or backups.
    var counts: Bool
}

/// What becomes of a family that does not go with those of other groups.
struct FamilyChange: Equatable, Sendable {
    enum What: Equatable, Sendable {
        /// It has the same values under this type.
        case retyped(FamilyKind)
        /// Its series are there as those of families without a type.
        case flattened
        /// It has the same series; a listing did not tell what was wrong, or another HELP.
        case writtenAgain
        /// Series of it, or all, are not there any more.
        case setAside
    }

    var name: String
    var what: What
    /// What it does not go with, for people.
    var reason: String
}

/// The rewriting of one group.
struct GroupRewrite: Sendable {
    var labels: GroupLabels
    var families: [MetricFamily]
    /// Whether the group keeps its other families.
    var isPost: Bool
    var changes: [FamilyChange]
    /// Why it cannot be made; nil where it can.
    var obstacle: String?
}

/// How a store is listed to be healed.
struct HealingLook: Sendable {
    /// Whether what the store holds of a group with this hash counts.
    var counts: @Sendable (UInt32) -> Bool
    /// What the store answers to a scrape.
    var fault: String
    /// The rewritings by which the scrape of a store with these groups, and this answer, succeeds.
    var find: @Sendable ([ListedGroup], _ fault: String) -> [GroupRewrite]
    /// The groups of which all is wanted: to encode all that a store holds takes longer than to read it.
    var kept: Set<GroupKey>
}

/// What a listing tells of rewritings, by the paths of their groups.
struct StoreRewrites: Sendable {
    var remedies: [Remedy] = []
    var changes: [GroupKey: [FamilyChange]] = [:]
    /// Groups that cannot be rewritten, with the reasons.
    var obstacles: [GroupKey: String] = [:]

    mutating func add(_ rewrite: GroupRewrite, _ key: GroupKey) {
        if let obstacle = rewrite.obstacle {
            obstacles[key] = obstacle
            return
        }
        let families = rewrite.families.map { family in
            var encoder = FamilyEncoder()
            encoder.append(family)
            return Family(name: family.name, content: encoder.bytes)
        }
        remedies.append(Remedy(key: key, families: families, isPost: rewrite.isPost))
        changes[key] = rewrite.changes
    }
}
