// What a body in the text format would store. It goes by the parser of Pushgateway 1.5 state by state, as what that takes
// decides: https://github.com/prometheus/common/blob/v0.39.0/expfmt/text_parse.go. TextReader, which the guard uses, is for
// all versions and does not tell where a line is wrong.

struct TextContents {
    private let body: UnsafeRawBufferPointer
    /// Behind the last line feed. No part of a line goes beyond a line feed, so what stops at one needs no other bound.
    private let end: Int
    private var offset = 0
    /// Where the present line begins.
    private var line = 0
    private var families: BodyFamilies
    private var columns: LabelColumns
    /// The name of the last line that had one, and the family that it belongs to.
    private var last: (name: NameBytes, family: Int)?
    private var unescaped: [UInt8] = []

    private static let lineFeed: UInt8 = 0x0A

    init(_ body: UnsafeRawBufferPointer, _ key: KeyLabels) {
        self.body = body
        end = (body.lastIndex(of: TextContents.lineFeed) ?? -1) + 1
        families = BodyFamilies(key, keepsEmpty: false)
        columns = LabelColumns(key)
    }

    mutating func read() -> PushContents {
        while offset < end {
            skipBlanks()
            line = offset
            switch body[offset] {
            case TextContents.lineFeed: offset += 1
            case UInt8(ascii: "#"): guard readComment() else { return .unreadable }
            default: guard readSample() else { return .unreadable }
            }
        }
        // Behind the last line feed Pushgateway takes only blanks.
        guard body[end...].allSatisfy(TextContents.isBlank) else { return .unreadable }
        return families.contents()
    }

    // MARK: Families

    /// The family that a line belongs to by its name, a new one where there is none. A name's family stays the same.
    @inline(__always)
    private mutating func family(_ name: UnsafeRawBufferPointer) -> Int {
        if let last, last.name == NameBytes(name) { return last.family }
        let family = familyOfNewName(name)
        last = (NameBytes(name), family)
        return family
    }

    private mutating func familyOfNewName(_ name: UnsafeRawBufferPointer) -> Int {
        if let index = families.index(of: name) { return index }
        if let suffix = MetricSuffix(name), let index = families.index(of: suffix.root),
            suffix.belongs(to: families.drafts[index].kind)
        {
            return index
        }
        return families.set(FamilyDraft(name: name))
    }

    // MARK: Comments

    /// - Returns: false where no Pushgateway takes it; so do all that follow.
    private mutating func readComment() -> Bool {
        offset += 1
        skipBlanks()
        let keyword = takeWord()
        guard body[offset] != TextContents.lineFeed else { return endLine() }
        let isType = equals(keyword, "TYPE")
        guard isType || equals(keyword, "HELP") else {
            _ = takeLine()
            return endLine()
        }
        skipBlanks()
        let name = takeName(withColons: true)
        guard body[offset] != TextContents.lineFeed else { return endLine() }
        guard !name.isEmpty, TextContents.isBlank(body[offset]) else { return false }
        let family = family(name)
        skipBlanks()
        guard body[offset] != TextContents.lineFeed else { return endLine() }
        return isType ? readType(of: family) : readHelp(of: family)
    }

    private mutating func readType(of family: Int) -> Bool {
        guard families.drafts[family].kind == nil, let kind = TextContents.kind(takeLine()) else { return false }
        families.drafts[family].kind = kind
        return endLine()
    }

    /// The kind that a word names; nil for `gauge_histogram`, too, which the guard does not let through.
    private static func kind(_ word: UnsafeRawBufferPointer) -> FamilyKind? {
        if BodyJudge.isType(word, "gauge") { return .gauge }
        if BodyJudge.isType(word, "counter") { return .counter }
        if BodyJudge.isType(word, "histogram") { return .histogram }
        if BodyJudge.isType(word, "summary") { return .summary }
        return BodyJudge.isType(word, "untyped") ? .untyped : nil
    }

    private mutating func readHelp(of family: Int) -> Bool {
        guard families.drafts[family].help == nil else { return false }
        let text = takeLine()
        guard text.contains(UInt8(ascii: "\\")) else {
            families.drafts[family].help = Array(text)
            return endLine()
        }
        guard unescape(text, quotes: false) else { return false }
        families.drafts[family].help = unescaped
        return endLine()
    }

    // MARK: Samples

    private mutating func readSample() -> Bool {
        let name = takeName(withColons: true)
        guard !name.isEmpty else { return false }
        let family = family(name)
        let kind = families.drafts[family].kind ?? .untyped
        families.drafts[family].kind = kind
        skipBlanks()
        var sum = families.key.series
        var ownHash = 0
        if body[offset] == UInt8(ascii: "{") {
            guard readLabels(of: family, kind, &sum, &ownHash) else { return false }
        }
        let isNew = kind != .summary && kind != .histogram || families.drafts[family].addMetric(ownHash)
        if isNew, !families.drafts[family].isReplaced {
            let series = sum.series(of: families.key)
            if !families.drafts[family].add(series) { families.drafts[family].refuseEqual(at: line) }
        }
        return readValue(of: family)
    }

    private mutating func readValue(of family: Int) -> Bool {
        guard GoNumber.isFloat(takeWord()) else { return false }
        guard body[offset] != TextContents.lineFeed else { return endLine() }
        skipBlanks()
        // Not even a blank may follow a timestamp.
        guard GoNumber.isInteger(takeWord()), body[offset] == TextContents.lineFeed else { return false }
        families.drafts[family].refuseTimestamp(at: line)
        return endLine()
    }

    /// - Parameters:
    ///   - sum: of the series.
    ///   - ownHash: of the labels in the body by which a summary or histogram tells its metrics apart.
    private mutating func readLabels(
        of family: Int,
        _ kind: FamilyKind,
        _ sum: inout SeriesSum,
        _ ownHash: inout Int
    ) -> Bool {
        columns.beginSeries()
        while true {
            // The brace, or the comma before a label.
            offset += 1
            skipBlanks()
            if body[offset] == UInt8(ascii: "}") { break }
            let name = takeName(withColons: false)
            guard !name.isEmpty, !equals(name, "__name__") else { return false }
            skipBlanks()
            guard body[offset] == UInt8(ascii: "=") else { return false }
            offset += 1
            skipBlanks()
            guard body[offset] == UInt8(ascii: "\""), let value = takeValue() else { return false }
            guard addLabel(name, value, to: family, kind, &sum, &ownHash) else { return false }
            skipBlanks()
            if body[offset] == UInt8(ascii: "}") { break }
            guard body[offset] == UInt8(ascii: ",") else { return false }
        }
        offset += 1
        skipBlanks()
        return true
    }

    private mutating func addLabel(
        _ name: UnsafeRawBufferPointer,
        _ value: Value,
        to family: Int,
        _ kind: FamilyKind,
        _ sum: inout SeriesSum,
        _ ownHash: inout Int
    ) -> Bool {
        // These two are no labels, but tell which part of its metric the line is.
        if kind == .summary && equals(name, "quantile") || kind == .histogram && equals(name, "le") {
            return value.withBytes(GoNumber.isFloat)
        }
        guard let column = columns.next(name) else { return false }
        if !column.isValid, !families.drafts[family].isReplaced {
            families.drafts[family].refuseLabel(name, at: line)
        }
        // The key's value takes the place of this one, but not before the parser has told metrics apart.
        let isPartOfMetric = kind == .summary || kind == .histogram
        guard isPartOfMetric || !column.isOfKey else { return true }
        let hash = value.withBytes { SeriesHash.label(name, $0) }
        if isPartOfMetric { ownHash &+= hash }
        column.add(hash, isEmpty: value.isEmpty, to: &sum)
        return true
    }

    // MARK: Values of labels

    /// A label's value without escapes.
    private enum Value {
        case asItStands(UnsafeRawBufferPointer)
        case unescaped([UInt8])

        @inline(__always)
        func withBytes<Result>(_ use: (UnsafeRawBufferPointer) -> Result) -> Result {
            switch self {
            case .asItStands(let bytes): use(bytes)
            case .unescaped(let bytes): bytes.withUnsafeBytes(use)
            }
        }

        var isEmpty: Bool {
            switch self {
            case .asItStands(let bytes): bytes.isEmpty
            case .unescaped(let bytes): bytes.isEmpty
            }
        }
    }

    /// Takes what stands between two quotes, of which the first is the next byte; nil where it is not right.
    @inline(__always)
    private mutating func takeValue() -> Value? {
        offset += 1
        let start = offset
        var hasEscapes = false
        var bits: UInt8 = 0
        while body[offset] != UInt8(ascii: "\"") {
            if body[offset] == UInt8(ascii: "\\") {
                hasEscapes = true
                offset += 1
            }
            guard body[offset] != TextContents.lineFeed else { return nil }
            bits |= body[offset]
            offset += 1
        }
        let text = UnsafeRawBufferPointer(rebasing: body[start..<offset])
        offset += 1
        guard bits < 0x80 || isUTF8(text) else { return nil }
        guard hasEscapes else { return .asItStands(text) }
        return unescape(text, quotes: true) ? .unescaped(unescaped) : nil
    }

    /// Leaves the text without its escapes in `unescaped`.
    ///
    /// - Parameter quotes: whether quotes are escaped, too.
    /// - Returns: whether each escape is one that there is.
    private mutating func unescape(_ text: UnsafeRawBufferPointer, quotes: Bool) -> Bool {
        unescaped.removeAll(keepingCapacity: true)
        var isEscaped = false
        for byte in text {
            guard isEscaped || byte != UInt8(ascii: "\\") else {
                isEscaped = true
                continue
            }
            if isEscaped {
                switch byte {
                case UInt8(ascii: "n"):
                    unescaped.append(TextContents.lineFeed)
                    isEscaped = false
                    continue
                case UInt8(ascii: "\\"): break
                case UInt8(ascii: "\"") where quotes: break
                default: return false
                }
            }
            unescaped.append(byte)
            isEscaped = false
        }
        return !isEscaped
    }

    // MARK: Bytes

    /// Ends a line that has been read up to its line feed.
    private mutating func endLine() -> Bool {
        offset += 1
        return true
    }

    /// Takes what comes before the next blank or the line's end.
    @inline(__always)
    private mutating func takeWord() -> UnsafeRawBufferPointer {
        let start = offset
        while !TextContents.isBlank(body[offset]), body[offset] != TextContents.lineFeed { offset += 1 }
        return UnsafeRawBufferPointer(rebasing: body[start..<offset])
    }

    /// Takes what is left of the line.
    private mutating func takeLine() -> UnsafeRawBufferPointer {
        let start = offset
        while body[offset] != TextContents.lineFeed { offset += 1 }
        return UnsafeRawBufferPointer(rebasing: body[start..<offset])
    }

    /// Takes the name of a metric, which may have colons, or of a label; none where there is none.
    @inline(__always)
    private mutating func takeName(withColons: Bool) -> UnsafeRawBufferPointer {
        let start = offset
        guard body[start] &- UInt8(ascii: "0") >= 10 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
        while true {
            let byte = body[offset]
            let isPart =
                (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte &- UInt8(ascii: "0") < 10
                || byte == UInt8(ascii: "_") || withColons && byte == UInt8(ascii: ":")
            guard isPart else { break }
            offset += 1
        }
        return UnsafeRawBufferPointer(rebasing: body[start..<offset])
    }

    @inline(__always)
    private mutating func skipBlanks() {
        while TextContents.isBlank(body[offset]) { offset += 1 }
    }

    @inline(__always)
    private static func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
}
