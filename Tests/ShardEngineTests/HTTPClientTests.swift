// The HTTP client against peers that do as they should, and peers that do not. The peers are scripted: no real server
// can be told to send a head without an end, or to be silent at a chosen moment.
import Foundation
import Glibc
import Synchronization
import Testing

@testable import ShardEngine

@Suite struct HTTPClientTests {
    /// Makes one call on a loop of its own and runs the loop until the call has ended.
    private func outcome(
        _ address: ShardAddress,
        host: String? = nil,
        timeout: TimeSpan = .seconds(5),
        lookUp: @escaping @Sendable (String, Int) -> Resolution = { _, _ in Resolution(failure: "no such name") },
        configure: (inout HTTPRequest) -> Void = { _ in }
    ) -> HTTPOutcome? {
        let loop = EventLoop()
        let resolver = Resolver(loop: loop, lookUp: lookUp)
        var request = HTTPRequest(host: host ?? address.host, port: address.port, target: "/a?b", timeout: timeout)
        configure(&request)
        var result: HTTPOutcome?
        let call = HTTPCall(loop: loop, resolver: resolver, request) { outcome in
            precondition(result == nil, "two outcomes")
            result = outcome
            loop.stop()
        }
        withExtendedLifetime((call, resolver)) { loop.run() }
        return result
    }

    private func reason(_ outcome: HTTPOutcome?) -> String? {
        guard case .failed(let reason) = outcome else { return nil }
        return reason
    }

    private func response(_ outcome: HTTPOutcome?) -> HTTPResponse? {
        guard case .response(let response) = outcome else { return nil }
        return response
    }

    private func answering(_ step: ScriptedShard.Step) -> ScriptedShard { ScriptedShard { _, _ in step } }

    /// Of a batch: what has not begun when a run has to end is not made.
    @Test func aSessionMakesNoRequestThatMayNotBeMadeAnyMore() {
        let peer = answering(.answer)
        defer { peer.stop() }
        let session = HTTPSession(loop: EventLoop())
        let request = HTTPRequest(host: peer.address.host, port: peer.address.port, target: "/", timeout: .seconds(5))
        var ended = 0
        let outcomes = session.sendAll(
            Array(repeating: request, count: 10),
            atOnce: 1,
            mayStart: { _ in ended < 3 },
            onEnd: { _, _ in ended += 1 }
        )
        #expect(
            outcomes.map { response($0)?.status } == Array(repeating: 200, count: 3) + Array(repeating: nil, count: 7)
        )
        #expect(peer.requests.count == 3)
    }

    @Test func sendsTheRequestAndReadsTheResponse() throws {
        let peer = answering(.send("HTTP/1.1 201 Created\r\nX-Thing: yes\r\nContent-Length: 5\r\n\r\nhello"))
        defer { peer.stop() }
        let outcome = outcome(
            peer.address,
            configure: {
                $0.method = .put
                $0.headers = [("X-Consul-Token", "t")]
                $0.body = Array("body".utf8)
            }
        )
        let answer = try #require(response(outcome))
        #expect(answer.status == 201)
        #expect(answer.header("x-thing") == "yes")
        #expect(answer.header("x-other") == nil)
        #expect(String(decoding: answer.body, as: UTF8.self) == "hello")
        let request = try #require(peer.requests.first)
        #expect(request.hasPrefix("PUT /a?b HTTP/1.1\r\n"))
        #expect(request.contains("\r\nHost: \(peer.address.text)\r\n"))
        #expect(request.contains("\r\nX-Consul-Token: t\r\n"))
        #expect(request.contains("\r\nContent-Length: 4\r\n"))
        #expect(request.hasSuffix("\r\n\r\nbody"))
    }

    @Test func readsChunks() throws {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        let peer = answering(.send(head + "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
        defer { peer.stop() }
        let answer = try #require(response(outcome(peer.address)))
        #expect(String(decoding: answer.body, as: UTF8.self) == "abcde")
    }

    @Test(arguments: [
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "Content-Length: 5\r\n\r\nabcde",
    ])
    func leavesABodyInPiecesIfWanted(rest: String) throws {
        let peer = answering(.send("HTTP/1.1 200 OK\r\n" + rest))
        defer { peer.stop() }
        let answer = try #require(response(outcome(peer.address, configure: { $0.leavesPieces = true })))
        #expect(answer.body.isEmpty && String(decoding: answer.pieces.joined(), as: UTF8.self) == "abcde")
    }

    @Test func saysThatConnectionsAreRefused() {
        let refusing = RefusingAddress()
        #expect(reason(outcome(refusing.address)) == "it refuses connections")
    }

    @Test func saysWhyANameHasNoAddress() {
        let name = ShardAddress(host: "name.test", port: 1)
        #expect(reason(outcome(name)) == "its name does not resolve: no such name")
        let slow = outcome(
            name,
            timeout: .milliseconds(100),
            lookUp: { _, _ in
                usleep(500_000)
                return Resolution()
            }
        )
        #expect(reason(slow) == "its name does not resolve in time")
    }

    /// On one port: nobody at 127.0.0.3, at 127.0.0.2 a peer whose queue is full, so that it swallows connections.
    @Test(arguments: [["127.0.0.3"], ["127.0.0.2"], ["127.0.0.3", "127.0.0.2", "127.0.0.3"]])
    func triesTheNextAddressOfAName(hosts: [String]) throws {
        let peer = answering(.answer)
        defer { peer.stop() }
        let port = peer.address.port
        let full = FullPeer(host: "127.0.0.2", port: port)
        defer { full.stop() }
        let outcome = outcome(
            peer.address,
            host: "name.test",
            lookUp: { _, _ in
                Resolution(addresses: (hosts + ["127.0.0.1"]).compactMap { SocketAddress(literal: $0, port: port) })
            }
        )
        #expect(response(outcome)?.status == 200)
        #expect(try #require(peer.requests.first).contains("\r\nHost: name.test:\(port)\r\n"))
    }

    @Test func saysThatThereIsNoConnection() {
        let full = FullPeer(host: "127.0.0.2", port: 0)
        defer { full.stop() }
        let address = ShardAddress(host: "127.0.0.2", port: full.port)
        #expect(reason(outcome(address, timeout: .milliseconds(200))) == "no connection in time")
    }

    @Test func endsAfterItsTimeWithASilentPeer() {
        let peer = answering(.hang)
        defer { peer.stop() }
        let start = MonotonicTime.now()
        #expect(reason(outcome(peer.address, timeout: .milliseconds(200))) == "no response in time")
        let took = MonotonicTime.now().since(start)
        #expect(took >= .milliseconds(190) && took < .seconds(2))
    }

    /// A peer that sends without end, a piece every 20 ms, so that it is never silent for long.
    private func trickling(_ head: String, _ piece: String) -> (address: ShardAddress, stop: () -> Void) {
        let (listener, port) = listenOnLoopback()
        Thread.detachNewThread {
            let connection = accept(listener, nil, nil)
            guard connection >= 0 else { return }
            defer { close(connection) }
            let bytes = Array((head + piece).utf8)
            guard send(connection, bytes, bytes.count, Int32(MSG_NOSIGNAL)) > 0 else { return }
            let more = Array(piece.utf8)
            while send(connection, more, more.count, Int32(MSG_NOSIGNAL)) > 0 { usleep(20_000) }
        }
        return (
            ShardAddress(host: "127.0.0.1", port: port),
            {
                shutdown(listener, Int32(SHUT_RDWR))
                close(listener)
            }
        )
    }

    @Test func itsTimeIsForTheWholeResponse() {
        let peer = trickling("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", "x")
        defer { peer.stop() }
        #expect(reason(outcome(peer.address, timeout: .milliseconds(300))) == "no response in time")
    }

    /// Heads, size lines of chunks and bodies that never end, in pieces large enough to pass any limit at once.
    @Test(arguments: [
        "", "HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n",
    ])
    func takesNoMoreThanItsLimit(head: String) {
        let peer = trickling(head, String(repeating: "x", count: 1 << 20))
        defer { peer.stop() }
        let outcome = outcome(peer.address, timeout: .seconds(10), configure: { $0.bodyLimit = 64 << 10 })
        #expect(reason(outcome) == "the response is not HTTP, or too long")
    }

    @Test(arguments: [
        ("", "the connection was closed without a response"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "the connection was closed without a response"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            "the connection was closed without a response"
        ),
        ("NOT HTTP AT ALL\r\n\r\n", "the response is not HTTP, or too long"),
        ("HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", "the response is not HTTP, or too long"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "the response is not HTTP, or too long"),
    ])
    func saysWhatIsWrongWithAResponse(text: String, expected: String) {
        let peer = answering(.sendAndClose(text))
        defer { peer.stop() }
        #expect(reason(outcome(peer.address)) == expected)
    }

    @Test func survivesAReset() {
        let peer = answering(.reset)
        defer { peer.stop() }
        #expect(reason(outcome(peer.address)) == "the connection was closed without a response")
    }

    @Test func sendsNoHeaderThatWouldBeTwo() {
        let peer = answering(.answer)
        defer { peer.stop() }
        let outcome = outcome(peer.address, configure: { $0.headers = [("X-Consul-Token", "t\r\nX-Other: 1")] })
        #expect(reason(outcome) == "a header of the request has bytes that no header may have")
        #expect(peer.requests.isEmpty)
    }

    /// Letting go of calls at every stage closes every connection and calls nobody back.
    @Test func aCallThatIsLetGoIsCancelled() {
        let peer = CountingPeer()
        let loop = EventLoop()
        let resolver = Resolver(loop: loop) { _, port in
            Resolution(addresses: [SocketAddress(literal: "127.0.0.1", port: port)].compactMap(\.self))
        }
        for delay: UInt64 in [0, 1, 5, 20] {
            for host in ["127.0.0.1", "name.test"] {
                var calls = (0..<25).map { _ in
                    let request = HTTPRequest(host: host, port: peer.port, target: "/", timeout: .seconds(5))
                    return HTTPCall(loop: loop, resolver: resolver, request) { _ in
                        Issue.record("a cancelled call has called back")
                    }
                }
                let cancel = Timer(loop: loop) { calls.removeAll() }
                cancel.schedule(after: .milliseconds(delay))
                let stop = Timer(loop: loop) { loop.stop() }
                stop.schedule(after: .milliseconds(delay + 50))
                loop.run()
                withExtendedLifetime((cancel, stop)) {}
            }
        }
        var counts = peer.counts
        for _ in 0..<200 where counts.accepted == 0 || counts.closed < counts.accepted {
            usleep(20_000)
            counts = peer.counts
        }
        #expect(counts.accepted > 0)
        #expect(counts.closed == counts.accepted)
        peer.stop()
    }
}

/// Listens, and has as many connections waiting as it lets wait: the kernel drops further ones.
private final class FullPeer {
    let port: Int
    private var descriptors: [Int32]

    init(host: String, port: Int) {
        guard let wanted = SocketAddress(literal: host, port: port) else { preconditionFailure("no literal") }
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        precondition(wanted.withSockaddr { bind(listener, $0, $1) } == 0 && listen(listener, 0) == 0)
        var bound = sockaddr_in()
        var size = socklen_t(MemoryLayout<sockaddr_in>.size)
        withUnsafeMutablePointer(to: &bound) { pointer in
            _ = pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(listener, $0, &size) }
        }
        self.port = Int(UInt16(bigEndian: bound.sin_port))
        descriptors = [listener]
        for _ in 0..<4 {
            let waiting = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            guard let address = SocketAddress(literal: host, port: self.port) else { continue }
            _ = address.withSockaddr { connect(waiting, $0, $1) }
            descriptors.append(waiting)
        }
    }

    func stop() {
        for descriptor in descriptors { close(descriptor) }
        descriptors = []
    }
}

/// Accepts, reads, never answers, and counts whose other end has been closed.
private final class CountingPeer: Sendable {
    let port: Int
    private let listener: Int32
    private let state = Mutex((accepted: 0, closed: 0))

    init() {
        (listener, port) = listenOnLoopback()
        Thread.detachNewThread { [self] in
            defer { close(listener) }
            while true {
                let connection = accept(listener, nil, nil)
                guard connection >= 0 else { return }
                state.withLock { $0.accepted += 1 }
                Thread.detachNewThread { [self] in
                    var byte: UInt8 = 0
                    while recv(connection, &byte, 1, 0) > 0 {}
                    close(connection)
                    state.withLock { $0.closed += 1 }
                }
            }
        }
    }

    var counts: (accepted: Int, closed: Int) { state.withLock { $0 } }

    func stop() { shutdown(listener, Int32(SHUT_RDWR)) }
}
