// The kinds of values that keys have: how each is read from a node, and how its mistakes are told.
// The table of keys names one kind for each key; the reader applies it. A new kind is one static member here.
import Yams

/// One kind of value, such as a port.
struct ConfigurationKind<Value> {
    /// Reads a value; nil when it is absent or when a problem was added.
    let read: (_ node: Node, _ key: String, _ problems: inout ProblemList) -> Value?
}

extension ConfigurationKind {
    /// A single value, neither a list nor a mapping.
    static func scalar(_ expected: String, _ parse: @escaping (Node.Scalar) throws(Mistake) -> Value) -> Self {
        Self { node, key, problems in
            do throws(Mistake) {
                guard let scalar = node.scalar else { throw Mistake("is not allowed here") }
                return try parse(scalar)
            } catch {
                let message = "\(node.shown) \(error.reason); expected \(expected)"
                problems.add(line: node.mark?.line ?? 1, key: key, message)
                return nil
            }
        }
    }

    /// One of an enumeration's names.
    static func name() -> Self where Value: CaseIterable & RawRepresentable<String> {
        let names = Value.allCases.map(\.rawValue).joined(separator: " or ")
        return scalar(names) { scalar throws(Mistake) in
            guard let value = Value(rawValue: scalar.string) else { throw Mistake("is not known") }
            return value
        }
    }
}

extension ConfigurationKind<Configuration.PushCheck> {
    /// How pushes are checked.
    static var pushCheck: Self {
        scalar("off, guard or full") { scalar throws(Mistake) in
            // YAML 1.1 reads off as false, but the text is what it was.
            if let value = Configuration.PushCheck(rawValue: scalar.string) { return value }
            throw Mistake("is not known")
        }
    }
}

extension ConfigurationKind<Int> {
    /// A whole number, not quoted.
    static func integer(_ range: ClosedRange<Int>) -> Self {
        scalar("a whole number from \(range.lowerBound) to \(range.upperBound)") { scalar throws(Mistake) in
            let node = Node.scalar(scalar)
            guard node.has(.int) else { throw Mistake("is not a whole number") }
            guard let number = node.int, range.contains(number) else { throw Mistake("is out of range") }
            return number
        }
    }

    /// A size, in bytes.
    static func size(_ range: ClosedRange<Int>) -> Self {
        let limits = "from \(SizeText.text(range.lowerBound)) to \(SizeText.text(range.upperBound))"
        return scalar("a size such as 16MiB, 64KiB or a number of bytes, \(limits)") { scalar throws(Mistake) in
            let bytes = try SizeText.parse(scalar.string)
            guard range.contains(bytes) else { throw Mistake("is out of range") }
            return bytes
        }
    }
}

extension ConfigurationKind<Bool> {
    /// True or false in one of YAML 1.1's spellings, not quoted.
    static var boolean: Self {
        scalar("true or false") { scalar throws(Mistake) in
            let node = Node.scalar(scalar)
            guard node.has(.bool), let value = node.bool else { throw Mistake("is neither true nor false") }
            return value
        }
    }
}

extension ConfigurationKind<TimeSpan> {
    /// A duration.
    static func duration(from least: TimeSpan, to most: TimeSpan = .seconds(86400)) -> Self {
        let limits = "from \(DurationText.text(least)) to \(DurationText.text(most))"
        return scalar("a duration such as 250ms, 1s or 1m30s, \(limits)") { scalar throws(Mistake) in
            let span = try DurationText.parse(scalar.string)
            guard (least...most).contains(span) else { throw Mistake("is out of range") }
            return span
        }
    }
}

extension ConfigurationKind<String> {
    /// Any text that fits a header or a URL; empty text is as good as none. Its messages never show it: it may be a secret.
    static func text(_ what: String, without excluded: Character? = nil) -> Self {
        Self { node, key, problems in
            let expected = "; expected \(what)"
            guard let text = node.scalar?.string else {
                problems.add(line: node.mark?.line ?? 1, key: key, node.shown + " is not allowed here" + expected)
                return nil
            }
            if text.unicodeScalars.contains(where: { $0.properties.generalCategory == .control }) {
                problems.add(line: node.mark?.line ?? 1, key: key, "has a control character" + expected)
            } else if let excluded, text.contains(excluded) {
                problems.add(line: node.mark?.line ?? 1, key: key, "has a '\(excluded)'" + expected)
            }
            return text.isEmpty ? nil : text
        }
    }

    /// A path of a URL, as it goes into a request line.
    static var urlPath: Self {
        scalar("a path that begins with / and has only visible ASCII characters") { scalar throws(Mistake) in
            guard scalar.string.hasPrefix("/") else { throw Mistake("does not begin with /") }
            guard scalar.string.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
                throw Mistake("has characters that a path may not have")
            }
            return scalar.string
        }
    }
}

/// A scalar and where it stands, to be read once what it depends on is known.
struct LocatedText {
    let text: String
    let line: Int
}

extension ConfigurationKind<[LocatedText]> {
    /// A list of single values.
    static func list(of what: String) -> Self {
        Self { node, key, problems in
            guard let elements = node.sequence else {
                let message = "\(node.shown) is not a list; expected a list of \(what)"
                problems.add(line: node.mark?.line ?? 1, key: key, message)
                return nil
            }
            let texts: [LocatedText] = elements.compactMap { element in
                let line = element.mark?.line ?? 1
                guard let text = element.scalar?.string, !element.isNull else {
                    problems.add(line: line, key: key, "\(element.shown) is not one value; expected \(what)")
                    return nil
                }
                return LocatedText(text: text, line: line)
            }
            return texts.isEmpty && !elements.isEmpty ? nil : texts
        }
    }
}

extension Node {
    /// Whether it is YAML's null, which an empty value is too: the key is as good as absent.
    var isNull: Bool { has(.null) }

    /// Whether YAML 1.1 takes the node for this type, by its tag or, when it is not quoted, by how it looks.
    func has(_ type: Tag.Name) -> Bool { tag.rawValue == type.rawValue }

    /// The node as a message shows it: short, on one line.
    var shown: String {
        switch self {
        case .mapping: return "a mapping"
        case .sequence: return "a list"
        case .alias: return "an alias"
        case .scalar where isNull: return "an empty value"
        case .scalar(let scalar):
            return scalar.style == .plain ? scalar.string.shown : "\"\(scalar.string.shown)\" (quoted)"
        }
    }
}
