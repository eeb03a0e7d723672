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
    private let script: @Sendable (_ connection: Int, _ request: Int) -> Step

    private struct State {
        var requests: [String] = []
        /// Those that are open, by number. Another test may get the descriptor of one that is closed.
        var connections: [Int: Int32] = [:]
        var connectionCount = 0
        var isStopped = false
    }

    /// - Parameter script: tells what to do with the nth request of the nth connection.
    init(_ script: @escaping @Sendable (_ connection: Int, _ request: Int) -> Step) {
        let (descriptor, port) = listenOnLoopback()
        listener = descriptor
        address = ShardAddress(host: "127.0.0.1", port: port)
        self.script = script
        Thread.detachNewThread { [self] in acceptAll() }
    }

    /// Everything that it was sent so far, request by request.
    var requests: [String] { state.withLock { $0.requests } }

    /// How many connections there were.
    var connectionCount: Int { state.withLock { $0.connectionCount } }

    /// Stops listening and ends all connections; their threads close the descriptors.
    func stop() {
        state.withLock { state in
            guard !state.isStopped else { return }
            state.isStopped = true
            shutdown(listener, Int32(SHUT_RDWR))
            for connection in state.connections.values { shutdown(connection, Int32(SHUT_RDWR)) }
        }
    }

    private func acceptAll() {
        defer { close(listener) }
        while true {
            let connection = accept(listener, nil, nil)
            guard connection >= 0 else { return }
            let number = state.withLock { state in
                state.connections[state.connectionCount] = connection
                state.connectionCount += 1
                return state.connectionCount - 1
            }
            Thread.detachNewThread { [self] in serve(connection, number) }
        }
    }

    private func serve(_ connection: Int32, _ number: Int) {
        defer {
            state.withLock { state in
                state.connections[number] = nil
                close(connection)
            }
        }
        var count = 0
        while let request = readMessage(connection, timeout: 60) {
            state.withLock { $0.requests.append(request) }
            let step = script(number, count)
            count += 1
            switch step {
            case .answer:
                sendAll(connection, ScriptedShard.ok)
            case .send(let text):
                sendAll(connection, text)
            case .sendAndClose(let text):
                sendAll(connection, text)
                return
            case .close:
                return
            case .reset:
                resetOnClose(connection)
                return
            case .answerLater(let milliseconds):
                usleep(milliseconds * 1000)
                sendAll(connection, ScriptedShard.ok)
            case .hang:
                while !state.withLock({ $0.isStopped }) { usleep(10_000) }
            }
        }
    }

    static let ok = "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
}
