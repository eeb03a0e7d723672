// `shardd check-config`: tells every problem of a configuration file, and changes nothing.
import ArgumentParser
import ShardEngine

struct CheckConfig: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Check a configuration file and tell every problem with its line.",
        discussion: "Exits 0, or 78 when there is a problem."
    )

    @OptionGroup var file: ConfigurationFile

    func run() throws {
        do throws(ConfigurationErrors) {
            let configuration = try Configuration.load(file: file.path)
            let discovery = configuration.consul.map { "from Consul service \($0.serviceName)" } ?? "static"
            print("\(file.path): valid; shards: \(configuration.servers.count) in the file, discovery \(discovery)")
        } catch {
            throw Failure.configuration(error)
        }
    }
}
