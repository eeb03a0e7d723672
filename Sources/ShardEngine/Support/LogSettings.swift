// What an operator chooses about the log: how an entry is written, and which entries are.
// The command line makes them; the log handler reads them at every entry, and a reload may change the level.
import Logging
import Synchronization

/// How an entry of the log is written; one line either way.
public enum LogFormat: String, CaseIterable, Sendable {
    /// `key=value` pairs, as Prometheus and its Pushgateway log.
    case logfmt
    /// One JSON object.
    case json
}

/// The least severe entries that are written.
public enum LogLevel: String, CaseIterable, Sendable {
    /// Every request too.
    case debug
    /// Changes of state.
    case info
    /// What an operator should look at.
    case warn
    /// What does not work.
    case error

    /// The level as swift-log knows it.
    public var level: Logger.Level {
        switch self {
        case .debug: .debug
        case .info: .info
        case .warn: .warning
        case .error: .error
        }
    }
}

/// The log level that every logger of the process shares, so that a change reaches them all at once.
public final class LogLevelBox: Sendable {
    /// The index among all levels: an atomic, for every debug entry that is not written asks for it.
    private let index: Atomic<Int>

    /// Starts at `level`.
    public init(_ level: LogLevel) {
        index = Atomic(LogLevelBox.index(of: level))
    }

    /// The level now; any thread may read or set it.
    public var level: LogLevel {
        get { LogLevel.allCases[index.load(ordering: .relaxed)] }
        set { index.store(LogLevelBox.index(of: newValue), ordering: .relaxed) }
    }

    private static func index(of level: LogLevel) -> Int {
        LogLevel.allCases.firstIndex(of: level).unsafelyUnwrapped
    }
}
