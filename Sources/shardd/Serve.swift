// `shardd serve`, which is also what shardd does without a subcommand.
import ArgumentParser
import ShardEngine

struct Serve: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Take pushes and send each to its shard.",
        discussion: "SIGTERM and SIGINT finish what was received and end; SIGHUP reads the configuration again."
    )

    @OptionGroup var file: ConfigurationFile

    @Option(name: .customLong("log.level"), help: "The least severe entries to log.")
    var logLevel = LogLevel.info

    @Option(name: .customLong("log.format"), help: "How log entries are written.")
    var logFormat = LogFormat.logfmt

    @Flag(name: .customLong("web.enable-lifecycle"), help: "Serve /-/reload and /-/quit.")
    var enableLifecycle = false

    @Flag(name: .customLong("web.enable-admin-api"), help: "Serve the endpoints of the admin API.")
    var enableAdminAPI = false

    func run() throws {
        let options = ServeOptions(
            configurationFile: file.path,
            logLevel: logLevel,
            logFormat: logFormat,
            enableLifecycle: enableLifecycle,
            enableAdminAPI: enableAdminAPI,
            build: build
        )
        do throws(StartFailure) {
            try Server.run(options)
        } catch {
            switch error {
            case .configuration(let errors): throw Failure.configuration(errors)
            case .runtime(let reason): throw Failure.runtime(reason)
            }
        }
    }
}

/// The option that names the configuration file, for every command that reads it.
struct ConfigurationFile: ParsableArguments {
    @Option(name: .customLong("config.file"), help: "The configuration file.")
    var path = ConfigurationFile.defaultPath

    /// The file when none is named.
    static let defaultPath = "shardd.yml"

    /// What the file says.
    func load() throws -> Configuration {
        do throws(ConfigurationErrors) {
            return try Configuration.load(file: path)
        } catch {
            throw Failure.configuration(error)
        }
    }
}

extension LogFormat: ExpressibleByArgument {}

extension LogLevel: ExpressibleByArgument {}
