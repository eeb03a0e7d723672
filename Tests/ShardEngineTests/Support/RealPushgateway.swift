// A Pushgateway of the machine's, the one in PATH, on a loopback port of its own and without a file.
import Foundation
import Glibc

@testable import ShardEngine

/// A running Pushgateway; ends with its owner.
final class RealPushgateway {
    let address: ShardAddress
    private let process = Process()

    /// - Parameter isChecking: whether it checks pushes for consistency before it answers.
    init(isChecking: Bool = true) throws {
        let (descriptor, port) = listenOnLoopback()
        close(descriptor)
        address = ShardAddress(host: "127.0.0.1", port: port)
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments =
            [
                "prometheus-pushgateway", "--persistence.file=", "--web.listen-address=\(address)", "--log.level=error",
            ] + (isChecking ? [] : ["--push.disable-consistency-check"])
        // Should the tests crash, nobody waits for what it might print.
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        for _ in 0..<500 {
            let client = connectToLoopback(port: port)
            if client >= 0 {
                close(client)
                return
            }
            usleep(10_000)
        }
        preconditionFailure("no Pushgateway at \(address)")
    }

    deinit {
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }

    /// Has it do nothing until `go()`.
    func stop() {
        kill(process.processIdentifier, SIGSTOP)
        // It goes on for a moment.
        let state = "/proc/\(process.processIdentifier)/stat"
        while (try? String(contentsOfFile: state, encoding: .utf8))?.contains(") T ") == false {
            usleep(1000)
        }
    }

    func go() { kill(process.processIdentifier, SIGCONT) }
}
