// The command line: parses arguments, calls the engine, maps its errors to exit codes.
import ArgumentParser

@main
struct Shardd: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "shardd")
}
