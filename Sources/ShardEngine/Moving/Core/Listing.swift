// What a store holds, and what has to be sent so that another store holds exactly that. Pure functions; `MoverJob` calls them.

/// A grouping key: its text tells it from others, its hash places it.
package struct GroupKey: Hashable, Comparable, Sendable {
    package var text: String
    package var hash: UInt32

    package init(text: String, hash: UInt32) { (self.text, self.hash) = (text, hash) }

    package static func < (left: GroupKey, right: GroupKey) -> Bool { left.text < right.text }
}

/// What names a key in marks: `shardd_void_` and these in hexadecimal. It begins with the hash that places the key, so that
/// a mark can be told to be of a slot.
package struct MarkID: Hashable, Comparable, Sendable {
    package var hash: UInt32
    package var digest: UInt64

    package init(hash: UInt32, digest: UInt64) { (self.hash, self.digest) = (hash, digest) }

    package static func < (left: MarkID, right: MarkID) -> Bool {
        (left.hash, left.digest) < (right.hash, right.digest)
    }
}

/// One family of a group, as it will be pushed.
package struct Family: Equatable, Sendable {
    package var name: String
    package var content: [UInt8]
    /// When it was pushed, by the store's clock; it only counts for what no register knew of.
    package var pushedAt: Int64

    package init(name: String, content: [UInt8], pushedAt: Int64 = 0) {
        (self.name, self.content, self.pushedAt) = (name, content, pushedAt)
    }

    package static func == (left: Family, right: Family) -> Bool {
        left.name == right.name && left.content == right.content
    }
}

/// A group on a store: its mark's name, and its families in ascending order of names.
package struct Group: Equatable, Sendable {
    package var mark: MarkID
    package var families: [Family]

    package init(mark: MarkID, families: [Family]) { (self.mark, self.families) = (mark, families) }
}

/// What one process of a store held at one moment, after all that it had answered before.
package struct Listing: Equatable, Sendable {
    package var start: StartTime
    package var groups: [GroupKey: Group]
    /// For each key that is marked, the greatest number that it is marked with.
    package var marks: [MarkID: Epoch]
    /// By which pushes of single groups the store's scrape succeeds, where it was listed to be healed.
    package var remedies: [Remedy] = []

    package init(start: StartTime, groups: [GroupKey: Group], marks: [MarkID: Epoch]) {
        (self.start, self.groups, self.marks) = (start, groups, marks)
    }
}

/// The rewriting of one group where it is.
package struct Remedy: Equatable, Sendable {
    package var key: GroupKey
    package var families: [Family]
    /// Whether the group keeps its other families.
    package var isPost: Bool

    package init(key: GroupKey, families: [Family], isPost: Bool) {
        (self.key, self.families, self.isPost) = (key, families, isPost)
    }
}

/// One push of the mover.
package struct Send: Equatable, Sendable {
    package enum What: Equatable, Sendable {
        case put(GroupKey, [Family])
        case post(GroupKey, [Family])
        case delete(GroupKey)
        /// Add the key's mark to the group of marks with this number.
        case mark(MarkID, scope: Epoch)
    }

    package var store: StoreID
    package var what: What
    package var slot: Slot
}

/// Two stores that a slot is on, and what makes them equal.
struct Equalizing {
    var own: StoreID
    var target: StoreID
    /// The target as a predecessor, whose families count where the authoritative store lacks them; nil for any other.
    var predecessor: Predecessor?
    /// The least number of marks that void something, of what predecessors that are still absent hold or of what has yet to
    /// be adopted; nil where there is nothing.
    var leastMark: Epoch?

    init(_ entry: Entry, target: StoreID, adopting: [Stray]) {
        (own, self.target) = (entry.own, target)
        predecessor = entry.predecessors.last { $0.store == target }
        leastMark = (entry.predecessors.filter { $0.store != target }.map(\.since) + adopting.map(\.since)).min()
    }

    /// The pushes, in waves: each begins when the one before it has ended.
    func sends(_ have: Listing, _ copy: Listing, slot: (UInt32) -> Slot?) -> [[Send]] {
        var merges: [Send] = []
        var copies: [Send] = []
        let keys = [have, copy].flatMap { $0.groups.keys.filter { slot($0.hash) != nil } }
        for key in Set(keys).sorted() {
            guard let place = slot(key.hash) else { continue }
            let old = copy.groups[key]
            let counting = counting(have.groups[key], old, isVoid: old.map { isVoid($0, have) } ?? true)
            if !counting.isEmpty { merges.append(Send(store: own, what: .post(key, counting), slot: place)) }
            if have.groups[key] == nil, counting.isEmpty {
                if old != nil { copies.append(Send(store: target, what: .delete(key), slot: place)) }
                continue
            }
            let kept = (have.groups[key]?.families ?? []).filter { family in
                !counting.contains { $0.name == family.name }
            }
            let all = (kept + counting).sorted { $0.name < $1.name }
            if all != old?.families { copies.append(Send(store: target, what: .put(key, all), slot: place)) }
        }
        return [merges, copies, marks(have, copy, slot: slot)]
    }

    private func isVoid(_ group: Group, _ have: Listing) -> Bool {
        guard let predecessor else { return true }
        return (have.marks[group.mark] ?? 0) >= predecessor.since
    }

    /// What counts of a predecessor's copy.
    private func counting(_ have: Group?, _ copy: Group?, isVoid: Bool) -> [Family] {
        if isVoid { return [] }
        return (copy?.families ?? []).filter { family in
            guard let known = have?.families.first(where: { $0.name == family.name }) else { return true }
            return predecessor?.isAdopted == true && family != known && family.pushedAt > known.pushedAt
        }
    }

    /// What is marked on either store, as far as it counts, is marked on both: either may be authoritative from now on.
    private func marks(_ have: Listing, _ copy: Listing, slot: (UInt32) -> Slot?) -> [Send] {
        guard let leastMark else { return [] }
        let counting = predecessor == nil ? have.marks : have.marks.merging(copy.marks) { max($0, $1) }
        var sends: [Send] = []
        for (mark, number) in counting.sorted(by: { $0.key < $1.key }) where number >= leastMark {
            guard let place = slot(mark.hash) else { continue }
            for (store, listing) in [(own, have), (target, copy)] where (listing.marks[mark] ?? 0) < number {
                sends.append(Send(store: store, what: .mark(mark, scope: number), slot: place))
            }
        }
        return sends
    }
}

extension Listing {
    /// The pushes that leave no group on the store of the keys whose slot is given. Marks stay: a Pushgateway cannot take one
    /// out of its group, and what they say of predecessors goes on being true.
    func removals(at store: StoreID, slot: (UInt32) -> Slot?) -> [Send] {
        let sends = groups.keys.compactMap { key in slot(key.hash).map { (key, $0) } }
        return sends.sorted { $0.0 < $1.0 }.map { Send(store: store, what: .delete($0.0), slot: $0.1) }
    }
}
