// The problems of a configuration file, collected so that one run tells them all.
// The reader and the draft add to the list; check-config prints it, a start or a reload is refused with it.

/// One thing that is wrong in a configuration file.
public struct ConfigurationProblem: Equatable, Sendable, CustomStringConvertible {
    /// The file, as it was named.
    public let file: String
    /// The line, counted from 1.
    public let line: Int
    /// The dotted key, or `file` or `syntax` where the text could not be read as far as a key.
    public let key: String
    /// What is wrong and what is expected.
    public let message: String

    /// `FILE:LINE: KEY: MESSAGE`, on one line.
    public var description: String { "\(file):\(line): \(key): \(message)" }
}

/// Every problem of one file, by line; never empty.
public struct ConfigurationErrors: Error, Equatable, Sendable, CustomStringConvertible {
    /// The problems in the order of their lines.
    public let problems: [ConfigurationProblem]

    /// One problem a line.
    public var description: String { problems.map(\.description).joined(separator: "\n") }
}

/// The list that grows while a file is read.
struct ProblemList {
    let file: String
    private var problems: [ConfigurationProblem] = []

    init(file: String) {
        self.file = file
    }

    mutating func add(line: Int, key: String, _ message: String) {
        problems.append(ConfigurationProblem(file: file, line: line, key: key, message: message))
    }

    /// All problems as an error, lines in order; nil when there are none.
    var errors: ConfigurationErrors? {
        guard !problems.isEmpty else { return nil }
        let order = problems.indices.sorted { (problems[$0].line, $0) < (problems[$1].line, $1) }
        return ConfigurationErrors(problems: order.map { problems[$0] })
    }
}

extension String {
    /// The text as a message shows it: short, on one line, with nothing that a terminal would obey.
    var shown: String {
        let characters = unicodeScalars.prefix(60).map { scalar in
            switch scalar.properties.generalCategory {
            case .control, .format, .lineSeparator, .paragraphSeparator: scalar.escaped(asASCII: true)
            default: String(scalar)
            }
        }
        return characters.joined() + (unicodeScalars.count > 60 ? "…" : "")
    }
}
