// The swift-log handler of shardd: each entry is one line, which the log's writer gets as a whole.
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
        write(LineLogHandler.line(format, event.level, event.message.description, fields))
    }

    /// One entry as a line, its newline included.
    static func line(
        _ format: LogFormat,
        _ level: Logger.Level,
        _ message: String,
        _ fields: Logger.Metadata
    ) -> [UInt8] {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        var line = LogLine(format: format)
        line.add("time", .string(LogLine.timestamp(time)))
        line.add("level", .string(name(of: level)))
        line.add("msg", .string(message))
        for (key, value) in fields.sorted(by: { $0.key < $1.key }) { line.add(key, value) }
        line.finish()
        return line.bytes
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

extension LogWriter {
    /// The writer of a process's log: standard error.
    static func standardError(format: LogFormat) -> LogWriter {
        LogWriter { dropped in
            let message = "log entries were dropped here: standard error did not take them in time"
            return LineLogHandler.line(format, .warning, message, ["dropped": "\(dropped)"])
        }
    }
}

extension Logger {
    /// The logger of a process.
    static func lines(format: LogFormat, level: LogLevelBox, writer: LogWriter) -> Logger {
        Logger(label: "shardd") { _ in LineLogHandler(format: format, level: level) { writer.write($0) } }
    }
}
