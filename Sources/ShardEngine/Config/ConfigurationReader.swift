// From the text of a file to a configuration, or to all of its problems.
// Start, reload and check-config come in by `load`; the reader walks the YAML tree along the table of keys.
import Yams

extension Configuration {
    /// The most that a configuration file may hold, in bytes.
    private static let maximumFileSize = 4 << 20

    /// Reads a file. A file that cannot be read, or is not UTF-8, is a problem of its first (or the bad) line.
    public static func load(file: String) throws(ConfigurationErrors) -> Configuration {
        let bytes: [UInt8]
        do throws(FileError) {
            bytes = try readFile(file, limit: maximumFileSize)
        } catch {
            throw fileProblem(file, line: 1, "cannot be read: \(error.reason); expected a YAML file")
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            let validLines = bytes.split(separator: 0x0A, omittingEmptySubsequences: false)
                .prefix { String(validating: $0, as: UTF8.self) != nil }
            throw fileProblem(file, line: validLines.count + 1, "is not UTF-8; expected text in UTF-8")
        }
        return try parse(text, file: file)
    }

    /// Reads the text of a file.
    ///
    /// - Parameter file: what problems call the file, and where a relative `token_file` starts.
    public static func parse(_ text: String, file: String) throws(ConfigurationErrors) -> Configuration {
        var problems = ProblemList(file: file)
        let document = YAMLDocument(text, problems: &problems)
        if document.root == nil, let errors = problems.errors { throw errors }
        var reader = ConfigurationReader(document: document, problems: problems)
        let configuration = reader.read()
        if let errors = reader.problems.errors { throw errors }
        return configuration
    }

    private static func fileProblem(_ file: String, line: Int, _ message: String) -> ConfigurationErrors {
        ConfigurationErrors(problems: [ConfigurationProblem(file: file, line: line, key: "file", message: message)])
    }
}

/// Walks one document.
private struct ConfigurationReader {
    let document: YAMLDocument
    private(set) var problems: ProblemList
    private var draft = ConfigurationDraft()
    private let keys: [String: ConfigurationKey]
    private let sections: Set<Substring>

    init(document: YAMLDocument, problems: ProblemList) {
        self.document = document
        self.problems = problems
        let all = ConfigurationKey.all
        keys = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })
        sections = Set(all.map(\.section).filter { !$0.isEmpty })
    }

    mutating func read() -> Configuration {
        if let root = document.root, !root.isNull {
            guard let mapping = root.mapping else {
                problems.add(line: root.mark?.line ?? 1, key: "file", "\(root.shown) is not a mapping; expected keys")
                return draft.file
            }
            read(mapping, section: "")
        }
        return draft.finish(problems: &problems)
    }

    private mutating func read(_ mapping: Node.Mapping, section: String) {
        var firstLines: [String: Int] = [:]
        for (keyNode, value) in mapping {
            let line = keyNode.mark?.line ?? 1
            guard let text = document.name(of: keyNode) else {
                let key = section.isEmpty ? "file" : section
                problems.add(line: line, key: key, "\(keyNode.shown) is not a key; expected a key's name")
                continue
            }
            let name = section.isEmpty ? text : "\(section).\(text)"
            if let first = firstLines[name] {
                problems.add(line: line, key: name.shown, "is given again after line \(first); expected once")
            } else {
                firstLines[name] = line
            }
            if text.contains(".") {
                problems.add(line: line, key: name.shown, "is a name with a dot; expected a key inside its section")
            } else {
                read(value, name: name, line: line)
            }
        }
    }

    private mutating func read(_ value: Node, name: String, line: Int) {
        if sections.contains(Substring(name)) {
            guard !value.isNull else { return }
            guard let mapping = value.mapping else {
                return problems.add(line: line, key: name, "\(value.shown) is not a mapping; expected keys below it")
            }
            draft.lines[name] = line
            read(mapping, section: name)
        } else if let key = keys[name] {
            guard !value.isNull else { return }
            draft.lines[name] = line
            key.read(value, &draft, &problems)
        } else {
            let known = keys.keys.sorted() + sections.map(String.init).sorted()
            let guess = KeySuggestion.nearest(to: name, among: known).map { "did you mean \($0)?" }
            let message = "is not a known key; " + (guess ?? "expected one of \(siblings(of: name))")
            problems.add(line: line, key: name.shown, message)
        }
    }

    private func siblings(of name: String) -> String {
        let section = name.lastIndex(of: ".").map { name[..<$0] } ?? ""
        let names = keys.values.filter { $0.section == section }.map {
            $0.name.dropFirst(section.isEmpty ? 0 : section.count + 1)
        }
        return (names + (section.isEmpty ? sections : [])).sorted().joined(separator: ", ")
    }
}
