// Which versions of families owners have been given while a shard was away that may have newer ones. What is pushed is new
// from then on by its owner's clock, and what the shard comes back with would be taken for older. Runs keep the book, in
// Consul, until one has settled what every shard holds.
import FoundationEssentials

/// What is known of versions that owners were given; confined to the thread of its run.
final class VersionBook {
    /// What is written down under one key.
    struct Page: Codable, Equatable, Sendable {
        var key: PageKey
        /// Of families, none twice.
        var names: [String]
        var groups: [Group]
    }

    /// An owner, and a part of its groups: a value in Consul may have no more than 512 kB.
    struct PageKey: Codable, Hashable, Sendable {
        /// The owner, as `host:port`.
        var owner: String
        /// Less than `partCount`.
        var part: UInt32
    }

    /// What an owner was given of a group.
    struct Group: Codable, Equatable, Sendable {
        /// The grouping labels, each a name and a value.
        var labels: [[String]]
        /// Each when families were pushed to the owner and the version that they were, both in nanoseconds since 1970, and
        /// then the places of these families' names among those of the page.
        var families: [[Int64]]
    }

    private struct Given: Hashable {
        /// By the owner's clock.
        var pushedAt: Int64
        var version: Int64
    }

    private var given: [PageKey: [GroupLabels: [String: Given]]] = [:]
    private var unwritten: Set<PageKey> = []
    /// Whether a page has had more than there is room for, which the next run will not know of.
    private(set) var isFull = false
    private let path = GroupPath()
    private let rings: [StoredRing]
    private lazy var built = rings.map { (Ring(shards: $0.shards, vnodes: $0.vnodes), Set($0.holding)) }
    private let write: (Page?, PageKey) -> Bool

    /// - Parameters:
    ///   - pages: what is written down.
    ///   - rings: by which shards that are away may hold something.
    ///   - write: writes a page, or, given nil, removes it; tells whether it could.
    init(_ pages: [Page] = [], rings: [StoredRing] = [], write: @escaping (Page?, PageKey) -> Bool = { _, _ in true }) {
        self.rings = rings
        self.write = write
        for page in pages {
            for group in page.groups {
                given[page.key, default: [:]][GroupLabels(listed: group.labels)] = VersionBook.families(
                    group,
                    page.names
                )
            }
        }
    }

    /// Tells the families of a shard's listing which versions they are, and forgets what clients have pushed since.
    func correct(_ listing: inout ShardListing, of shard: ShardAddress) {
        for part in 0..<VersionBook.partCount {
            let key = PageKey(owner: shard.text, part: part)
            for (group, families) in given[key] ?? [:] {
                for (name, family) in families {
                    if listing.groups[group]?.families[name]?.pushedAt == family.pushedAt {
                        listing.groups[group]?.families[name]?.version = family.version
                    } else {
                        set(nil, key, group, name)
                    }
                }
            }
        }
    }

    /// Whether one of these shards, which are away, may hold something of a group.
    func mayHold(_ group: GroupLabels, _ away: [ShardAddress]) -> Bool {
        let place = path.hash(of: group)
        return built.contains { ring, holders in
            let owner = ring.shards[ring.owner(of: place)]
            return holders.contains(owner) && away.contains(owner)
        }
    }

    /// Takes in what an owner has of what it was given, where it still has just that: if a client has pushed since, the
    /// client's is the newest.
    ///
    /// - Parameter names: of the families that it was given.
    func note(_ names: Set<String>, of copy: GroupCopy?, held: GroupCopy?, on owner: ShardAddress) {
        guard let copy, let held else { return }
        let part = path.hash(of: copy.labels) % VersionBook.partCount
        for name in names {
            guard let family = copy.families[name], let owned = held.families[name], owned.version > family.version,
                isSame(family.content, owned.content)
            else { continue }
            let new = Given(pushedAt: owned.pushedAt, version: family.version)
            set(new, PageKey(owner: owner.text, part: part), copy.labels, name)
        }
    }

    /// Byte by byte, as no NaN is equal to another one.
    private func isSame(_ one: MetricFamily?, _ other: MetricFamily?) -> Bool {
        guard let one, let other else { return false }
        var encoders = (FamilyEncoder(), FamilyEncoder())
        encoders.0.append(one)
        encoders.1.append(other)
        return encoders.0.bytes == encoders.1.bytes
    }

    private func set(_ new: Given?, _ key: PageKey, _ group: GroupLabels, _ name: String) {
        given[key, default: [:]][group, default: [:]][name] = new
        if given[key]?[group]?.isEmpty == true { given[key]?[group] = nil }
        unwritten.insert(key)
    }

    /// Writes down what has changed; false when that cannot be done.
    func save() -> Bool {
        for key in unwritten where write(page(key), key) { unwritten.remove(key) }
        return unwritten.isEmpty
    }

    private func page(_ key: PageKey) -> Page? {
        guard let groups = given[key], !groups.isEmpty else { return nil }
        var page = Page(key: key, names: [], groups: [])
        var places: [String: Int64] = [:]
        var size = 0
        for (group, families) in groups {
            size += CopyJournal.size(of: group, [])
            let new = families.keys.filter { places[$0] == nil }
            let versions = Set(families.values)
            size += new.reduce(45 * versions.count + 7 * families.count) { $0 + $1.utf8.count + 3 }
            guard size < VersionBook.pageLimit else {
                isFull = true
                break
            }
            for (place, name) in zip(page.names.count..., new) { places[name] = Int64(place) }
            page.names += new
            let entries = versions.map { version in
                [version.pushedAt, version.version]
                    + families.filter { $0.value == version }.keys.compactMap { places[$0] }
            }
            page.groups.append(Group(labels: group.listed, families: entries))
        }
        return page
    }

    private static func families(_ group: Group, _ names: [String]) -> [String: Given] {
        var families: [String: Given] = [:]
        for entry in group.families where entry.count > 2 {
            for place in entry.dropFirst(2) where names.indices.contains(Int(place)) {
                families[names[Int(place)]] = Given(pushedAt: entry[0], version: entry[1])
            }
        }
        return families
    }

    /// Forgets all: what every shard holds has been compared.
    func forget() {
        unwritten.formUnion(given.keys)
        given = [:]
        _ = save()
    }

    private static let partCount: UInt32 = 16
    /// About how many bytes a page may have: some thousand groups.
    private static let pageLimit = 400_000
}
