// The families of one body, and the rules that only the whole body decides. The readers of both formats fill it.

/// The families that have been read, in the order in which they came.
struct BodyFamilies {
    let key: KeyLabels
    /// A Pushgateway keeps a family without metrics of a body of messages, but not one of text.
    let keepsEmpty: Bool
    var drafts: [FamilyDraft] = []
    private var indices: [NameBytes: Int] = [:]

    init(_ key: KeyLabels, keepsEmpty: Bool) {
        self.key = key
        self.keepsEmpty = keepsEmpty
    }

    func index(of name: UnsafeRawBufferPointer) -> Int? { indices[NameBytes(name)] }

    /// Adds a family, in place of one of that name where there is one.
    ///
    /// - Returns: its index.
    mutating func set(_ draft: FamilyDraft) -> Int {
        if let index = index(of: draft.name) {
            drafts[index] = draft
            return index
        }
        indices[NameBytes(draft.name)] = drafts.count
        drafts.append(draft)
        return drafts.count - 1
    }

    /// What the whole body comes to.
    func contents() -> PushContents {
        if !key.isUTF8 {
            return .refused(PushRefusal(reason: .keyNotUTF8, line: "a value in the grouping key is not UTF-8"))
        }
        for draft in drafts {
            if let refusal = draft.refusal ?? refusalByOthers(draft) { return .refused(refusal) }
        }
        var families: [PushedFamily] = []
        families.reserveCapacity(drafts.count)
        for draft in drafts where isStored(draft) {
            // Text has set the kind with the first sample, and a message always has one.
            guard let kind = draft.kind else { return .unreadable }
            families.append(
                PushedFamily(name: Array(draft.name), kind: kind, help: draft.help, series: draft.series)
            )
        }
        return .families(families)
    }

    private func isStored(_ draft: FamilyDraft) -> Bool {
        !draft.isReplaced && (keepsEmpty || !draft.series.isEmpty)
    }

    /// The rules for which the key or other families of the body count.
    private func refusalByOthers(_ draft: FamilyDraft) -> PushRefusal? {
        guard isStored(draft) else { return nil }
        let family = "family \"\(printable(draft.name))\""
        if key.hasQuantile, draft.kind == .summary, !draft.series.isEmpty {
            let line = "\(family) is a summary: the grouping key brings it a label \"quantile\", which is its own"
            return PushRefusal(reason: .metricLabel, line: line)
        }
        guard let suffix = MetricSuffix(draft.name), let index = index(of: suffix.root) else { return nil }
        let root = drafts[index]
        guard isStored(root), let kind = root.kind, suffix.belongs(to: kind) else { return nil }
        let other = "family \"\(printable(root.name))\" of the same body"
        let line = "\(family) has the name of a series of \(other), which is a \(kind.word)"
        return PushRefusal(reason: .familySuffix, line: line)
    }
}

/// The end of a name by which it may be that of a series of a summary or histogram.
enum MetricSuffix {
    case count(root: UnsafeRawBufferPointer)
    case sum(root: UnsafeRawBufferPointer)
    case bucket(root: UnsafeRawBufferPointer)

    /// nil for a name without such an end, or without anything in front of it.
    @inline(__always)
    init?(_ name: UnsafeRawBufferPointer) {
        func root(_ suffix: StaticString) -> UnsafeRawBufferPointer? {
            let length = name.count - suffix.utf8CodeUnitCount
            guard length > 0, begins(name, at: length, with: suffix) else { return nil }
            return UnsafeRawBufferPointer(rebasing: name[..<length])
        }
        switch name.last {
        case UInt8(ascii: "t"):
            if let root = root("_count") { self = .count(root: root); return }
            if let root = root("_bucket") { self = .bucket(root: root); return }
        case UInt8(ascii: "m"):
            if let root = root("_sum") { self = .sum(root: root); return }
        default: break
        }
        return nil
    }

    /// The name without it.
    var root: UnsafeRawBufferPointer {
        switch self {
        case .count(let root), .sum(let root), .bucket(let root): root
        }
    }

    /// Whether a family of that kind has series with this end.
    func belongs(to kind: FamilyKind?) -> Bool {
        switch (self, kind) {
        case (_, .histogram), (.count, .summary), (.sum, .summary): true
        default: false
        }
    }
}

/// The names of a series' own labels, in their order. Most series have the names of the one before, so that what is known of
/// a name need not be found out again.
struct LabelColumns {
    struct Column {
        let name: UnsafeRawBufferPointer
        let isOfKey: Bool
        let isInstance: Bool
        /// Whether the check takes it.
        let isValid: Bool
        private let shape: UInt64
        private let emptyShape: UInt64

        init(_ name: UnsafeRawBufferPointer, of key: KeyLabels) {
            self.name = name
            isOfKey = key.contains(name)
            isInstance = equals(name, "instance")
            isValid = Column.isValid(name)
            shape = SeriesHash.shapeName(name, isEmpty: false)
            emptyShape = SeriesHash.shapeName(name, isEmpty: true)
        }

        /// Adds the label to a series, whose sums have what the key's labels bring already.
        @inline(__always)
        func add(_ hash: Int, isEmpty: Bool, to sum: inout SeriesSum) {
            if isOfKey { return }
            sum.hash &+= hash
            sum.names &+= isEmpty ? emptyShape : shape
            if isInstance { sum.hasInstance = true }
        }

        private static func isValid(_ name: UnsafeRawBufferPointer) -> Bool {
            guard let first = name.first, first &- UInt8(ascii: "0") >= 10 else { return false }
            return !begins(name, at: 0, with: "__")
                && name.allSatisfy { byte in
                    (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte &- UInt8(ascii: "0") < 10
                        || byte == UInt8(ascii: "_")
                }
        }
    }

    private let key: KeyLabels
    /// Of the last series; no two of one name.
    private var columns: [Column] = []
    /// The names of those columns that are too many to be looked at one by one.
    private var late: Set<NameBytes> = []
    private var count = 0

    init(_ key: KeyLabels) {
        self.key = key
    }

    mutating func beginSeries() {
        count = 0
    }

    /// The next label of the series; nil where it has one of that name.
    @inline(__always)
    mutating func next(_ name: UnsafeRawBufferPointer) -> Column? {
        if count < columns.count {
            let column = columns[count]
            if NameBytes(column.name) == NameBytes(name) {
                count &+= 1
                return column
            }
        }
        return added(name)
    }

    private mutating func added(_ name: UnsafeRawBufferPointer) -> Column? {
        for index in max(count, LabelColumns.fewColumns)..<max(columns.count, count, LabelColumns.fewColumns) {
            late.remove(NameBytes(columns[index].name))
        }
        columns.removeSubrange(count...)
        let isThere = columns.prefix(LabelColumns.fewColumns).contains { NameBytes($0.name) == NameBytes(name) }
        guard !isThere, !late.contains(NameBytes(name)) else { return nil }
        if count >= LabelColumns.fewColumns { late.insert(NameBytes(name)) }
        let column = Column(name, of: key)
        columns.append(column)
        count += 1
        return column
    }

    private static let fewColumns = 16
}
