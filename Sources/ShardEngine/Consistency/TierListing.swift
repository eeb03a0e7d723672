// What all shards hold of some families, by their `/api/v1/metrics`, and what of it does not go with a push. FamilyLookup makes
// one; KnownFamilies decides by it.

/// What shards hold of some families, or of all.
struct TierListing: Sendable {
    /// A group that holds a family.
    struct Holder: Sendable {
        var shard: ShardAddress
        /// What tells the group from others.
        var group: Int
        /// The group as people read it.
        var labels: String
        var kind: FamilyKind
        var series: [PushedSeries]
    }

    /// What does not go with a family of a push.
    struct Clash {
        var name: [UInt8]
        var holder: Holder
        private let what: String

        fileprivate init(_ name: [UInt8], _ holder: Holder, _ what: String) {
            (self.name, self.holder, self.what) = (name, holder, what)
        }

        /// What the client is told.
        func line(_ family: PushedFamily) -> String {
            "family \"\(printable(family.name))\" \(what) in group \(holder.labels) on shard \(holder.shard)"
        }
    }

    /// When the first shard was asked.
    let begun: MonotonicTime
    private(set) var holders: [[UInt8]: [Holder]] = [:]

    init(begun: MonotonicTime) {
        self.begun = begun
    }

    /// Adds what a shard's answer tells.
    ///
    /// - Parameters:
    ///   - isWanted: whether a family of that name is of interest.
    ///   - counts: whether what the shard holds of a group counts: other copies are void.
    /// - Returns: false when the answer is not what it should be.
    mutating func add(
        _ body: UnsafeRawBufferPointer,
        of shard: ShardAddress,
        isWanted: ([UInt8]) -> Bool,
        counts: (GroupLabels) -> Bool
    ) -> Bool {
        var scanner = JSONScanner(body)
        var isSuccess = false
        scanner.object { scanner, name in
            switch name {
            case "status": isSuccess = scanner.string() == "success"
            case "data" where scanner.peek() == 0x5B: scanner.array { addGroup(&$0, shard, isWanted, counts) }
            default: scanner.skip()
            }
        }
        return scanner.isAtEnd() && isSuccess
    }

    private mutating func addGroup(
        _ scanner: inout JSONScanner,
        _ shard: ShardAddress,
        _ isWanted: ([UInt8]) -> Bool,
        _ counts: (GroupLabels) -> Bool
    ) {
        var start = scanner
        var pairs: [LabelPair] = []
        var isReadable = true
        scanner.object { scanner, name in
            guard name == "labels" else { return scanner.skip() }
            pairs = readLabels(&scanner, &isReadable)
        }
        let labels = GroupLabels(pairs)
        guard isReadable, pairs.contains(where: { $0.name == "job" }), !StoreMark.isOwn(labels), counts(labels) else {
            return
        }
        let holder = Holder(
            shard: shard,
            group: SeriesHash.group(pairs.map { ($0.name, $0.value) }),
            labels: "{" + labels.pairs.map { "\($0.name)=\"\($0.value)\"" }.joined(separator: ", ") + "}",
            kind: .untyped,
            series: []
        )
        let keyNames = SeriesHash.keyNames(pairs.map { ($0.name, $0.value) })
        start.object { scanner, name in
            let bytes = Array(name.utf8)
            guard scanner.peek() == 0x7B, !TierListing.isPushgateways(name), isWanted(bytes) else {
                return scanner.skip()
            }
            addFamily(bytes, holder, keyNames, &scanner)
        }
    }

    private mutating func addFamily(
        _ name: [UInt8],
        _ group: Holder,
        _ keyNames: UInt64,
        _ scanner: inout JSONScanner
    ) {
        var holder = group
        var kind: FamilyKind?
        scanner.object { scanner, key in
            switch key {
            case "type": kind = FamilyKind(listed: scanner.string())
            case "metrics" where scanner.peek() == 0x5B:
                scanner.array { scanner in
                    scanner.object { scanner, part in
                        guard part == "labels" else { return scanner.skip() }
                        var isReadable = true
                        let labels = readLabels(&scanner, &isReadable)
                        holder.series.append(PushedSeries(listed: labels, keyNames: keyNames))
                    }
                }
            default: scanner.skip()
            }
        }
        // A family without metrics is a mark of shardd's.
        guard let kind, !holder.series.isEmpty else { return }
        holder.kind = kind
        holders[name, default: []].append(holder)
    }

    private static func isPushgateways(_ name: String) -> Bool {
        name == "labels" || name == "push_time_seconds" || name == "push_failure_time_seconds"
    }

    /// What others hold, or what the push leaves in its own group, that does not go with a family of it.
    func clashes(_ family: PushedFamily, of push: CheckedPush) -> [Clash] {
        var found: [Clash] = []
        for holder in holders[family.name] ?? [] where holder.group != push.group {
            if holder.kind != family.kind {
                found.append(Clash(family.name, holder, "is a \(family.kind.word) here and a \(holder.kind.word)"))
            } else if !Set(holder.series.map(\.hash)).isDisjoint(with: family.series.map(\.hash)) {
                found.append(Clash(family.name, holder, "has a series that it has"))
            }
        }
        for name in FamilyKin.names(of: family.name, family.kind) {
            for holder in holders[name] ?? []
            where FamilyKin.areKin((family.name, family.kind), (name, holder.kind)) {
                let isReplaced =
                    holder.group == push.group && (!push.isPost || push.families.contains { $0.name == name })
                if isReplaced { continue }
                let what =
                    "is a \(family.kind.word), which does not go with the \(holder.kind.word) \"\(printable(name))\""
                found.append(Clash(name, holder, what))
            }
        }
        return found
    }
}

extension PushedSeries {
    /// A series with these labels, which are all that it has.
    fileprivate init(listed labels: [LabelPair], keyNames: UInt64) {
        self.init(shape: SeriesShape(keyNames: keyNames, allNames: 0), hash: 0)
        for label in labels {
            var (name, value) = (label.name, label.value)
            name.withUTF8 { name in
                value.withUTF8 { value in
                    let (name, value) = (UnsafeRawBufferPointer(name), UnsafeRawBufferPointer(value))
                    hash = hash &+ SeriesHash.label(name, value)
                    shape.allNames = shape.allNames &+ SeriesHash.shapeName(name, isEmpty: value.isEmpty)
                }
            }
        }
    }
}

extension SeriesHash {
    /// What tells a group from others; an empty instance is as none.
    static func group(_ labels: [(String, String)]) -> Int {
        labels.reduce(0) { sum, label in
            if label.0 == "instance", label.1.isEmpty { return sum }
            var (name, value) = label
            return sum
                &+ name.withUTF8 { name in
                    value.withUTF8 { SeriesHash.label(UnsafeRawBufferPointer(name), UnsafeRawBufferPointer($0)) }
                }
        }
    }

    /// The names of a group's key, as `SeriesShape` has them.
    fileprivate static func keyNames(_ labels: [(String, String)]) -> UInt64 {
        let all = labels.contains { $0.0 == "instance" } ? labels : labels + [("instance", "")]
        return all.reduce(0) { sum, label in
            var name = label.0
            return sum
                &+ name.withUTF8 { SeriesHash.shapeName(UnsafeRawBufferPointer($0), isEmpty: label.1.isEmpty) }
        }
    }
}
