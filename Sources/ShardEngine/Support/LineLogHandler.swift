// The swift-log handler of shardd: each entry is one line and one write.
// The command line makes the logger; every part of the engine is handed it, with metadata of its own.
import Glibc
import Logging

/// Writes entries as lines, with fields in one order: time, level, msg, then the metadata sorted by key.
public struct LineLogHandler: LogHandler {
    private let format: LogFormat
    private let sharedLevel: LogLevelBox
    private let write: @Sendable ([UInt8]) -> Void
    private var ownLevel: Logger.Level?

    /// Metadata that every entry of this logger carries.
    public var metadata: Logger.Metadata = [:]
    /// Where more metadata comes from at each entry.
    public var metadataProvider: Logger.MetadataProvider?

    /// Makes a handler that hands each line, its newline included, to `write`.
    public init(format: LogFormat, level: LogLevelBox, write: @escaping @Sendable ([UInt8]) -> Void) {
        self.format = format
        self.sharedLevel = level
        self.write = write
    }

    /// The shared level, unless this one logger was given a level of its own.
    public var logLevel: Logger.Level {
        get { ownLevel ?? sharedLevel.level.level }
        set { ownLevel = newValue }
    }

    /// One value of the metadata that every entry carries.
    public subscript(metadataKey key: String) -> Logger.MetadataValue? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Writes one entry; the most specific of two values for a key wins.
    public func log(event: LogEvent) {
        var fields = metadataProvider?.get() ?? [:]
        fields.merge(metadata) { $1 }
        fields.merge(event.metadata ?? [:]) { $1 }
        if let error = event.error { fields["error"] = "\(error)" }
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        var line = LogLine(format: format)
        line.add("time", .string(LogLine.timestamp(time)))
        line.add("level", .string(LineLogHandler.name(of: event.level)))
        line.add("msg", .string(event.message.description))
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) { line.add(key, value) }
        line.finish()
        write(line.bytes)
    }

    /// A level of swift-log by the name of the nearest of the four that shardd has.
    private static func name(of level: Logger.Level) -> String {
        switch level {
        case .trace, .debug: "debug"
        case .info, .notice: "info"
        case .warning: "warn"
        case .error, .critical: "error"
        }
    }
}

extension Logger {
    /// The logger of a process: lines on standard error.
    public static func standardError(format: LogFormat, level: LogLevelBox) -> Logger {
        Logger(label: "shardd") { _ in LineLogHandler(format: format, level: level, write: writeToStandardError) }
    }
}

/// Writes a whole line, and gives it up when standard error is closed or full: a log must never stop the pushes.
@Sendable private func writeToStandardError(_ line: [UInt8]) {
    var sent = 0
    while sent < line.count {
        let size = line[sent...].withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
        if size > 0 { sent += size } else if errno != EINTR { return }
    }
}
