// What the command line settles for a running shardd, and how a start may fail.
// The serve command makes the options and hands them to the server, which keeps them for reloads.

/// The command line of `shardd serve`, read.
public struct ServeOptions: Sendable {
    /// The file to read the configuration from, at start and at every reload.
    public var configurationFile: String
    /// The least severe entries that are logged.
    public var logLevel: LogLevel
    /// How log entries are written.
    public var logFormat: LogFormat
    /// Whether `/-/reload` and `/-/quit` are served.
    public var enableLifecycle: Bool
    /// Whether the endpoints that change something other than groups are served.
    public var enableAdminAPI: Bool

    /// What was built.
    public var build: BuildInfo

    /// Takes each option as the command line gave it.
    public init(
        configurationFile: String,
        logLevel: LogLevel,
        logFormat: LogFormat,
        enableLifecycle: Bool,
        enableAdminAPI: Bool,
        build: BuildInfo
    ) {
        self.configurationFile = configurationFile
        self.logLevel = logLevel
        self.logFormat = logFormat
        self.enableLifecycle = enableLifecycle
        self.enableAdminAPI = enableAdminAPI
        self.build = build
    }
}

/// Why a server did not start.
public enum StartFailure: Error {
    /// The configuration has problems.
    case configuration(ConfigurationErrors)
    /// The system refused something, such as the port, for the reason given.
    case runtime(String)
}
