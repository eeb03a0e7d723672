// `shardd cleanup`: removes what shardd keeps for itself in shards and in Consul.
import ArgumentParser
import ShardEngine

struct Cleanup: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Remove shardd's own groups and Consul keys, before uninstalling it.",
        discussion: """
            Stop all replicas first, when every group is on its owner and no shard is absent. Nothing is removed unless every \
            shard answers. Clients' groups stay as they are. Prints a line for each shard and one for Consul.

            Exits 0, or 1 when it could not be done; it can then be run again.
            """
    )

    @OptionGroup var file: ConfigurationFile

    func run() throws {
        let command = CleanupCommand(try file.load())
        do throws(RunFailure) {
            try command.run(line: printLine, note: printNote)
        } catch {
            throw Failure.runtime(error.reason)
        }
    }
}
