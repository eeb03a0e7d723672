// What has to be done so that each group is on its owner alone: made from the listings of all shards, without asking
// anybody. `shardd reconcile --dry-run` prints it; a run carries it out.

/// A copy of a group on a shard that does not own it.
public struct Stray: Equatable, Sendable {
    /// Why it has to go.
    public enum Reason: String, Sendable {
        /// The owner has none of the group.
        case misplaced
        /// The owner has the group too.
        case duplicate
    }

    let labels: GroupLabels
    /// The group's grouping key.
    public let group: String
    /// The shard that has the copy.
    public let from: ShardAddress
    /// The group's owner.
    public let to: ShardAddress
    /// Why it has to go.
    public let reason: Reason
}

/// The strays among what shards hold.
struct ReconcilePlan {
    private(set) var strays: [Stray] = []
    /// Groups of which several shards hold a copy.
    private(set) var duplicateCount = 0

    /// - Parameter listings: of all shards that could be asked.
    init(_ listings: [ShardAddress: ShardListing], _ places: GroupPlaces) {
        var holders: [GroupLabels: [ShardAddress]] = [:]
        for (shard, listing) in listings {
            for labels in listing.groups.keys { holders[labels, default: []].append(shard) }
        }
        duplicateCount = holders.values.count { $0.count > 1 }
        for (labels, shards) in holders {
            let owner = places.owner(of: labels)
            guard shards != [owner] else { continue }
            let group = places.text(of: labels)
            let reason: Stray.Reason = shards.contains(owner) ? .duplicate : .misplaced
            for shard in shards where shard != owner {
                strays.append(Stray(labels: labels, group: group, from: shard, to: owner, reason: reason))
            }
        }
        strays.sort { ($0.group, $0.from) < ($1.group, $1.from) }
    }
}

/// Which shard owns a group, remembered; confined to one thread.
final class GroupPlaces {
    private let ring: Ring
    private let path = GroupPath()
    private var owners: [GroupLabels: ShardAddress] = [:]

    /// - Parameters:
    ///   - ring: must not be empty.
    ///   - owners: of groups that go by something else than the ring.
    init(_ ring: Ring, owners: [GroupLabels: ShardAddress] = [:]) {
        self.ring = ring
        self.owners = owners
    }

    /// The shard that owns the group.
    func owner(of group: GroupLabels) -> ShardAddress {
        if let owner = owners[group] { return owner }
        let owner = ring.shards[ring.owner(of: path.hash(of: group))]
        owners[group] = owner
        return owner
    }

    /// The group's place on the ring.
    func hash(of group: GroupLabels) -> UInt32 { path.hash(of: group) }

    /// Where pushes for the group go on its owner.
    func path(of group: GroupLabels) -> String { path.path(of: group) }

    /// The group's grouping key, as people read it.
    func text(of group: GroupLabels) -> String { path.text(of: group) }
}
