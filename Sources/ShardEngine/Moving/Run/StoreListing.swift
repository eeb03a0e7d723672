// A store's listing as the core takes it: groups by the paths under which they can be pushed, each family as the bytes of its
// push. Store calls read it on a thread of its own. What cannot be pushed as it is, is among it with the reason in place of bytes,
// so that it is neither taken for absent nor, by a push without it, lost.
import MovingCore

/// What the answers of one store have told.
struct StoreListing: Sendable {
    private(set) var groups: [GroupKey: Group] = [:]
    private(set) var marks: [MarkID: Epoch] = [:]
    /// The numbers of all groups of marks.
    private(set) var numbers: Set<Epoch> = []
    /// The families of the barrier group.
    private(set) var barriers: Set<String> = []
    /// What was found to be rewritten, where it was listed to be healed.
    private(set) var rewrites = StoreRewrites()
    /// In which groups there are histograms of a name: they may be native ones, which the listing does not tell.
    private var histograms: [String: [GroupKey]] = [:]

    /// Whether something else has to be asked before what the store holds is known.
    var hasHistograms: Bool { !histograms.isEmpty }

    /// Reads the body of an answer; nil when it is not what it should be.
    init?(_ body: UnsafeRawBufferPointer, toHeal look: HealingLook? = nil) {
        guard let listing = ShardListing(body, detail: { _ in .content }), listing.unreadable == 0 else { return nil }
        let paths = GroupPath()
        groups.reserveCapacity(listing.groups.count)
        if let look {
            findRewrites(listing, look, paths)
        } else {
            for copy in listing.groups.values { add(copy, paths) }
        }
        for (group, names) in listing.ownGroups {
            if let number = MarkGroup.number(of: group) {
                numbers.insert(number)
                for mark in names.compactMap(MarkGroup.mark) { marks[mark] = max(number, marks[mark] ?? 0) }
            } else if BarrierGroup.isBarrier(group) {
                barriers.formUnion(names)
            }
        }
    }

    private mutating func findRewrites(_ listing: ShardListing, _ look: HealingLook, _ paths: GroupPath) {
        let groups = listing.groups.values.map { copy in
            let key = key(of: copy.labels, paths).key
            if look.kept.contains(key) { add(copy, paths) }
            return ListedGroup(copy: copy, counts: look.counts(key.hash))
        }
        for rewrite in look.find(groups, look.fault) {
            var rewrite = rewrite
            let (key, _, hasPath) = key(of: rewrite.labels, paths)
            if !hasPath { rewrite.obstacle = "no path leads to it" }
            rewrites.add(rewrite, key)
        }
    }

    private func key(of labels: GroupLabels, _ paths: GroupPath) -> (key: GroupKey, mark: MarkID, hasPath: Bool) {
        let path = paths.path(of: labels)
        let identity = paths.identity(at: path)
        // Where its path leads to another group, not even a DELETE may be sent there.
        let hasPath = identity != nil && !labels.pairs.contains { isLossy($0.name) || isLossy($0.value) }
        let hash = identity?.hash ?? paths.hash(of: labels)
        let key = GroupKey(text: hasPath ? path : "no path: \(path)", hash: hash)
        return (key, MarkID(hash: hash, digest: identity?.digest ?? 0), hasPath)
    }

    private mutating func add(_ copy: GroupCopy, _ paths: GroupPath) {
        var obstacle = copy.obstacleToMove
        let (key, mark, hasPath) = key(of: copy.labels, paths)
        if !hasPath, obstacle == nil { obstacle = "no path leads to it" }
        var families = [GroupState.family(hasFailed: !copy.wasLastPushSuccessful)]
        for (name, family) in copy.families {
            var encoder = FamilyEncoder()
            if let content = family.content {
                encoder.append(content)
                if content.kind == .histogram { histograms[name, default: []].append(key) }
            }
            families.append(Family(name: plain(name), content: encoder.bytes, pushedAt: family.pushedAt))
        }
        families.sort { $0.name < $1.name }
        if let obstacle { Obstacle.mark(&families, obstacle) }
        groups[key] = Group(mark: mark, families: families)
    }

    /// A name of a family as the core compares it: as texts, some names are the same that are not the same bytes.
    private func plain(_ name: String) -> String {
        guard !name.utf8.allSatisfy({ $0 < 0x80 && $0 != UInt8(ascii: "%") }) else { return name }
        return name.utf8.reduce(into: "") { text, byte in
            let isPlain = byte < 0x80 && byte != UInt8(ascii: "%")
            text += isPlain ? String(UnicodeScalar(byte)) : "%" + String(byte, radix: 16)
        }
    }

    /// Takes out what the listing has not told all of.
    ///
    /// - Parameter native: the families that have native histograms; nil when that is not known.
    mutating func leaveOut(native: Set<String>?) {
        for (name, keys) in histograms where native?.contains(name) ?? true {
            for key in keys {
                groups[key].map { group in
                    var families = group.families
                    Obstacle.mark(&families, "the listing does not tell the native buckets of \(name)")
                    groups[key]?.families = families
                }
            }
        }
    }
}

/// How a group's last push went, as a family of it: so it is copied with the group, and a group that has nothing else, since all
/// that was ever pushed to it was refused, is no absent one. Every group has it: what is merged into a group that is there already
/// does not change how its last push went.
enum GroupState {
    private static let name = ""
    private static let failed: [UInt8] = [1]

    static func family(hasFailed: Bool) -> Family { Family(name: name, content: hasFailed ? failed : []) }

    /// Whether a push of these has to leave the group with a failed push.
    static func hasFailed(_ families: [Family]) -> Bool {
        families.contains { $0.name.isEmpty && $0.content == failed }
    }

    /// What a push of these holds.
    static func body(_ families: [Family]) -> [UInt8] {
        families.reduce(into: []) { body, family in if !family.name.isEmpty { body += family.content } }
    }

    /// What a Pushgateway that checks pushes refuses, for its timestamp, and remembers as a failed push.
    static let failingBody = Array("shardd_moved_a_group_whose_last_push_had_failed 1 1\n".utf8)
    static let failingContentType = "text/plain; version=0.0.4"
}

/// Why a group cannot be pushed, in place of what its families hold.
private enum Obstacle {
    /// An encoded family begins with its length, which is never nought.
    private static let marker: UInt8 = 0

    /// Behind the reason stands a number, so that nothing is taken for equal that nobody can compare.
    static func mark(_ families: inout [Family], _ reason: String) {
        let number = UInt64.random(in: 0...UInt64.max)
        let content = withUnsafeBytes(of: number) { [marker] + Array(reason.utf8) + $0 }
        for index in families.indices { families[index].content = content }
    }

    static func reason(in family: Family) -> String? {
        guard family.content.first == marker else { return nil }
        return String(decoding: family.content.dropFirst().dropLast(8), as: UTF8.self)
    }
}

extension Send {
    /// Why it must not be sent; nil when it may be.
    var obstacle: String? {
        switch what {
        case .put(let key, let families), .post(let key, let families):
            return families.lazy.compactMap(Obstacle.reason).first ?? Send.obstacle(key)
        case .delete(let key): return Send.obstacle(key)
        case .mark: return nil
        }
    }

    private static func obstacle(_ key: GroupKey) -> String? {
        key.text.hasPrefix("/metrics/") ? nil : "no path leads to the group"
    }
}
