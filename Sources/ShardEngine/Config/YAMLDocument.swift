// The text of a configuration file as a tree of nodes that know their lines.
// Owns what is particular to Yams. The reader walks the tree; what keeps the text from being a tree is a problem.
import Yams

/// One YAML document, composed as far as it goes.
struct YAMLDocument {
    /// The top of the tree; nil where the text is empty or is not YAML.
    let root: Node?
    /// Whether keys were renamed, so that `name(of:)` must undo it.
    private let isRenamed: Bool

    /// Set before and after a number in front of a key that is given again later: a character for private use.
    private static let marker: Unicode.Scalar = "\u{E000}"
    /// What some editors put in front of a text; libyaml would count it as a column.
    private static let byteOrderMark: Unicode.Scalar = "\u{FEFF}"
    /// Repeated keys that are looked for, at most: each costs another pass over the text.
    private static let maximumRenames = 100

    /// Composes the text. Yams stops at the first repeated key, so its earlier occurrence is renamed in the text, which
    /// moves no line, and the text composed again: the reader then sees every occurrence with its line.
    init(_ text: String, problems: inout ProblemList) {
        var present = text
        if present.unicodeScalars.first == YAMLDocument.byteOrderMark { present.unicodeScalars.removeFirst() }
        var renames = 0
        while true {
            do {
                root = try YAMLDocument.compose(present, problems: &problems)
                break
            } catch YamlError.duplicatedKeysInMapping(let keys, let context) {
                guard renames < YAMLDocument.maximumRenames, !text.unicodeScalars.contains(YAMLDocument.marker) else {
                    let names = keys.joined(separator: ", ")
                    problems.add(line: context.mark.line, key: names.shown, "is given more than once; expected once")
                    root = nil
                    break
                }
                YAMLDocument.rename(keyAt: context.mark, in: &present, number: renames)
                renames += 1
            } catch {
                let (line, message) = YAMLDocument.explain(error, in: present)
                problems.add(line: line, key: "syntax", message)
                root = nil
                break
            }
        }
        isRenamed = renames > 0
    }

    /// A key's text as the file has it; nil when the key is not a scalar or is empty.
    func name(of key: Node) -> String? {
        guard let text = key.scalar?.string, !key.isNull else { return nil }
        guard isRenamed, text.unicodeScalars.first == YAMLDocument.marker else { return text }
        let parts = text.unicodeScalars.split(separator: YAMLDocument.marker, maxSplits: 1)
        return parts.count == 2 ? String(parts[1]) : text
    }

    private static func compose(_ text: String, problems: inout ProblemList) throws -> Node? {
        let parser = try Parser(yaml: text, encoding: .utf8)
        guard let root = try parser.nextRoot() else { return nil }
        if let second = try parser.nextRoot() {
            problems.add(
                line: second.mark?.line ?? 1,
                key: "syntax",
                "a second document begins; expected one in a file"
            )
        }
        return root
    }

    private static func rename(keyAt mark: Mark, in text: inout String, number: Int) {
        var scalars = text.unicodeScalars
        var index = position(of: mark, in: scalars)
        while index < scalars.endIndex, scalars[index] == "&" || scalars[index] == "!" {
            index = scalars[index...].firstIndex(of: " ") ?? scalars.endIndex
            index = scalars[index...].firstIndex { $0 != " " } ?? scalars.endIndex
        }
        if index < scalars.endIndex, scalars[index] == "\"" || scalars[index] == "'" {
            index = scalars.index(after: index)
        }
        scalars.insert(contentsOf: "\(marker)\(number)\(marker)".unicodeScalars, at: index)
        text = String(scalars)
    }

    /// Finds a mark of libyaml, which counts lines by all of YAML 1.1's line breaks and columns by scalars.
    private static func position(of mark: Mark, in scalars: String.UnicodeScalarView) -> String.Index {
        var index = scalars.startIndex
        var line = 1
        while line < mark.line, index < scalars.endIndex {
            let scalar = scalars[index]
            index = scalars.index(after: index)
            switch scalar {
            case "\r" where index < scalars.endIndex && scalars[index] == "\n": break
            case "\n", "\r", "\u{85}", "\u{2028}", "\u{2029}": line += 1
            default: break
            }
        }
        return scalars.index(index, offsetBy: max(mark.column - 1, 0), limitedBy: scalars.endIndex) ?? scalars.endIndex
    }

    /// The line and the words for what Yams threw.
    private static func explain(_ error: any Error, in text: String) -> (line: Int, message: String) {
        switch error {
        case YamlError.scanner(let context, let problem, let mark, _),
            YamlError.parser(let context, let problem, let mark, _),
            YamlError.composer(let context, let problem, let mark, _):
            let index = position(of: mark, in: text.unicodeScalars)
            if index < text.endIndex, text.unicodeScalars[index] == "\t" {
                return (mark.line, "a tab is where only spaces may be; expected indentation by spaces")
            }
            let place = context.map { " \($0.text) that begins on line \($0.mark.line)" } ?? ""
            return (mark.line, "\(problem)\(place); expected valid YAML")
        case YamlError.reader(_, let offset, let value, _):
            let line = 1 + text.prefix(offset ?? 0).count { $0.isNewline }
            let code = String(max(value, 0), radix: 16, uppercase: true)
            let zeros = String(repeating: "0", count: max(0, 4 - code.count))
            return (line, "the character U+\(zeros)\(code) is not allowed; expected printable text")
        default:
            return (1, "\(error); expected valid YAML")
        }
    }
}
