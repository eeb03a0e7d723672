// What a Pushgateway answers to a scrape that fails: an error for each metric that does not go with others, in the words of
// https://github.com/prometheus/client_golang/blob/main/prometheus/registry.go. It tells what no listing does: a label that is
// there twice, a value of another kind than the type's.

/// The families that such an answer names.
struct ScrapeFault {
    /// Those that have a metric which is wrong.
    private(set) var families: Set<String> = []
    /// The types of a Pushgateway's own families that pushed ones differ from.
    private(set) var own: [PushedFamily] = []

    init(_ text: String) {
        families = Set(ScrapeFault.words(in: text, after: "collected metric \"", upTo: "\"").map(\.word))
        for (name, rest) in ScrapeFault.words(in: text, after: "gathered metric family ", upTo: " has type ") {
            let words = rest.prefix(80).split(separator: " ", maxSplits: 5).map(String.init)
            guard words.count > 4, let type = words[4].split(whereSeparator: \.isWhitespace).first,
                let kind = FamilyKind(listed: String(type))
            else { continue }
            own.append(PushedFamily(name: Array(name.utf8), kind: kind, help: nil, series: []))
        }
    }

    private static func words(in text: String, after start: String, upTo end: String) -> [(word: String, Substring)] {
        text.split(separator: start, omittingEmptySubsequences: false).dropFirst().compactMap { part in
            part.firstRange(of: end).map { (String(part[..<$0.lowerBound]), part[$0.upperBound...]) }
        }
    }
}
