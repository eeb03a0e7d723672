// The command line's root: its subcommands, and how a failure ends the process.
// A subcommand does its work through ShardEngine and throws `Failure` for anything but success.
import ArgumentParser
import Glibc
import ShardEngine

@main
struct Shardd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "shardd",
        abstract: "A stateless ingress tier for Prometheus Pushgateways.",
        version: "shardd \(build.version) (\(build.revision), built \(build.date), Swift \(build.swiftVersion))",
        subcommands: [Serve.self, CheckConfig.self, Locate.self, Reconcile.self, Drain.self, Cleanup.self],
        defaultSubcommand: Serve.self
    )

    /// Runs the command that the arguments name. Exits 0, 64 for wrong usage, or with the code of the failure.
    static func main() {
        do {
            var command = try parseAsRoot()
            try command.run()
        } catch let failure as Failure {
            report(failure.message)
            exit(withError: failure.exitCode)
        } catch {
            guard exitCode(for: error) == .validationFailure else { exit(withError: error) }
            report("shardd: \(message(for: error).replacing("\n", with: " ")) (see shardd --help)")
            exit(withError: ExitCode.validationFailure)
        }
    }

    private static func report(_ message: String) {
        var line = message + "\n"
        line.withUTF8 { _ = write(STDERR_FILENO, $0.baseAddress, $0.count) }
    }
}

/// How a command fails: what standard error is told, and the exit code.
enum Failure: Error {
    /// The configuration has problems; each is a line of its own.
    case configuration(ConfigurationErrors)
    /// The system refused something.
    case runtime(String)

    /// The lines for standard error.
    var message: String {
        switch self {
        case .configuration(let errors): errors.description
        case .runtime(let reason): "shardd: \(reason)"
        }
    }

    /// By sysexits.h for the configuration (EX_CONFIG), 1 for the rest.
    var exitCode: ExitCode {
        switch self {
        case .configuration: ExitCode(78)
        case .runtime: ExitCode(1)
        }
    }
}
