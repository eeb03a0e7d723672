// The mark by which a store is known from process to process, and across addresses: a group of shardd's own that lies in the
// store, and so in its file. The store marker reads and writes it; listings of shards tell it too.
//
// The group's label is what `/metrics` shows, as every group has its push_time_seconds there. Beside that it holds a family
// without metrics, which Pushgateway keeps and never exposes.

/// The names that shardd keeps for itself in shards.
enum StoreMark {
    /// The job of all groups of shardd's own: no client may push to it.
    static let job = "shardd"
    private static let label = "store"

    /// The mark of a store that has none: when the process that is marked first was started, in nanoseconds since 1970 and
    /// hexadecimal digits. So replicas that mark a store at the same moment agree. Nil where the time cannot be read.
    static func new(process: String) -> String? {
        nanoseconds(rfc3339: process).map { String($0, radix: 16) }
    }

    /// The mark that a group bears; nil for any other group.
    static func mark(of group: GroupLabels) -> String? {
        guard isOwn(group) else { return nil }
        return group.pairs.first { $0.name == label }?.value
    }

    /// Whether the group is one of shardd's own.
    static func isOwn(_ group: GroupLabels) -> Bool {
        group.pairs.contains { $0.name == "job" && $0.value == job }
    }

    /// Where a mark is pushed.
    static func path(_ mark: String) -> String { "/metrics/job/\(job)/\(label)/\(mark)" }

    /// Where the mark of a store is pushed once it is a member of the tier: all that it holds is known to the register.
    ///
    /// - Parameter birth: of the register, as another one does not know what this one knew.
    static func memberPath(_ mark: String, birth: String) -> String { "\(path(mark))/\(memberLabel)/\(birth)" }

    /// Tells, in a group with a mark, of which register the store is a member.
    static let memberLabel = "tier"

    /// What is pushed there.
    static func body(_ mark: String) -> [UInt8] { FamilyEncoder.withoutMetrics("shardd_store_\(mark)") }
}

/// What a shard's `/metrics` tells of its groups.
struct GroupCensus: Equatable, Sendable {
    /// The marks of its store; more than one only where replicas could not see each other's.
    var marks: Set<String> = []
    /// Of which lines of registers the store has been a member, by their births.
    var tiers: Set<String> = []
    /// When replicas without Consul last claimed to move groups, in seconds since 1970 by the shard's clock.
    var claims: [String: Double] = [:]
    /// How many groups it holds, shardd's own apart.
    var groups = 0

    /// Counts in a scrape's text: each group has one sample of push_time_seconds, whose labels are the group's.
    init(exposition: UnsafeRawBufferPointer) {
        var start = 0
        while start < exposition.count {
            let end = index(of: 0x0A, in: exposition, from: start) ?? exposition.count
            let line = UnsafeRawBufferPointer(rebasing: exposition[start..<end])
            start = end + 1
            guard begins(line, at: 0, with: "push_time_seconds{") else { continue }
            let text = String(decoding: line, as: UTF8.self)
            if GroupCensus.label("job", in: text) == StoreMark.job {
                if let mark = GroupCensus.label("store", in: text) { marks.insert(mark) }
                if let replica = GroupCensus.label(MoverClaim.label, in: text) {
                    claims[replica] = text.split(separator: " ").last.flatMap { Double($0) }
                }
                if let tier = GroupCensus.label(StoreMark.memberLabel, in: text) { tiers.insert(tier) }
            } else {
                groups += 1
            }
        }
    }

    /// Counts in a listing, for shards whose scrape fails or is elsewhere.
    init(_ listing: ShardListing) {
        marks = listing.marks
        tiers = Set(listing.ownGroups.keys.flatMap(\.pairs).filter { $0.name == StoreMark.memberLabel }.map(\.value))
        groups = listing.groups.count + listing.unreadable
    }

    /// The value of a label without escapes in it: a quotation mark within a value is escaped, so that the name, an equals
    /// sign and a quotation mark behind a brace or a comma are the label's own.
    private static func label(_ name: String, in line: String) -> String? {
        for start in ["{", ","] {
            guard let found = line.firstRange(of: "\(start)\(name)=\"") else { continue }
            return line[found.upperBound...].prefix { $0 != "\"" }.description
        }
        return nil
    }
}
