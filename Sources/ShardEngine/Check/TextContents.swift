// What a body in the text format would store. It goes by the parser of Pushgateway 1.5 state by state, as what that takes
// decides: https://github.com/prometheus/common/blob/v0.39.0/expfmt/text_parse.go. TextReader, which the guard uses, is for
// all versions and does not tell where a line is wrong.

final class TextContents {
    private let families: BodyFamilies
    private let columns: LabelColumns
    private let hash = KeyedHash.ofProcess
    /// For values without their escapes.
    private let buffer = TextBuffer()
    /// Where the present line begins.
    private var line = 0
    /// The name of the last line that had one, and the family that it belongs to.
    private var lastName = UnsafeRawBufferPointer(start: nil, count: 0)
    private var lastFamily = 0

    init(_ families: BodyFamilies, _ columns: LabelColumns) {
        self.families = families
        self.columns = columns
    }

    /// - Returns: false where no Pushgateway takes the body; so do all that follow.
    func read(_ body: UnsafeRawBufferPointer) -> Bool {
        let end = (body.lastIndex(of: TextCursor.lineFeed) ?? -1) + 1
        // Behind the last line feed Pushgateway takes only blanks.
        guard body[end...].allSatisfy(TextCursor.isBlank), let base = body.baseAddress else { return body.isEmpty }
        lastName = UnsafeRawBufferPointer(start: nil, count: 0)
        var cursor = TextCursor(base: base, end: end)
        while cursor.offset < end {
            cursor.skipBlanks()
            line = cursor.offset
            switch cursor.byte {
            case TextCursor.lineFeed: cursor.offset &+= 1
            case UInt8(ascii: "#"): guard readComment(&cursor) else { return false }
            default: guard readSample(&cursor) else { return false }
            }
        }
        return true
    }

    // MARK: Families

    /// Takes the name of a metric, and tells the family that it belongs to: a new one where there is none; nil where there is no
    /// name. A name's family stays the same.
    @inline(__always)
    private func takeFamily(_ cursor: inout TextCursor) -> Int? {
        // Most lines have the name of the line before.
        let count = lastName.count
        if let last = lastName.baseAddress, cursor.isNext(last, count),
            !TextCursor.isPartOfName(cursor.byte(ahead: count))
        {
            cursor.offset &+= count
            return lastFamily
        }
        let name = cursor.takeName(withColons: true)
        return name.isEmpty ? nil : family(name)
    }

    private func family(_ name: UnsafeRawBufferPointer) -> Int {
        lastFamily = families.family(ofMetric: name)
        lastName = name
        return lastFamily
    }

    // MARK: Comments

    @inline(never)
    private func readComment(_ cursor: inout TextCursor) -> Bool {
        cursor.offset &+= 1
        cursor.skipBlanks()
        let keyword = cursor.takeWord()
        guard cursor.byte != TextCursor.lineFeed else { return cursor.endLine() }
        let isType = equals(keyword, "TYPE")
        guard isType || equals(keyword, "HELP") else {
            _ = cursor.takeLine()
            return cursor.endLine()
        }
        cursor.skipBlanks()
        let name = cursor.takeName(withColons: true)
        guard cursor.byte != TextCursor.lineFeed else { return cursor.endLine() }
        guard !name.isEmpty, TextCursor.isBlank(cursor.byte) else { return false }
        let family = family(name)
        cursor.skipBlanks()
        guard cursor.byte != TextCursor.lineFeed else { return cursor.endLine() }
        guard isType ? setKind(cursor.takeLine(), of: family) : setHelp(cursor.takeLine(), of: family) else {
            return false
        }
        return cursor.endLine()
    }

    private func setKind(_ word: UnsafeRawBufferPointer, of family: Int) -> Bool {
        guard families.drafts[family].kind == nil, let kind = TextContents.kind(word) else { return false }
        families.set(kind, of: family)
        return true
    }

    /// The kind that a word names; nil for `gauge_histogram`, too, which the guard does not let through.
    private static func kind(_ word: UnsafeRawBufferPointer) -> FamilyKind? {
        // As clients write it, and then as Pushgateway takes it as well.
        kind { equals(word, $0) } ?? kind { BodyJudge.isType(word, $0) }
    }

    @inline(__always)
    private static func kind(_ isNamed: (StaticString) -> Bool) -> FamilyKind? {
        if isNamed("gauge") { return .gauge }
        if isNamed("counter") { return .counter }
        if isNamed("histogram") { return .histogram }
        if isNamed("summary") { return .summary }
        return isNamed("untyped") ? .untyped : nil
    }

    private func setHelp(_ text: UnsafeRawBufferPointer, of family: Int) -> Bool {
        guard families.drafts[family].help == nil else { return false }
        let isEscaped = index(of: UInt8(ascii: "\\"), in: text) != nil
        guard !isEscaped || TextEscapes.undo(text, areQuotesEscaped: false) else { return false }
        families.set(help: text, isEscaped: isEscaped, of: family)
        return true
    }

    // MARK: Samples

    @inline(__always)
    private func readSample(_ cursor: inout TextCursor) -> Bool {
        guard let family = takeFamily(&cursor) else { return false }
        let kind = families.kindOfSample(of: family)
        let isPartOfMetric = kind == .summary || kind == .histogram
        cursor.skipBlanks()
        var sum = families.key.series
        var ownHash = 0
        if cursor.byte == UInt8(ascii: "{") {
            guard readLabels(&cursor, of: family, isPartOfMetric ? kind : nil, &sum, &ownHash) else { return false }
        }
        if !isPartOfMetric || families.addMetric(ownHash, to: family) {
            if !families.add(sum.series(of: families.key), to: family) { families.refuseEqual(family, at: line) }
        }
        return cursor.takePlainValue() || readValue(&cursor, of: family)
    }

    @inline(never)
    private func readValue(_ cursor: inout TextCursor, of family: Int) -> Bool {
        guard GoNumber.isFloat(cursor.takeWord()) else { return false }
        guard cursor.byte != TextCursor.lineFeed else { return cursor.endLine() }
        cursor.skipBlanks()
        // Not even a blank may follow a timestamp.
        guard GoNumber.isInteger(cursor.takeWord()), cursor.byte == TextCursor.lineFeed else { return false }
        families.refuseTimestamp(family, at: line)
        return cursor.endLine()
    }

    /// - Parameters:
    ///   - kind: of a summary or histogram.
    ///   - sum: of the series.
    ///   - ownHash: of the labels in the body by which a summary or histogram tells its metrics apart.
    @inline(__always)
    private func readLabels(
        _ cursor: inout TextCursor,
        of family: Int,
        _ kind: FamilyKind?,
        _ sum: inout SeriesSum,
        _ ownHash: inout Int
    ) -> Bool {
        columns.beginSeries()
        while true {
            // The brace, or the comma before a label.
            cursor.offset &+= 1
            cursor.skipBlanks()
            if cursor.byte == UInt8(ascii: "}") { break }
            // Most series have the labels of the one before.
            guard let column = columns.takeNext(&cursor) ?? newColumn(&cursor, kind) else { return false }
            cursor.skipBlanks()
            guard cursor.byte == UInt8(ascii: "=") else { return false }
            cursor.offset &+= 1
            cursor.skipBlanks()
            guard cursor.byte == UInt8(ascii: "\""),
                let value = cursor.takePlainLabel() ?? takeEscapedLabel(&cursor)
            else { return false }
            if kind != nil, column.pointee.isPart(of: kind) {
                guard GoNumber.isFloat(value) else { return false }
            } else {
                if !column.pointee.isValid { families.refuseLabel(family, column.pointee.name, at: line) }
                // The key's value takes the place of this one, but not before the parser has told metrics apart.
                if kind != nil || !column.pointee.isOfKey {
                    let part = column.pointee.hash(value, hash)
                    ownHash &+= part
                    column.pointee.add(part, isEmpty: value.isEmpty, to: &sum)
                }
            }
            cursor.skipBlanks()
            if cursor.byte == UInt8(ascii: "}") { break }
            guard cursor.byte == UInt8(ascii: ",") else { return false }
        }
        cursor.offset &+= 1
        cursor.skipBlanks()
        return true
    }

    /// Takes the name of a label that the series before has not had in this place; nil where it is not right.
    @inline(never)
    private func newColumn(_ cursor: inout TextCursor, _ kind: FamilyKind?) -> UnsafePointer<LabelColumns.Column>? {
        let name = cursor.takeName(withColons: false)
        return name.isEmpty || equals(name, "__name__") ? nil : columns.next(name, of: kind)
    }

    @inline(never)
    private func takeEscapedLabel(_ cursor: inout TextCursor) -> UnsafeRawBufferPointer? {
        cursor.offset &+= 1
        let start = cursor.offset
        while cursor.byte != UInt8(ascii: "\"") {
            if cursor.byte == UInt8(ascii: "\\") { cursor.offset &+= 1 }
            guard cursor.byte != TextCursor.lineFeed else { return nil }
            cursor.offset &+= 1
        }
        let text = cursor.bytes(from: start)
        cursor.offset &+= 1
        guard isUTF8(text) else { return nil }
        return buffer.fill { append in TextEscapes.undo(text, areQuotesEscaped: true, append) }
    }
}
