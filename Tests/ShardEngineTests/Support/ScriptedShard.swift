// A stub for faults that a real Pushgateway cannot be made to show at a chosen moment: closing before an answer, in the
// middle of one, garbage, silence. It also records what it was sent, which a real one does not tell.
import Foundation
import Glibc
import Synchronization

@testable import ShardEngine

/// A shard that does as it is told, request by request.
final class ScriptedShard: Sendable {
    /// What to do with a request.
    enum Step: Sendable {
        /// Answers with 200 and no body.
        case answer
        /// Sends the text, whatever it is.
        case send(String)
        /// Sends the text and closes.
        case sendAndClose(String)
        /// Closes without an answer.
        case close
        /// Resets the connection without an answer.
        case reset
        /// Waits for so many milliseconds, then answers.
        case answerLater(UInt32)
        /// Never answers.
        case hang
    }

    let address: ShardAddress
    private let listener: Int32
    private let state = Mutex(State())
    private let script: @Sendable (_ connection: Int, _ request: Int, _ text: String) -> Step
    private let greeting: String
    private let health: Step

    private struct State {
        var requests: [String] = []
        /// Those that are open. Another test may get the descriptor of one that is closed.
        var connections: Set<Int32> = []
        var connectionCount = 0
        var healthChecks = 0
        var isStopped = false
    }

    /// - Parameters:
    ///   - health: what to do with health checks, which are not recorded.
    ///   - script: tells what to do with the nth request of the nth connection that had any.
    convenience init(
        health: Step = .answer,
        _ script: @escaping @Sendable (_ connection: Int, _ request: Int) -> Step
    ) {
        self.init(health: health) { connection, request, _ in script(connection, request) }
    }

    /// - Parameters:
    ///   - greeting: what it says on every connection before it is sent anything.
    ///   - script: gets the request as well.
    init(
        health: Step = .answer,
        greeting: String = "",
        _ script: @escaping @Sendable (_ connection: Int, _ request: Int, _ text: String) -> Step
    ) {
        let (descriptor, port) = listenOnLoopback()
        listener = descriptor
        address = ShardAddress(host: "127.0.0.1", port: port)
        self.script = script
        self.health = health
        self.greeting = greeting
        Thread.detachNewThread { [self] in acceptAll() }
    }

    /// Everything that it was sent so far, request by request.
    var requests: [String] { state.withLock { $0.requests } }

    /// Those that are clients' PUTs as they came: where one stands in for another, more goes with them.
    var puts: [String] { requests.filter { $0.hasPrefix("PUT ") } }

    /// How many connections there were on which requests came.
    var connectionCount: Int { state.withLock { $0.connectionCount } }

    /// How many health checks there were.
    var healthChecks: Int { state.withLock { $0.healthChecks } }

    /// Sends the text on all its connections, unasked.
    func say(_ text: String) {
        state.withLock { state in
            for connection in state.connections { sendAll(connection, text) }
        }
    }

    /// Stops listening and ends all connections; their threads close the descriptors.
    func stop() {
        state.withLock { state in
            guard !state.isStopped else { return }
            state.isStopped = true
            shutdown(listener, Int32(SHUT_RDWR))
            for connection in state.connections { shutdown(connection, Int32(SHUT_RDWR)) }
        }
    }

    private func acceptAll() {
        defer { close(listener) }
        while true {
            let connection = accept(listener, nil, nil)
            guard connection >= 0 else { return }
            // What is sent is not to wait for an acknowledgement of what was sent before.
            var on: Int32 = 1
            setsockopt(connection, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
            state.withLock { _ = $0.connections.insert(connection) }
            Thread.detachNewThread { [self] in serve(connection) }
        }
    }

    private func serve(_ connection: Int32) {
        defer {
            state.withLock { state in
                state.connections.remove(connection)
                close(connection)
            }
        }
        var number: Int?
        var count = 0
        sendAll(connection, greeting)
        while let request = readMessage(connection, timeout: 60) {
            if request.hasPrefix("GET /-/healthy ") {
                state.withLock { $0.healthChecks += 1 }
                guard perform(health, connection) else { return }
                continue
            }
            let connectionNumber = state.withLock { state in
                state.requests.append(request)
                if number == nil { state.connectionCount += 1 }
                return number ?? state.connectionCount - 1
            }
            number = connectionNumber
            guard perform(script(connectionNumber, count, request), connection) else { return }
            count += 1
        }
    }

    /// Returns whether the connection goes on.
    private func perform(_ step: Step, _ connection: Int32) -> Bool {
        switch step {
        case .answer:
            sendAll(connection, ScriptedShard.ok)
        case .send(let text):
            sendAll(connection, text)
        case .sendAndClose(let text):
            sendAll(connection, text)
            return false
        case .close:
            return false
        case .reset:
            resetOnClose(connection)
            return false
        case .answerLater(let milliseconds):
            usleep(milliseconds * 1000)
            sendAll(connection, ScriptedShard.ok)
        case .hang:
            while !state.withLock({ $0.isStopped }) { usleep(10_000) }
        }
        return true
    }

    static let ok = "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
}
