// `shardd locate`: where pushes go, computed here from a configuration, with no server asked.
import ArgumentParser
import Glibc
import ShardEngine

struct Locate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Tell the shard of each path, offline.",
        discussion: """
            Prints the path, its grouping key, the key's hash and the shard, with a tab between, for every path given \
            or, when none is, read from standard input, one on each line. A path may have a query, and may be a whole \
            URL. Backslashes and control characters are printed as \\\\, \\t, \\n, \\r or \\xHH.

            Exits 0, or 1 when a path is not that of a push, which standard error is told. With discovery by Consul \
            the ring is made of what Consul has: name those shards by --shards.
            """
    )

    @Option(name: .customLong("config.file"), help: "The configuration file (default: shardd.yml; none with --shards).")
    var file: String?

    @Option(help: ArgumentHelp("Shards instead of the file's.", valueName: "host:port,…"))
    var shards: ShardList?

    @Flag(help: "Print an object of JSON on each line, which also names the shard that failover would use.")
    var json = false

    @Argument(help: "Paths of pushes, such as /metrics/job/backup/instance/a.")
    var paths: [String] = []

    func run() throws {
        let configuration = try loadConfiguration()
        let shards = self.shards?.addresses ?? configuration.servers
        guard !shards.isEmpty else {
            throw ValidationError("the file has no pushgateway.servers; name the shards by --shards")
        }
        let locator = Locator(
            ring: Ring(shards: shards, vnodes: configuration.hash.vnodes),
            configuration: configuration,
            format: json ? .json : .tabSeparated
        )
        do throws(Locator.Failure) {
            if paths.isEmpty {
                try locator.locateLines(of: STDIN_FILENO)
            } else {
                try locator.locate(paths)
            }
        } catch {
            throw Failure.runtime(error.reason)
        }
        if !locator.areAllPushes { throw ExitCode.failure }
    }

    private func loadConfiguration() throws -> Configuration {
        if file == nil, shards != nil { return Configuration() }
        do throws(ConfigurationErrors) {
            return try Configuration.load(file: file ?? ConfigurationFile.defaultPath)
        } catch {
            throw Failure.configuration(error)
        }
    }
}

/// Addresses with commas between.
struct ShardList: ExpressibleByArgument {
    let addresses: [ShardAddress]

    init?(argument: String) {
        let addresses = argument.split(separator: ",").map { ShardAddress(parsing: $0) }
        self.addresses = addresses.compactMap { $0 }
        guard !addresses.isEmpty, self.addresses.count == addresses.count else { return nil }
    }
}
