// The composition root: from options to a running shardd.
// The serve command calls it on the main thread and maps what it throws to an exit code.
import Logging

/// A whole shardd.
public enum Server {
    /// Loads the configuration and logs it.
    public static func run(_ options: ServeOptions) throws(StartFailure) {
        let logger = Logger.standardError(format: options.logFormat, level: LogLevelBox(options.logLevel))
        do throws(ConfigurationErrors) {
            let configuration = try Configuration.load(file: options.configurationFile)
            logger.info(
                "configuration loaded",
                metadata: [
                    "file": .string(options.configurationFile),
                    "source": .string(configuration.consul == nil ? "static" : "consul"),
                    "shards": .stringConvertible(configuration.servers.count),
                ]
            )
        } catch {
            throw .configuration(error)
        }
    }
}
