// The families of one body, and the rules that only the whole body decides. The readers of both formats fill it; its memory is kept
// from push to push, and what it tells of names and HELP lies in the body.

/// The families that have been read, in the order in which they came.
final class BodyFamilies {
    /// A series, and where the next one of its family is.
    private struct Series {
        let hash: Int
        let allNames: UInt64
        var next = -1
    }

    /// The names of all labels of some series of a family, as `SeriesShape` has them.
    private struct Shape {
        let allNames: UInt64
        var next = -1
    }

    let key = KeyLabels()
    /// A Pushgateway keeps a family without metrics of a body of messages, but not one of text.
    private var keepsEmpty = false
    private(set) var drafts = Arena<FamilyDraft>(capacity: 64)
    private var series = Arena<Series>(capacity: 256)
    private var shapes = Arena<Shape>(capacity: 64)
    /// Of drafts, by the hashes of their names.
    private var indices = HashTable()
    /// The series of families that have several, and the metrics of histograms and summaries in text.
    private var seen = HashTable()
    private var serials: UInt32 = 0
    /// By the serial numbers of the families that break a rule: the first one counts.
    private var refusals: [UInt32: PushRefusal] = [:]
    private let hash = KeyedHash.ofProcess

    init() {}

    /// Forgets what the body before had.
    func removeAll(keepsEmpty: Bool) {
        self.keepsEmpty = keepsEmpty
        drafts.removeAll()
        series.removeAll()
        shapes.removeAll()
        indices.removeAll()
        seen.removeAll()
        serials = 0
        if !refusals.isEmpty { refusals = [:] }
    }

    // MARK: Families

    func index(of name: UnsafeRawBufferPointer) -> Int? { index(of: name, hash.hash(name)) }

    @inline(__always)
    private func index(of name: UnsafeRawBufferPointer, _ hash: UInt64) -> Int? {
        indices.number(hash) { NameBytes(drafts[$0].name) == NameBytes(name) }
    }

    /// The family of a line of text whose metric has that name: one that there is, or a new one.
    func family(ofMetric name: UnsafeRawBufferPointer) -> Int {
        let hash = self.hash.hash(name)
        if let index = index(of: name, hash) { return index }
        if let suffix = MetricSuffix(name), let index = index(of: suffix.root),
            suffix.belongs(to: drafts[index].kind)
        {
            return index
        }
        return add(name, hash)
    }

    /// A new family, in place of one of that name where there is one.
    func replaceFamily(_ name: UnsafeRawBufferPointer) -> Int {
        let hash = self.hash.hash(name)
        guard let index = index(of: name, hash) else { return add(name, hash) }
        serials += 1
        drafts[index] = FamilyDraft(name: name, hash: hash, serial: serials)
        return index
    }

    private func add(_ name: UnsafeRawBufferPointer, _ hash: UInt64) -> Int {
        serials += 1
        indices.add(hash, drafts.count)
        drafts.append(FamilyDraft(name: name, hash: hash, serial: serials))
        return drafts.count - 1
    }

    @inline(__always)
    func set(_ kind: FamilyKind, of family: Int) {
        drafts[family].kind = kind
    }

    func set(help: UnsafeRawBufferPointer?, isEscaped: Bool = false, of family: Int) {
        drafts[family].help = help
        drafts[family].isHelpEscaped = isEscaped
    }

    /// A family has a sample in text: without a type it is untyped.
    @inline(__always)
    func kindOfSample(of family: Int) -> FamilyKind {
        let draft = drafts.pointer(to: family)
        if let kind = draft.pointee.kind { return kind }
        draft.pointee.kind = .untyped
        return .untyped
    }

    // MARK: Series

    /// - Returns: whether a histogram's or summary's metric is one that has not been there.
    @inline(__always)
    func addMetric(_ hash: Int, to family: Int) -> Bool {
        let draft = drafts.pointer(to: family)
        guard draft.pointee.begin(metric: hash) else { return false }
        return seen.insert(draft.pointee.place(hash, isMetric: true))
    }

    /// - Returns: whether none of the family's series has the same labels.
    @inline(__always)
    func add(_ added: (hash: Int, allNames: UInt64), to family: Int) -> Bool {
        let draft = drafts.pointer(to: family)
        if draft.pointee.isReplaced { return true }
        let (index, count) = (series.count, draft.pointee.seriesCount)
        series.append(Series(hash: added.hash, allNames: added.allNames))
        var isNew = true
        if count == 0 {
            draft.pointee.firstSeries = index
        } else {
            series[draft.pointee.lastSeries].next = index
            if count == 1 {
                _ = seen.insert(draft.pointee.place(series[draft.pointee.firstSeries].hash, isMetric: false))
            }
            isNew = seen.insert(draft.pointee.place(added.hash, isMetric: false))
        }
        draft.pointee.lastSeries = index
        draft.pointee.seriesCount = count &+ 1
        let shape = draft.pointee.presentShape
        if shape < 0 || shapes[shape].allNames != added.allNames { note(added.allNames, of: family) }
        return isNew
    }

    /// Notes a shape, unless it is among the first ones.
    @inline(never)
    private func note(_ allNames: UInt64, of family: Int) {
        var index = drafts[family].firstShape
        for _ in 0..<BodyFamilies.fewShapes where index >= 0 {
            if shapes[index].allNames == allNames {
                drafts[family].presentShape = index
                return
            }
            index = shapes[index].next
        }
        let (added, last) = (shapes.count, drafts[family].lastShape)
        shapes.append(Shape(allNames: allNames))
        if last >= 0 { shapes[last].next = added } else { drafts[family].firstShape = added }
        drafts[family].lastShape = added
        drafts[family].presentShape = added
    }

    private static let fewShapes = 8

    // MARK: Rules

    /// Notes a rule that a family breaks; the first one counts.
    ///
    /// - Parameters:
    ///   - what: what it has or is, as it follows the family's name in a sentence.
    ///   - rule: what a Pushgateway wants.
    func refuse(
        _ family: Int,
        _ reason: RefusalReason,
        at offset: Int,
        _ what: @autoclosure () -> String,
        _ rule: @autoclosure () -> String
    ) {
        let draft = drafts[family]
        guard !draft.isRefused else { return }
        let line = "family \"\(printable(draft.name))\" \(what()) at byte \(offset) of the body: \(rule())"
        refusals[draft.serial] = PushRefusal(reason: reason, line: line)
        drafts[family].isRefused = true
    }

    func refuseTimestamp(_ family: Int, at offset: Int) {
        refuse(family, .timestamp, at: offset, "has a timestamp", "a Pushgateway takes none")
    }

    func refuseLabel(_ family: Int, _ label: UnsafeRawBufferPointer, at offset: Int) {
        if drafts[family].isReplaced { return }
        let rule = "a name has letters, digits and _, no digit in front, and does not begin with __"
        refuse(family, .metricLabel, at: offset, "has a label \"\(printable(label))\"", rule)
    }

    func refuseEqual(_ family: Int, at offset: Int) {
        let rule = "their labels are the same once those of the grouping key are set"
        refuse(family, .seriesTwice, at: offset, "has two equal series, one", rule)
    }

    /// The rule that the whole body breaks by itself or with its key; nil where there is none.
    func refusal() -> PushRefusal? {
        if !key.isUTF8 {
            return PushRefusal(reason: .keyNotUTF8, line: "a value in the grouping key is not UTF-8")
        }
        for draft in drafts.elements {
            if draft.isRefused, let refusal = refusals[draft.serial] { return refusal }
            if let refusal = refusalByOthers(draft) { return refusal }
        }
        return nil
    }

    /// The rules for which the key or other families of the body count.
    @inline(__always)
    private func refusalByOthers(_ draft: FamilyDraft) -> PushRefusal? {
        guard isStored(draft) else { return nil }
        if key.hasQuantile, draft.kind == .summary, draft.seriesCount > 0 {
            let line =
                "family \"\(printable(draft.name))\" is a summary: "
                + "the grouping key brings it a label \"quantile\", which is its own"
            return PushRefusal(reason: .metricLabel, line: line)
        }
        guard let suffix = MetricSuffix(draft.name), let index = index(of: suffix.root) else { return nil }
        let root = drafts[index]
        guard isStored(root), let kind = root.kind, suffix.belongs(to: kind) else { return nil }
        let other = "family \"\(printable(root.name))\" of the same body"
        let line =
            "family \"\(printable(draft.name))\" has the name of a series of \(other), which is a \(kind.word)"
        return PushRefusal(reason: .familySuffix, line: line)
    }

    // MARK: What is stored

    /// Whether a Pushgateway keeps the family.
    @inline(__always)
    func isStored(_ draft: FamilyDraft) -> Bool {
        !draft.isReplaced && (keepsEmpty || draft.seriesCount > 0)
    }

    /// Calls `body` with each of a family's shapes, some perhaps several times, until it returns false.
    ///
    /// - Returns: whether it has not.
    @inline(__always)
    func allShapes(_ draft: FamilyDraft, satisfy body: (SeriesShape) -> Bool) -> Bool {
        var index = draft.firstShape
        while index >= 0 {
            let shape = shapes[index]
            guard body(SeriesShape(keyNames: key.shape, allNames: shape.allNames)) else { return false }
            index = shape.next
        }
        return true
    }

    /// What outlives the body.
    func pushed() -> [PushedFamily] {
        var families: [PushedFamily] = []
        for draft in drafts.elements where isStored(draft) {
            // Text has set the kind with the first sample, and a message always has one.
            guard let kind = draft.kind else { continue }
            families.append(
                PushedFamily(name: Array(draft.name), kind: kind, help: help(of: draft), series: pushedSeries(draft))
            )
        }
        return families
    }

    private func pushedSeries(_ draft: FamilyDraft) -> [PushedSeries] {
        var found: [PushedSeries] = []
        found.reserveCapacity(draft.seriesCount)
        var index = draft.firstSeries
        while index >= 0 {
            let one = series[index]
            let shape = SeriesShape(keyNames: key.shape, allNames: one.allNames)
            found.append(PushedSeries(shape: shape, hash: one.hash))
            index = one.next
        }
        return found
    }

    private func help(of draft: FamilyDraft) -> [UInt8]? {
        guard let help = draft.help else { return nil }
        guard draft.isHelpEscaped else { return Array(help) }
        var text: [UInt8] = []
        TextEscapes.undo(help, areQuotesEscaped: false) { text.append($0) }
        return text
    }
}
