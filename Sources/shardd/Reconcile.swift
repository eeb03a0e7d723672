// `shardd reconcile` and `shardd drain`: move groups to where they belong.
import ArgumentParser
import Glibc
import ShardEngine

struct Reconcile: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Move every group to the shard that owns it.",
        discussion:
            "Prints a line for each copy that is not on its owner: group, from, to and reason, with tabs between."
    )

    @OptionGroup var file: ConfigurationFile

    @Flag(name: .customLong("dry-run"), help: "Print the plan and do nothing.")
    var isDryRun = false

    func run() throws {
        let command = ReconcileCommand(try file.load(), isDryRun: isDryRun, version: build.version)
        do throws(RunFailure) {
            try command.run(line: printLine, note: printNote)
        } catch {
            throw Failure.runtime(error.reason)
        }
    }
}

struct Drain: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Empty a shard: out of the ring, its groups moved, deregistered.",
        discussion: "It can be interrupted, and run again."
    )

    @OptionGroup var file: ConfigurationFile

    @Argument(help: "The shard, as host:port.")
    var shard: ShardAddress

    @Flag(help: "Take back a drain: the shard is used again.")
    var undo = false

    @Flag(help: "Give up a shard that will not come back: what it alone has is lost.")
    var gone = false

    func validate() throws {
        if undo && gone { throw ValidationError("--undo and --gone cannot be used together") }
    }

    func run() throws {
        let kind: DrainCommand.Kind = undo ? .undo : gone ? .gone : .empty
        let configuration = try file.load()
        if kind == .empty, configuration.consul == nil, configuration.servers.contains(shard) {
            throw ValidationError("take \(shard) out of pushgateway.servers and reload shardd, then drain it")
        }
        let command = DrainCommand(configuration, shard: shard, kind: kind, version: build.version)
        do throws(RunFailure) {
            try command.run(line: printLine, note: printNote)
        } catch {
            throw Failure.runtime(error.reason)
        }
    }
}

extension ShardAddress: ExpressibleByArgument {
    /// A shard on the command line has its port with it.
    public init?(argument: String) {
        self.init(parsing: argument)
    }
}

/// At once, so that progress is seen through a pipe too.
func printLine(_ text: String) { write(text, to: STDOUT_FILENO) }

func printNote(_ text: String) { write("shardd: \(text)", to: STDERR_FILENO) }

private func write(_ text: String, to descriptor: Int32) {
    var line = text + "\n"
    line.withUTF8 { _ = Glibc.write(descriptor, $0.baseAddress, $0.count) }
}
