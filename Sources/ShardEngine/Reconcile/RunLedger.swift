// What a run has pushed to owners, and what became of it. The copy passes write it; the sweep deletes only by it.

/// The pushes of one run.
struct RunLedger {
    private var acknowledged: [GroupLabels: [String: Int64]] = [:]
    private var pushed: [GroupLabels: Push] = [:]

    private struct Push {
        var names: Set<String> = []
        /// By when the owner has taken the last of them, by its clock, or it was given up, in nanoseconds since 1970.
        var endedAt: Int64 = 0
        var isAnswered = false
        /// Whether the copy was looked at since, and had not changed.
        var isConfirmed = false
    }

    /// The owner has taken these families, or, where it has not answered, may have.
    mutating func didPush(
        _ group: GroupLabels,
        _ names: some Sequence<String>,
        by time: Int64,
        isAnswered: Bool = true
    ) {
        var push = pushed[group] ?? Push()
        push.names.formUnion(names)
        push.endedAt = time
        push.isAnswered = isAnswered
        push.isConfirmed = false
        pushed[group] = push
    }

    /// By when the owner has taken the last push of the group; nil when it has not answered.
    func takenBy(_ group: GroupLabels) -> Int64? {
        pushed[group].flatMap { $0.isAnswered ? $0.endedAt : nil }
    }

    /// A second look has found the family as it was pushed.
    mutating func acknowledge(_ group: GroupLabels, _ name: String, version: Int64) {
        acknowledged[group, default: [:]][name] = version
    }

    /// What the owner has of the group has been replaced or deleted as a whole: all of it has to be looked at again.
    mutating func didReplace(_ group: GroupLabels) {
        acknowledged[group] = nil
    }

    /// A second look has found all of the group as it was pushed.
    mutating func confirm(_ group: GroupLabels) {
        pushed[group]?.isConfirmed = true
    }

    /// How many groups owners have been given.
    var confirmedCount: Int { pushed.values.count(where: \.isConfirmed) }

    /// Whether the owner was given something of the group.
    func hasPushed(_ group: GroupLabels) -> Bool { pushed[group] != nil }

    /// The names of the families that the owner was given of the group.
    func pushedNames(of group: GroupLabels) -> Set<String> { pushed[group]?.names ?? [] }

    /// Whether the owner has this version of the family, or a newer one, from this run.
    func hasAcknowledged(_ group: GroupLabels, _ name: String, version: Int64) -> Bool {
        guard let known = acknowledged[group]?[name] else { return false }
        return known >= version
    }

    /// Whether something was pushed to the owner that may have taken the place of something newer.
    func isUnconfirmed(_ group: GroupLabels) -> Bool { pushed[group]?.isConfirmed == false }

    /// Families of the owner's copy that this run has not pushed, or that were pushed by somebody else since.
    func foreignFamilies(of copy: GroupCopy) -> [String: FamilyCopy] {
        guard let push = pushed[copy.labels] else { return copy.families }
        return copy.families.filter { name, family in
            !push.names.contains(name) || family.pushedAt > push.endedAt
        }
    }
}
