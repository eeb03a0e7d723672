// `shardd locate`: tells the shard of each path, offline, by the parser and the ring that serve.
// The command makes one, gives it paths or a descriptor to read them from, and ends with its result.
import Glibc

/// Writes a line for every path: where a push with that path goes.
public final class Locator {
    /// How the lines are written.
    public enum Format: Sendable {
        /// Path, grouping key, hash as eight hexadecimal digits and shard, with a tab between.
        ///
        /// Plain text is as it is. A backslash is written `\\`, tab, line feed and return are `\t`, `\n` and `\r`, and
        /// each byte of another control character or of what is no UTF-8 is `\x` and two hexadecimal digits.
        case tabSeparated
        /// An object with `path`, `grouping_key`, `hash`, `shard` and `next`, the shard that failover would use; null
        /// where there is none. A byte that is no UTF-8 is written as U+FFFD.
        case json
    }

    /// Why not all was written or read, in the system's words.
    public struct Failure: Error {
        /// What was done, and what came of it.
        public let reason: String
    }

    /// Whether every path so far was that of a push; standard error was told of those that were not.
    public private(set) var areAllPushes = true

    private let ring: Ring
    private let parser: GroupingKeyParser
    private let movesGroups: Bool
    private let format: Format
    private let output: Int32
    private let errors: Int32
    private var lines = ByteBuffer(capacity: Locator.chunk)

    private static let chunk = 64 << 10

    /// Makes a locator for a ring that is not empty.
    ///
    /// - Parameters:
    ///   - configuration: tells what of a path is hashed, and whether groups are moved.
    ///   - output: the descriptor that lines are written to.
    ///   - errors: the descriptor that is told which paths are no push's.
    public init(
        ring: Ring,
        configuration: Configuration,
        format: Format,
        output: Int32 = STDOUT_FILENO,
        errors: Int32 = STDERR_FILENO
    ) {
        precondition(!ring.isEmpty, "nothing is located on an empty ring")
        self.ring = ring
        parser = GroupingKeyParser(key: configuration.hash.key)
        movesGroups = configuration.movesGroups
        self.format = format
        self.output = output
        self.errors = errors
    }

    /// Writes the lines of some paths.
    public func locate(_ paths: [String]) throws(Failure) {
        for path in paths {
            var path = path
            path.withUTF8 { append(UnsafeRawBufferPointer($0)) }
            if lines.count >= Locator.chunk { try flush() }
        }
        try flush()
    }

    /// Writes the line of each path that is read from a descriptor, one on every line, until its end. Empty lines are
    /// passed over, and a return at the end of a line is no part of the path.
    public func locateLines(of descriptor: Int32) throws(Failure) {
        var input = ByteBuffer(capacity: Locator.chunk)
        while true {
            let size = read(descriptor, input.reserve(Locator.chunk), Locator.chunk)
            if size < 0, errno == EINTR { continue }
            guard size >= 0 else { throw Failure(reason: "reading paths: \(String(cString: strerror(errno)))") }
            if size == 0 {
                appendLine(input.readable)
                return try flush()
            }
            // Only what is new can hold the end of a line.
            var searched = input.count
            input.commit(size)
            while let end = lineEnd(input.readable, from: searched) {
                appendLine(UnsafeRawBufferPointer(rebasing: input.readable[..<end]))
                input.consume(end + 1)
                searched = 0
            }
            try flush()
        }
    }

    private func lineEnd(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int? {
        guard let base = bytes.baseAddress, let end = memchr(base + start, 0x0A, bytes.count - start) else {
            return nil
        }
        return UnsafeRawPointer(end) - base
    }

    private func appendLine(_ line: UnsafeRawBufferPointer) {
        let end = line.last == UInt8(ascii: "\r") ? line.count - 1 : line.count
        if end > 0 { append(UnsafeRawBufferPointer(rebasing: line[..<end])) }
    }

    private func append(_ given: UnsafeRawBufferPointer) {
        let path = pushTarget(given)
        guard parser.isPushPath(path) else { return refuse(given) }
        let hash = parser.hash(path: path)
        let owner = ring.owner(of: hash)
        let shard = ring.shards[owner].text
        switch format {
        case .tabSeparated:
            EscapedText.field.append(given, to: &lines)
            lines.append("\t")
            EscapedText.field.append(parser.text, to: &lines)
            lines.append("\t")
            lines.append(hexadecimal: hash, digits: 8)
            lines.append("\t")
            lines.append(shard)
            lines.append("\n")
        case .json:
            let next = ring.standIn(for: hash, movesGroups: movesGroups)
            lines.append(#"{"path":""#)
            EscapedText.json.append(given, to: &lines)
            lines.append(#"","grouping_key":""#)
            EscapedText.json.append(parser.text, to: &lines)
            lines.append(#"","hash":""#)
            lines.append(hexadecimal: hash, digits: 8)
            lines.append(#"","shard":""#)
            lines.append(shard)
            lines.append(#"","next":"#)
            lines.append(next.map { "\"\(ring.shards[$0].text)\"" } ?? "null")
            lines.append("}\n")
        }
    }

    private func refuse(_ given: UnsafeRawBufferPointer) {
        areAllPushes = false
        var line = ByteBuffer(capacity: 256)
        line.append("shardd: not the path of a push, which begins with /metrics/job/ or /metrics/job@base64/: ")
        EscapedText.field.append(given, to: &line)
        line.append("\n")
        _ = write(errors, line.readable.baseAddress, line.count)
    }

    private func flush() throws(Failure) {
        while lines.count > 0 {
            let size = write(output, lines.readable.baseAddress, lines.count)
            if size < 0, errno == EINTR { continue }
            guard size >= 0 else { throw Failure(reason: "writing placements: \(String(cString: strerror(errno)))") }
            lines.consume(size)
        }
    }
}

/// The path within what was given: a path with or without a query, or a whole URL.
private func pushTarget(_ given: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    var rest = given[...]
    for scheme: StaticString in ["http://", "https://"] where begins(given, at: 0, with: scheme) {
        let authority = given[scheme.utf8CodeUnitCount...]
        rest = given[(authority.firstIndex(of: PathByte.slash) ?? given.count)...]
    }
    return UnsafeRawBufferPointer(rebasing: rest.prefix { $0 != UInt8(ascii: "?") })
}
