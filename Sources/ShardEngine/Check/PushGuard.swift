// Judges the bodies of pushes: refuses those after which a shard would fail other clients' pushes or its own scrapes, even
// though it takes them. A worker's push handler owns one and asks it before a push is forwarded. It does no I/O.
//
// What is refused was tried on Pushgateway 1.5.1 and 1.11; docs/PUSHGATEWAY.md has the table. A version that takes harm
// may be on the ring, so a push is refused that harms any of them.

/// The guard of one worker; loop-confined.
final class PushGuard {
    /// Bytes that a compressed body may have when it is inflated.
    var inflatedLimit = 64 << 20
    private let inflater = GzipInflater()
    private let parser = GroupingKeyParser(key: .group)
    private var inflated = ByteBuffer(capacity: 0)
    /// What the push has in it that was read last.
    let reader = ContentsReader()

    init() {}

    /// Judges a body.
    ///
    /// - Parameters:
    ///   - path: the request's target without its query, as what a key has counts as well.
    ///   - type: the first Content-Type header, nil without one.
    ///   - coding: the first Content-Encoding header, nil without one.
    /// - Returns: nil when the push may be forwarded.
    @inline(__always)
    func judge(
        _ body: UnsafeRawBufferPointer,
        path: UnsafeRawBufferPointer,
        type: UnsafeRawBufferPointer?,
        coding: UnsafeRawBufferPointer?
    ) -> PushRefusal? {
        let format = BodyFormat(contentType: type)
        guard let coding else { return judgePlain(body, path, format, isOneOfSeveral: format == .either) }
        return judgeCoded(body, path, format, coding)
    }

    /// - Parameter isOneOfSeveral: whether some versions of Pushgateway read the body otherwise, so that it need not be
    ///   good in this reading: it is enough that a shard which reads it so refuses it or takes no harm.
    private func judgePlain(
        _ body: UnsafeRawBufferPointer,
        _ path: UnsafeRawBufferPointer,
        _ format: BodyFormat,
        isOneOfSeveral: Bool
    ) -> PushRefusal? {
        var judge = BodyJudge(isOneOfSeveral: isOneOfSeveral)
        if format != .protobuf {
            TextReader.read(body, &judge)
            judgeKey(path, &judge)
        }
        if format == .text || judge.refusal != nil { return judge.refusal }
        guard ProtobufReader.read(body, &judge) else { return nil }
        judgeKey(path, &judge)
        return judge.refusal
    }

    @inline(__always)
    private func judgeKey(_ path: UnsafeRawBufferPointer, _ judge: inout BodyJudge) {
        guard judge.refusal == nil, judge.dependsOnKey(path) else { return }
        judge.judgeLabels(ofKey: parser.labels(path: path).map { Array($0.keys) } ?? [])
    }

    /// Pushgateway 1.5 inflates what is named `gzip` and reads all else as it came; 1.11 inflates gzip and snappy in any
    /// case of letters. What they read differently is judged as each of them reads it.
    private func judgeCoded(
        _ body: UnsafeRawBufferPointer,
        _ path: UnsafeRawBufferPointer,
        _ format: BodyFormat,
        _ coding: UnsafeRawBufferPointer
    ) -> PushRefusal? {
        let isGzip = equalsIgnoringCase(coding, "gzip")
        let isSnappy = equalsIgnoringCase(coding, "snappy")
        if !equals(coding, "gzip") {
            let isOneOfSeveral = isGzip || isSnappy || format == .either
            if let refusal = judgePlain(body, path, format, isOneOfSeveral: isOneOfSeveral) { return refusal }
        }
        guard isGzip || isSnappy else { return nil }
        defer { inflated.reset(keeping: PushGuard.keptCapacity) }
        inflated.reset(keeping: PushGuard.keptCapacity)
        let outcome =
            isGzip
            ? inflater.inflate(body, into: &inflated, limit: inflatedLimit)
            : SnappyFrames.inflate(body, into: &inflated, limit: inflatedLimit)
        // A shard may take what came before the damage.
        let isOneOfSeveral = !equals(coding, "gzip") || format == .either
        if let refusal = judgePlain(inflated.readable, path, format, isOneOfSeveral: isOneOfSeveral) { return refusal }
        switch outcome {
        case .whole: return nil
        case .damaged:
            let line = "the body's \(printable(coding)) is damaged: it cannot be inflated"
            return PushRefusal(reason: .damaged, line: line)
        case .tooLarge:
            let line = "the body is larger than \(inflatedLimit) bytes when it is inflated"
            return PushRefusal(reason: .tooLarge, status: 413, line: line)
        }
    }

    /// Reads what a push would store that has been judged good; what `reader` then has refers to body and path.
    func read(
        _ body: UnsafeRawBufferPointer,
        path: UnsafeRawBufferPointer,
        type: UnsafeRawBufferPointer?
    ) -> ContentsReader.Outcome {
        let format = BodyFormat(contentType: type)
        readKey(path)
        guard format != .either else {
            reader.clear()
            return .unreadable
        }
        return reader.read(body, isProtobuf: format == .protobuf)
    }

    /// Reads the key of a push that has no body.
    func readKey(_ path: UnsafeRawBufferPointer) {
        reader.clear()
        reader.key.removeAll()
        parser.forEachLabel(path: path) { name, value in reader.key.add(name, value) }
    }

    /// Reads what a push would store that has been judged good, to be kept when body and path are gone.
    func contents(
        _ body: UnsafeRawBufferPointer,
        path: UnsafeRawBufferPointer,
        type: UnsafeRawBufferPointer?,
        coding: UnsafeRawBufferPointer?
    ) -> PushContents {
        guard let coding else { return PushContents(read(body, path: path, type: type), reader.families) }
        defer { inflated.reset(keeping: PushGuard.keptCapacity) }
        inflated.reset(keeping: PushGuard.keptCapacity)
        let outcome: InflationOutcome
        if equals(coding, "gzip") {
            outcome = inflater.inflate(body, into: &inflated, limit: inflatedLimit)
        } else if equals(coding, "snappy") {
            outcome = SnappyFrames.inflate(body, into: &inflated, limit: inflatedLimit)
        } else {
            return .unreadable
        }
        guard case .whole = outcome else { return .unreadable }
        return PushContents(read(inflated.readable, path: path, type: type), reader.families)
    }

    /// What is kept of the memory that a body was inflated into.
    private static let keptCapacity = 256 << 10
}

/// How inflating a body ended.
enum InflationOutcome: Equatable {
    /// All is there that any Pushgateway would read.
    case whole
    /// What inflates bodies for Pushgateway might go on where this does not.
    case damaged
    case tooLarge
}

/// Looks for what harms shards while a reader goes through a body.
struct BodyJudge: ~Copyable {
    private(set) var refusal: PushRefusal?
    /// Whether the body may be meant to be read otherwise.
    private let isOneOfSeveral: Bool
    // Of the metrics of the present message:
    private var kinds: MetricKinds = []
    private var hasMixedKinds = false
    private var hasLabels = false
    private var hasLabelLE = false
    private var names = LabelNames()
    private var badLabel: UnsafeRawBufferPointer?
    private var clashingLabel: [UInt8]?
    private var hasHistogramThatCannotBeListed = false
    // Of the whole body:
    private var firstHistogram: (family: UnsafeRawBufferPointer, offset: Int)?
    private var isFailureTimeGauge = false
    /// Where the message ends up to which a body that is refused is read on: a shard may refuse it as a whole for what comes.
    private var end: Int?

    init(isOneOfSeveral: Bool) {
        self.isOneOfSeveral = isOneOfSeveral
    }

    /// - Returns: false, so that the reader stops.
    private mutating func refuse(_ reason: RefusalReason, _ line: String) -> Bool {
        // The first one that is found counts.
        if refusal == nil { refusal = PushRefusal(reason: reason, line: line) }
        return false
    }

    private mutating func refuse(_ kept: KeptFamily, _ name: UnsafeRawBufferPointer, at offset: Int) -> Bool {
        let shown = TextReader.withName(name) { printable($0) }
        let family = "family \"\(shown)\" at byte \(offset) of the body"
        switch kept {
        case .mark:
            let why = "shardd keeps families that begin with shardd_store_ or shardd_void_ for itself"
            return refuse(.reserved, "\(family): \(why)")
        case .failureTime:
            let why = "a Pushgateway keeps it for itself, as a gauge without labels: pushes of others would fail"
            return refuse(.reserved, "\(family): \(why)")
        case .fieldOfListing:
            return refuse(.familyName, "\(family): it takes the place of its group's \(shown) in /api/v1/metrics")
        }
    }

    // MARK: With the key

    /// Whether what the key has may decide.
    @inline(__always)
    func dependsOnKey(_ path: UnsafeRawBufferPointer) -> Bool {
        firstHistogram != nil && BodyJudge.mayHaveLabelLE(path) || !names.odd.isEmpty
    }

    /// Most paths have no label that could be `le`, in whatever way it is written.
    @inline(never)
    private static func mayHaveLabelLE(_ path: UnsafeRawBufferPointer) -> Bool {
        path.indices.contains { offset in
            path[offset] == UInt8(ascii: "%") || begins(path, at: offset, with: "/le/")
                || begins(path, at: offset, with: "/le@") || begins(path, at: offset, with: "/U__")
        }
    }

    mutating func judgeLabels(ofKey keyLabels: [[UInt8]]) {
        if let firstHistogram, keyLabels.contains(where: { $0.elementsEqual("le".utf8) }) {
            let what = "family \"\(printable(firstHistogram.family))\" at byte \(firstHistogram.offset) of the body"
            _ = refuse(.metricLabel, "\(what): a label \"le\" of its grouping key makes two of that name in a scrape")
            return
        }
        let escaped = keyLabels.map { $0.withUnsafeBytes { LabelNames.escaped($0) } }
        let clashing = names.odd.first { odd in
            zip(keyLabels, escaped).contains { $0 != odd.name && $1 == odd.escaped }
        }
        if let clashing { _ = refuse(.metricLabel, BodyJudge.clash(clashing.name)) }
    }

    private static func clash(_ name: [UInt8]) -> String {
        let why = "in a scrape, where _ takes the place of other characters, two labels have one name"
        return "label \"\(printable(name))\" of a metric: \(why)"
    }
}

// MARK: - Text

extension BodyJudge: TextVisitor {
    @inline(__always)
    mutating func sampleLine(_ line: TextLine, name: UnsafeRawBufferPointer) -> Bool {
        if KeptFamily.mayBe(name), isRefusedSample(line, name) { return false }
        return line.isASCII || isTakenOrRefused(line)
    }

    mutating func quotedSampleLine(_ line: TextLine, name: UnsafeRawBufferPointer) -> Bool {
        !isRefusedSample(line, name) && (line.isASCII || isTakenOrRefused(line))
    }

    @inline(never)
    private mutating func isRefusedSample(_ line: TextLine, _ name: UnsafeRawBufferPointer) -> Bool {
        guard let kept = KeptFamily.of(name), !mayPush(kept, line, name) else { return false }
        _ = refuse(kept, name, at: line.offset)
        return true
    }

    /// Whether a sample of it does no harm.
    private func mayPush(_ kept: KeptFamily, _ line: TextLine, _ name: UnsafeRawBufferPointer) -> Bool {
        guard case .failureTime = kept, isFailureTimeGauge, line.bytes.first != UInt8(ascii: "{") else { return false }
        let rest = name[TextReader.nameEnd(name, from: 0)...].drop { $0 == 0x20 || $0 == 0x09 }
        guard rest.first == UInt8(ascii: "{") else { return true }
        return rest.dropFirst().first { $0 != 0x20 && $0 != 0x09 && $0 != UInt8(ascii: ",") } == UInt8(ascii: "}")
    }

    @inline(__always)
    mutating func typeLine(_ line: TextLine, family: UnsafeRawBufferPointer) -> Bool {
        if KeptFamily.mayBe(family) || family.first == UInt8(ascii: "\""), isRefusedType(line, family) { return false }
        // Of all types only histograms end like it; a backslash at the end means nothing.
        switch family.last {
        case UInt8(ascii: "m"), UInt8(ascii: "M"), UInt8(ascii: "\\"):
            if !isGoodHistogram(line, family) { return false }
        default: break
        }
        return line.isASCII || isTakenOrRefused(line)
    }

    @inline(never)
    private mutating func isRefusedType(_ line: TextLine, _ family: UnsafeRawBufferPointer) -> Bool {
        guard let kept = KeptFamily.of(family) else { return false }
        isFailureTimeGauge = BodyJudge.isType(TextReader.typeParts(family).word, "gauge")
        if kept == .failureTime, isFailureTimeGauge { return false }
        _ = refuse(kept, family, at: line.offset)
        return true
    }

    @inline(__always)
    mutating func helpLine(_ line: TextLine, family: UnsafeRawBufferPointer) -> Bool {
        if KeptFamily.mayBe(family) || family.first == UInt8(ascii: "\""), KeptFamily.of(family) == .mark {
            return refuse(.mark, family, at: line.offset)
        }
        return line.isASCII || isValid(line)
    }

    /// A sample or a type that is not UTF-8 does no harm, as every Pushgateway refuses it; but it is no text either.
    private mutating func isTakenOrRefused(_ line: TextLine) -> Bool {
        isOneOfSeveral ? isUTF8(line.bytes) : isValid(line)
    }

    private mutating func isValid(_ line: TextLine) -> Bool {
        if isUTF8(line.bytes) { return true }
        let what = printable(line.bytes.prefix(60))
        return refuse(.bodyNotUTF8, "the line at byte \(line.offset) of the body, \(what), is not UTF-8")
    }

    /// Notes a histogram, and refuses a `gauge_histogram`.
    private mutating func isGoodHistogram(_ line: TextLine, _ rest: UnsafeRawBufferPointer) -> Bool {
        let (family, word) = TextReader.typeParts(rest)
        let isGauge = BodyJudge.isType(word, "gauge_histogram")
        guard isGauge || firstHistogram == nil && BodyJudge.isType(word, "histogram") else { return true }
        guard isGauge else {
            firstHistogram = (family, line.offset)
            return true
        }
        let reason = "the type gauge_histogram ends every scrape of the shard at this family"
        return refuse(.familyType, "family \"\(printable(family))\" at byte \(line.offset) of the body: \(reason)")
    }

    /// Whether Pushgateway's parser makes the type of it: it drops backslashes and then asks for capitals, which two letters
    /// beyond ASCII have in ASCII, the dotless i and the long s.
    static func isType(_ word: UnsafeRawBufferPointer, _ type: StaticString) -> Bool {
        guard word.count >= type.utf8CodeUnitCount else { return false }
        if equals(word, type) { return true }
        var letters: [UInt8] = []
        var offset = 0
        while offset < word.count {
            let pair = offset + 1 < word.count ? (word[offset], word[offset + 1]) : (word[offset], 0)
            switch pair {
            case (UInt8(ascii: "\\"), _): break
            case (0xC4, 0xB1): letters.append(UInt8(ascii: "i"))
            case (0xC5, 0xBF): letters.append(UInt8(ascii: "s"))
            default: letters.append(asciiLowercase(word[offset]))
            }
            offset += word[offset] >= 0x80 ? 2 : 1
        }
        return letters.withUnsafeBytes { equals($0, type) }
    }
}

// MARK: - Protobuf

extension BodyJudge: FamilyVisitor {
    mutating func label(name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer) {
        hasLabels = true
        names.add(name)
        if equals(name, "le") { hasLabelLE = true }
        if badLabel == nil, !isUTF8(name) || !isUTF8(value) { badLabel = name }
    }

    mutating func metric(_ found: MetricKinds) {
        clashingLabel = names.endMetric() ?? clashingLabel
        if found.rawValue.nonzeroBitCount != 1 || !kinds.isEmpty && kinds != found { hasMixedKinds = true }
        kinds.formUnion(found)
    }

    mutating func histogram(_ message: UnsafeRawBufferPointer) {
        if !NativeHistogram.canBeListed(message) { hasHistogramThatCannotBeListed = true }
    }

    mutating func family(_ family: FamilyMessage) -> Int? {
        if refusal == nil { judge(family) }
        if refusal != nil, end == nil { end = family.offset + BodyJudge.mostReadOn }
        defer { hasHistogramThatCannotBeListed = false }
        kinds = []
        hasMixedKinds = false
        (hasLabels, hasLabelLE) = (false, false)
        (badLabel, clashingLabel) = (nil, nil)
        return end
    }

    private static let mostReadOn = 1 << 20

    mutating func cutShort(_ length: UInt64, at offset: Int) {
        guard length >= BodyJudge.hugeLength else { return }
        let why = "a Pushgateway of version 1.5 takes memory for all of a message before it has read it"
        _ = refuse(.damaged, "the message at byte \(offset) of the body is said to have \(length) bytes: \(why)")
    }

    /// Far beyond what a client that is cut off has meant to send.
    private static let hugeLength: UInt64 = 16 << 20

    /// - Returns: whether it is good.
    @discardableResult
    private mutating func judge(_ family: FamilyMessage) -> Bool {
        if KeptFamily.mayBe(family.name), let kept = KeptFamily.of(family.name) {
            let isOwnTime = kept == .failureTime && family.type == 1 && !hasLabels
            if !isOwnTime { return refuse(kept, family.name, at: family.offset) }
        }
        if !BodyJudge.isClassicName(family.name) {
            return refuse(.familyName, family, "its name is not one that the text format can carry")
        }
        if !isUTF8(family.help) { return refuse(.bodyNotUTF8, family, "its HELP is not UTF-8") }
        guard let kind = BodyJudge.kind(ofType: family.type) else {
            let why = "its type, \(family.type), is none that a Pushgateway can tell in a scrape"
            return refuse(.familyType, family, why)
        }
        if family.metricCount == 0 { return refuse(.familyEmpty, family, "it has no metrics") }
        if hasMixedKinds || kinds != kind {
            return refuse(.metricKind, family, "a metric has not just the one kind of value that the type says")
        }
        if let badLabel {
            return refuse(.metricLabel, family, "label \"\(printable(badLabel))\" or its value is not UTF-8")
        }
        if let clashingLabel { return refuse(.metricLabel, family, BodyJudge.clash(clashingLabel)) }
        if kind == .histogram, firstHistogram == nil {
            firstHistogram = (family.name, family.offset)
        }
        if hasHistogramThatCannotBeListed {
            return refuse(.histogram, family, "a native histogram has not all the buckets that its spans are of")
        }
        if hasLabelLE, kind == .histogram {
            return refuse(.metricLabel, family, "a histogram's own label \"le\" makes two of that name in a scrape")
        }
        return true
    }

    private mutating func refuse(_ reason: RefusalReason, _ family: FamilyMessage, _ why: String) -> Bool {
        refuse(reason, "family \"\(printable(family.name))\" at byte \(family.offset) of the body: \(why)")
    }

    private static func kind(ofType type: Int32) -> MetricKinds? {
        switch type {
        case 0: .counter
        case 1: .gauge
        case 2: .summary
        case 3: .untyped
        case 4: .histogram
        default: nil
        }
    }

    /// Letters, digits, `_` and `:`, and no digit in front.
    private static func isClassicName(_ name: UnsafeRawBufferPointer) -> Bool {
        guard let first = name.first, first &- UInt8(ascii: "0") >= 10 else { return false }
        return name.allSatisfy { byte in
            (byte | 0x20) &- UInt8(ascii: "a") < 26 || byte &- UInt8(ascii: "0") < 10 || byte == UInt8(ascii: "_")
                || byte == UInt8(ascii: ":")
        }
    }
}
