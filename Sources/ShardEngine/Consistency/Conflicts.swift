// Which families of a shard fail its scrape, as they do not go together, and what takes the place of those that give way: a pure
// function from what a shard lists to rewritings of groups. The server has the tier heal shards by it.
//
// The families are taken one after the other, the oldest first, each in the first form that goes with those before it: as it is;
// with its values under the type that the name has already; as the series that its histogram or summary is told by; without the
// series that another group has; without any; not at all.

/// The families of one shard that have been taken.
struct Conflicts {
    private struct Holder {
        var kind: FamilyKind
        /// The group as people read it; nil for a Pushgateway's own.
        var group: String?

        var text: String { group.map { "group \($0)" } ?? "the Pushgateway's own families" }
    }

    /// What takes the place of a family: none where it has to go.
    private struct Form {
        var families: [MetricFamily]
        var change: FamilyChange?
    }

    private var holders: [[UInt8]: Holder] = [:]
    private var series: [[UInt8]: Set<Int>] = [:]
    /// HELP of a Pushgateway's own families where it minds it.
    private var helps: [[UInt8]: String] = [:]

    private init(own: [PushedFamily]) {
        for family in own {
            holders[family.name] = Holder(kind: family.kind, group: nil)
            guard let help = family.help, OwnFamilies.mayBecomeOne(family.name) else { continue }
            helps[family.name] = String(decoding: help, as: UTF8.self)
        }
    }

    /// How groups have to be rewritten so that all families go together.
    ///
    /// - Parameters:
    ///   - own: the families that a Pushgateway has of itself.
    ///   - fault: what it answers to a scrape: what it names is written again where a listing tells nothing that is wrong.
    static func rewrites(
        of groups: [ListedGroup],
        own: [PushedFamily],
        fault: ScrapeFault = ScrapeFault("")
    ) -> [GroupRewrite] {
        var conflicts = Conflicts(own: fault.own + own)
        let texts = groups.map(\.copy.labels.text)
        var changed: [Int: [(name: String, form: Form)]] = [:]
        for (index, family) in inOrder(groups, texts) {
            let form = conflicts.take(family, of: groups[index].copy, texts[index])
            if form.change != nil { changed[index, default: []].append((family.name, form)) }
        }
        if changed.isEmpty {
            for (index, family) in inOrder(groups, texts) where fault.families.contains(family.name) {
                changed[index, default: []].append((family.name, writtenAgain(family)))
            }
        }
        return changed.sorted { $0.key < $1.key }.map { rewrite(groups[$0].copy, $1) }
    }

    /// What counts before copies, what has series before what has none, the older first.
    private static func inOrder(_ groups: [ListedGroup], _ texts: [String]) -> [(group: Int, family: MetricFamily)] {
        var all: [(group: Int, rank: Int, pushedAt: Int64, family: MetricFamily)] = []
        for (index, listed) in groups.enumerated() where !listed.copy.labels.isOldForm {
            for copy in listed.copy.families.values {
                guard let family = copy.content, !isLossy(family.name) else { continue }
                all.append((index, (listed.counts ? 0 : 2) + (family.metrics.isEmpty ? 1 : 0), copy.pushedAt, family))
            }
        }
        all.sort { one, other in
            if one.rank != other.rank { return one.rank < other.rank }
            if one.pushedAt != other.pushedAt { return one.pushedAt < other.pushedAt }
            return (texts[one.group], one.family.name) < (texts[other.group], other.family.name)
        }
        return all.map { ($0.group, $0.family) }
    }

    private static func rewrite(_ copy: GroupCopy, _ forms: [(name: String, form: Form)]) -> GroupRewrite {
        let written = forms.flatMap(\.form.families)
        let removed = Set(forms.filter(\.form.families.isEmpty).map(\.name))
        var rewrite = GroupRewrite(
            labels: copy.labels,
            families: written,
            isPost: removed.isEmpty,
            changes: forms.compactMap(\.form.change)
        )
        // A push that leaves a family out has to have all others, so they must be known.
        guard !removed.isEmpty else { return rewrite }
        rewrite.obstacle = copy.obstacle
        let names = Set(written.map(\.name)).union(removed)
        let kept = copy.families.sorted { $0.key < $1.key }.filter { !names.contains($0.key) }
        rewrite.families = kept.compactMap(\.value.content) + written
        return rewrite
    }

    // MARK: One family

    /// Takes a family in the first form that goes with those before it.
    private mutating func take(_ family: MetricFamily, of copy: GroupCopy, _ group: String) -> Form {
        let name = Array(family.name.utf8)
        let holder = holders[name]
        var taken = family
        taken.kind = holder?.kind ?? family.kind
        taken.help = helps[name] ?? family.help
        var change: FamilyChange?
        func note(_ what: FamilyChange.What, _ reason: String) {
            change = FamilyChange(name: family.name, what: what, reason: reason)
        }
        if let holder, holder.kind != family.kind {
            let reason = "its type is \(family.kind.word), and \(holder.kind.word) in \(holder.text)"
            if holder.kind.isScalar, family.kind.isScalar {
                note(.retyped(holder.kind), reason)
            } else if family.isTold, let parts = parts(of: family, as: holder.kind, copy) {
                for part in parts { hold(part, group) }
                return Form(families: parts, change: FamilyChange(name: family.name, what: .flattened, reason: reason))
            } else {
                taken.metrics = []
                note(.setAside, reason)
            }
        } else if taken.help != family.help {
            note(.writtenAgain, "it has another HELP than the Pushgateway's own family of that name")
        }
        let distinct = distinct(taken)
        if distinct.count < taken.metrics.count {
            taken.metrics = distinct
            note(.setAside, "another group has series of it, or it has them twice")
        }
        if let kin = kin(of: name, taken.kind) {
            note(.setAside, "its type is \(taken.kind.word), which does not go with \(kin)")
            taken.metrics = []
            // The name of a family that is there counts though it has no series; that of a summary or histogram alone does not.
            guard holder == nil, self.kin(of: name, .gauge) == nil else { return Form(families: [], change: change) }
            taken.kind = .gauge
        }
        if let reason = change?.reason, !family.isTold {
            // As the listing has it, it would be written with other labels than it has.
            (taken.metrics, taken.help) = ([], "")
            note(.setAside, reason)
        }
        hold(taken, group)
        return Form(families: [taken], change: change)
    }

    /// A listing tells each label once and each value as one of its family's type, and so they are written; names of labels it tells
    /// as they are.
    private static func writtenAgain(_ family: MetricFamily) -> Form {
        var written = family
        written.metrics.removeAll { !$0.labels.allSatisfy(\.isTold) }
        let isWhole = written.metrics.count == family.metrics.count
        let change = FamilyChange(
            name: family.name,
            what: isWhole ? .writtenAgain : .setAside,
            reason: "the shard names it when it is scraped"
        )
        return Form(families: [written], change: change)
    }

    private mutating func hold(_ family: MetricFamily, _ group: String) {
        let name = Array(family.name.utf8)
        if holders[name] == nil { holders[name] = Holder(kind: family.kind, group: group) }
        series[name, default: []].formUnion(family.metrics.map(\.identity))
    }

    /// The metrics whose series nobody has yet.
    private func distinct(_ family: MetricFamily) -> [Metric] {
        var known = series[Array(family.name.utf8)] ?? []
        return family.metrics.filter { known.insert($0.identity).inserted }
    }

    /// What the name does not go with, as text; nil where there is nothing.
    private func kin(of name: [UInt8], _ kind: FamilyKind) -> String? {
        for other in FamilyKin.names(of: name, kind) {
            guard let holder = holders[other], FamilyKin.areKin((name, kind), (other, holder.kind)) else { continue }
            return "the \(holder.kind.word) \"\(String(decoding: other, as: UTF8.self))\" in \(holder.text)"
        }
        return nil
    }

    /// The series that a histogram or summary is told by, as families of scalars; nil where these do not go with others.
    private func parts(of family: MetricFamily, as kind: FamilyKind, _ copy: GroupCopy) -> [MetricFamily]? {
        guard kind.isScalar, !family.metrics.isEmpty, copy.obstacle == nil else { return nil }
        let parts = family.flattened(as: kind)
        for part in parts where part.name != family.name {
            let name = Array(part.name.utf8)
            let fits = holders[name].map { $0.kind == part.kind } ?? true
            if copy.families[part.name] != nil || !fits || kin(of: name, part.kind) != nil { return nil }
        }
        return parts.allSatisfy { distinct($0).count == $0.metrics.count } ? parts : nil
    }
}

extension FamilyKind {
    fileprivate var isScalar: Bool { self != .summary && self != .histogram }
}

extension LabelPair {
    /// Whether a listing tells it as it is, and a scrape can.
    fileprivate var isTold: Bool {
        var name = name
        let isPlain = name.withUTF8 { LabelNames.isPlain(UnsafeRawBufferPointer($0)) }
        return isPlain && !name.hasPrefix("__") && !isLossy(value)
    }
}

extension GroupLabels {
    fileprivate var text: String { "{" + pairs.map { "\($0.name)=\"\($0.value)\"" }.joined(separator: ", ") + "}" }
}

extension Metric {
    /// Tells its series from others of the family.
    fileprivate var identity: Int { SeriesHash.group(labels.map { ($0.name, $0.value) }) }

    fileprivate init(_ labels: [LabelPair], _ value: Double) {
        self.init()
        (self.labels, self.value) = (labels, value)
    }
}

extension MetricFamily {
    /// Whether a listing tells its texts as they are.
    fileprivate var isTold: Bool {
        !isLossy(help) && metrics.allSatisfy { $0.labels.allSatisfy { !isLossy($0.name) && !isLossy($0.value) } }
    }

    /// The series by which a scrape tells a summary or histogram: its quantiles under a type, the rest under none.
    fileprivate func flattened(as kind: FamilyKind) -> [MetricFamily] {
        func part(_ suffix: String, _ metrics: [Metric]) -> MetricFamily {
            MetricFamily(name: name + suffix, kind: suffix.isEmpty ? kind : .untyped, help: "", metrics: metrics)
        }
        func series(_ metric: Metric, _ label: String, _ bound: Double, _ value: Double) -> Metric {
            Metric(metric.labels + [LabelPair(name: label, value: goText(bound))], value)
        }
        let rest = [
            part("_sum", metrics.map { Metric($0.labels, $0.sum) }),
            part("_count", metrics.map { Metric($0.labels, Double($0.count)) }),
        ]
        if self.kind == .summary {
            let quantiles = metrics.flatMap { metric in
                metric.parts.map { series(metric, "quantile", $0.bound, $0.value) }
            }
            return [part("", quantiles)] + rest
        }
        let buckets = metrics.flatMap { metric in
            let isOpen = metric.parts.last?.bound != .infinity
            let last = isOpen ? [series(metric, "le", .infinity, Double(metric.count))] : []
            return metric.parts.map { series(metric, "le", $0.bound, Double($0.count)) } + last
        }
        return [part("", []), part("_bucket", buckets)] + rest
    }
}

/// A number as a Pushgateway writes it into `le` and `quantile`: as Go does by `%g`, with as few digits as tell it from others.
func goText(_ value: Double) -> String {
    if !value.isFinite { return value.isNaN ? "NaN" : value < 0 ? "-Inf" : "+Inf" }
    let parts = "\(value.magnitude)".split(separator: "e")
    let mantissa = parts[0].split(separator: ".").map(String.init)
    let all = mantissa.joined()
    let digits = all.drop { $0 == "0" }
    var exponent = mantissa[0].count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0) - (all.count - digits.count) - 1
    var text = String(digits)
    while text.hasSuffix("0") { text.removeLast() }
    if text.isEmpty { (text, exponent) = ("0", 0) }
    let sign = value.sign == .minus ? "-" : ""
    if exponent < -4 || exponent >= 6 {
        let fraction = text.count > 1 ? "." + text.dropFirst() : ""
        let places = exponent.magnitude < 10 ? "0\(exponent.magnitude)" : "\(exponent.magnitude)"
        return "\(sign)\(text.prefix(1))\(fraction)e\(exponent < 0 ? "-" : "+")\(places)"
    }
    if exponent < 0 { return sign + "0." + String(repeating: "0", count: -exponent - 1) + text }
    let whole = text.prefix(exponent + 1)
    let fraction = text.count > whole.count ? "." + text.dropFirst(whole.count) : ""
    return sign + whole + String(repeating: "0", count: exponent + 1 - whole.count) + fraction
}
