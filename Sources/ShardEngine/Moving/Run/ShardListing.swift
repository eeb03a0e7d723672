// What a shard holds, read from its `/api/v1/metrics`: https://github.com/prometheus/pushgateway#query-api
// Store listings are made of it; the store marker and shardd cleanup look in it for groups of shardd's own.
import Glibc

/// All groups of one shard at one moment.
struct ShardListing: Sendable {
    /// How much is read of a group.
    enum Detail {
        /// When each family was pushed.
        case times
        /// All that can be pushed to another shard.
        case content
    }

    var groups: [GroupLabels: GroupCopy] = [:]
    /// Groups that cannot be told from others: families' names have taken the place of all that has their labels.
    private(set) var unreadable = 0
    /// The marks of the shard's store. Groups of shardd's own are not among `groups`: each is its store's, and never moves.
    private(set) var marks: Set<String> = []
    /// What groups of shardd's own are there, with the names of their families.
    private(set) var ownGroups: [GroupLabels: [String]] = [:]

    /// Nothing.
    init() {}

    /// Reads the body of an answer; nil when it is not what it should be.
    ///
    /// - Parameter detail: how much of a group is wanted.
    init?(_ body: UnsafeRawBufferPointer, detail: (GroupLabels) -> Detail) {
        var scanner = JSONScanner(body)
        var isSuccess = false
        scanner.object { scanner, name in
            switch name {
            case "status": isSuccess = scanner.string() == "success"
            case "data" where scanner.peek() == 0x5B: scanner.array { readGroup(&$0, detail) }
            default: scanner.skip()
            }
        }
        guard scanner.isAtEnd(), isSuccess else { return nil }
    }

    private mutating func readGroup(_ scanner: inout JSONScanner, _ detail: (GroupLabels) -> Detail) {
        // Names come in no order that helps: labels first, then all the rest from the start again.
        var start = scanner
        var pairs: [LabelPair] = []
        var isReadable = true
        scanner.object { scanner, name in
            guard name == "labels" else { return scanner.skip() }
            pairs = readLabels(&scanner, &isReadable)
        }
        let areHidden = !isReadable || !pairs.contains { $0.name == "job" }
        if areHidden {
            var again = start
            pairs = readHiddenLabels(&again)
        }
        let labels = GroupLabels(pairs)
        guard pairs.contains(where: { $0.name == "job" }) else {
            unreadable += 1
            return
        }
        if StoreMark.isOwn(labels) {
            if let mark = StoreMark.mark(of: labels) { marks.insert(mark) }
            start.object { scanner, name in
                ownGroups[labels, default: []].append(name)
                scanner.skip()
            }
            return
        }
        var reader = GroupReader(labels, detail(labels))
        reader.read(&start)
        if areHidden { reader.copy.obstacle = "a family's name is one that the listing has a use for" }
        groups[labels] = reader.copy
    }
}

/// The labels of a group in whose listing a family has taken their place: its push_time_seconds has them, too, and beside them
/// an empty instance where the group has none.
private func readHiddenLabels(_ scanner: inout JSONScanner) -> [LabelPair] {
    var pairs: [LabelPair] = []
    var isReadable = true
    scanner.object { scanner, name in
        guard name == "push_time_seconds", scanner.peek() == 0x7B else { return scanner.skip() }
        scanner.object { scanner, key in
            guard key == "metrics", scanner.peek() == 0x5B else { return scanner.skip() }
            scanner.array { scanner in
                scanner.object { scanner, part in
                    guard part == "labels" else { return scanner.skip() }
                    pairs = readLabels(&scanner, &isReadable)
                }
            }
        }
    }
    return pairs.filter { $0.name != "instance" || !$0.value.isEmpty }
}

func readLabels(_ scanner: inout JSONScanner, _ isReadable: inout Bool) -> [LabelPair] {
    var pairs: [LabelPair] = []
    var areStrings = true
    scanner.object { scanner, name in
        if scanner.peek() == 0x22 {
            pairs.append(LabelPair(name: name, value: scanner.string()))
        } else {
            areStrings = false
            scanner.skip()
        }
    }
    isReadable = isReadable && areStrings
    return pairs
}

/// Reads one group.
private struct GroupReader {
    var copy: GroupCopy
    private let detail: ShardListing.Detail

    init(_ labels: GroupLabels, _ detail: ShardListing.Detail) {
        copy = GroupCopy(labels: labels, wasLastPushSuccessful: true, families: [:])
        self.detail = detail
        if labels.pairs.contains(where: { isLossy($0.name) || isLossy($0.value) }) {
            copy.obstacle = "a label is no UTF-8"
        }
    }

    mutating func read(_ scanner: inout JSONScanner) {
        scanner.object { scanner, name in
            switch name {
            case "labels", "push_time_seconds", "push_failure_time_seconds":
                scanner.skip()
            case "last_push_successful" where scanner.peek() != 0x7B:
                copy.wasLastPushSuccessful = scanner.boolean()
            case "last_push_successful":
                copy.obstacle = "a family's name is one that the listing has a use for"
                scanner.skip()
            default:
                readFamily(&scanner, name)
            }
        }
    }

    private mutating func readFamily(_ scanner: inout JSONScanner, _ name: String) {
        var pushedAt: Int64 = 0
        var type = ""
        var help = ""
        var metrics: JSONScanner?
        scanner.object { scanner, key in
            switch key {
            case "time_stamp": pushedAt = nanoseconds(rfc3339: scanner.string()) ?? 0
            case "type": type = scanner.string()
            case "help" where detail == .content: help = scanner.string()
            case "metrics":
                metrics = scanner
                scanner.skip()
            default: scanner.skip()
            }
        }
        // As text, two names may be the same that are not the same bytes.
        if copy.families[name] != nil { copy.obstacle = "two of its families have the name \(name)" }
        var family = FamilyCopy(pushedAt: pushedAt)
        if detail == .content, var metrics {
            family.content = content(name, type: type, help: help, &metrics)
        }
        copy.families[name] = family
    }

    private mutating func content(_ name: String, type: String, help: String, _ scanner: inout JSONScanner)
        -> MetricFamily?
    {
        guard let kind = FamilyKind(listed: type) else {
            copy.obstacle = "the type of \(name), \(type), cannot be listed"
            return nil
        }
        var family = MetricFamily(name: name, kind: kind, help: help, metrics: [])
        var isWhole = !isLossy(name) && !isLossy(help)
        scanner.array { scanner in
            var reader = MetricReader(kind)
            reader.read(&scanner)
            isWhole = isWhole && reader.isWhole
            family.metrics.append(reader.metric)
        }
        if !isWhole { copy.obstacle = "the listing does not tell all of \(name)" }
        return family
    }
}

/// Reads one metric.
private struct MetricReader {
    var metric = Metric()
    /// Whether everything that the metric has was told.
    var isWhole = true
    private let kind: FamilyKind

    init(_ kind: FamilyKind) {
        self.kind = kind
    }

    mutating func read(_ scanner: inout JSONScanner) {
        scanner.object { scanner, name in
            switch name {
            case "labels":
                metric.labels = readLabels(&scanner, &isWhole)
                metric.labels.sort { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
                if metric.labels.contains(where: { isLossy($0.name) || isLossy($0.value) }) { isWhole = false }
            case "value": metric.value = number(&scanner)
            case "sum": metric.sum = number(&scanner)
            case "count": metric.count = integer(&scanner)
            // Of a native histogram the buckets are a list, and what they were made of is not told.
            case "buckets" where scanner.peek() == 0x7B, "quantiles" where scanner.peek() == 0x7B: readParts(&scanner)
            case "buckets":
                isWhole = false
                scanner.skip()
            default: scanner.skip()
            }
        }
        metric.parts.sort { $0.bound < $1.bound }
        // So looks a native histogram to a Pushgateway that does not know them.
        if kind == .histogram, metric.parts.isEmpty, metric.count > 0 { isWhole = false }
    }

    private mutating func readParts(_ scanner: inout JSONScanner) {
        scanner.object { scanner, bound in
            var part = Metric.Part(bound: value(bound), value: 0, count: 0)
            if kind == .histogram { part.count = integer(&scanner) } else { part.value = number(&scanner) }
            metric.parts.append(part)
        }
    }

    private mutating func number(_ scanner: inout JSONScanner) -> Double { value(scanner.string()) }

    private mutating func integer(_ scanner: inout JSONScanner) -> UInt64 {
        guard let count = UInt64(scanner.string()) else {
            isWhole = false
            return 0
        }
        return count
    }

    /// Numbers are strings, as Go prints them: `1e+06`, `+Inf`, `NaN`.
    private mutating func value(_ text: String) -> Double {
        guard let value = Double(text) else {
            isWhole = false
            return 0
        }
        return value
    }
}

/// Whether a listing has put a replacement character where the shard has bytes that are no UTF-8.
func isLossy(_ text: String) -> Bool {
    text.unicodeScalars.contains("\u{FFFD}")
}

extension FamilyKind {
    /// By the name that a listing has for it.
    init?(listed name: String) {
        switch name {
        case "COUNTER": self = .counter
        case "GAUGE": self = .gauge
        case "SUMMARY": self = .summary
        case "UNTYPED": self = .untyped
        case "HISTOGRAM": self = .histogram
        default: return nil
        }
    }
}

/// The time since 1970 of a date such as `2026-11-24T12:00:00.123456789+01:00` (RFC 3339), in nanoseconds.
func nanoseconds(rfc3339 text: String) -> Int64? {
    let digits = Array(text.utf8)
    func number(_ range: Range<Int>) -> Int64? {
        guard range.upperBound <= digits.count else { return nil }
        return range.reduce(0 as Int64?) { value, index in
            guard let value, (0x30...0x39).contains(digits[index]) else { return nil }
            return value * 10 + Int64(digits[index] - 0x30)
        }
    }
    // Other years are beyond what so many nanoseconds can tell.
    guard let year = number(0..<4), (1970..<2262).contains(year), let month = number(5..<7), let day = number(8..<10),
        let hour = number(11..<13),
        let minute = number(14..<16), let second = number(17..<19)
    else { return nil }
    var date = tm()
    date.tm_year = Int32(year) - 1900
    date.tm_mon = Int32(month) - 1
    date.tm_mday = Int32(day)
    var seconds = Int64(timegm(&date)) + hour * 3600 + minute * 60 + second
    var fraction: Int64 = 0
    var index = 19
    if index < digits.count, digits[index] == 0x2E {
        let end = digits[20...].firstIndex { !(0x30...0x39).contains($0) } ?? digits.count
        guard end - 20 <= 9, let value = number(20..<end) else { return nil }
        fraction = (end..<29).reduce(value) { value, _ in value * 10 }
        index = end
    }
    guard index < digits.count else { return nil }
    if digits[index] == 0x2B || digits[index] == 0x2D {
        guard let hours = number(index + 1..<index + 3), let minutes = number(index + 4..<index + 6) else { return nil }
        seconds += (digits[index] == 0x2B ? -1 : 1) * (hours * 3600 + minutes * 60)
    }
    return seconds * 1_000_000_000 + fraction
}
