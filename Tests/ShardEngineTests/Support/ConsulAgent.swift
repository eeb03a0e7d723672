// A real Consul agent on a loopback address of its own, and replicas that speak to it, each on a loop of its own thread.
import Foundation
import Glibc
import Logging
import MovingCore
import Synchronization

@testable import ShardEngine

/// A Consul agent, a server by itself or the client of one; ends with the tests, however they end.
final class ConsulAgent: Sendable {
    let host: String
    private let folder: URL
    private let isLasting: Bool
    private let server: ConsulAgent?
    private let running = Mutex<(process: Process, input: Pipe)?>(nil)

    /// - Parameters:
    ///   - isLasting: whether it has what it knew before when it is started again.
    ///   - server: the one whose client it is.
    init(isLasting: Bool = false, clientOf server: ConsulAgent? = nil) throws {
        self.server = server
        // Of the addresses that the loopback has, nearly all are free.
        host = "127.\(Int.random(in: 64...254)).\(Int.random(in: 0...254)).\(Int.random(in: 1...254))"
        self.isLasting = isLasting
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("shardd-consul-\(host)")
        try start()
    }

    deinit {
        kill()
        try? FileManager.default.removeItem(at: folder)
    }

    /// Starts it and waits until it has a leader.
    func start() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let quick = "-hcl=performance { raft_multiplier = 1 }"
        let member = server.map { ["-data-dir=\(folder.path)", "-retry-join=\($0.host)", "-retry-interval=1s"] }
        let mode =
            member
            ?? (isLasting
                ? ["-server", "-bootstrap-expect=1", "-data-dir=\(folder.path)", quick]
                : ["-dev"])
        let process = Process()
        // The shell ends the agent when its input ends, and that ends with the tests.
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        let begin = "exec 3<&0; \"$@\" </dev/null 3<&- & child=$!; echo $child >'\(processFile.path)'"
        let end = isLasting ? "" : "; rm -rf '\(folder.path)'"
        let script = "\(begin); cat <&3 >/dev/null; kill -9 $child; wait\(end)"
        let ports = "-hcl=ports { dns = -1, grpc = -1, serf_wan = -1 }"
        let places = ["-bind=\(host)", "-client=\(host)", "-node=node-\(host)", ports, "-log-level=warn"]
        process.arguments = ["-c", script, "consul", try ConsulAgent.program(), "agent"] + mode + places
        let input = Pipe()
        process.standardInput = input
        process.standardOutput = FileHandle.nullDevice
        process.standardError = FileHandle.nullDevice
        try process.run()
        running.withLock { $0 = (process, input) }
        let deadline = MonotonicTime.now().advanced(by: .seconds(30))
        while call(.get, "/v1/status/leader").text.count < 5 {
            guard MonotonicTime.now() < deadline else { throw ConsulFailure("Consul has no leader after 30 s") }
            usleep(50_000)
        }
    }

    /// Ends it as kill -9 does.
    func kill() {
        running.withLock { running in
            guard let (process, input) = running else { return }
            input.fileHandleForWriting.closeFile()
            process.waitUntilExit()
            running = nil
        }
    }

    /// Stops it as SIGSTOP does, or has it go on: connections stay open, and nothing answers.
    func pause(_ isPaused: Bool) throws {
        let text = try String(contentsOf: processFile, encoding: .utf8).trimmingCharacters(in: .whitespacesAndNewlines)
        guard let process = pid_t(text) else { throw ConsulFailure("the agent's process is not known") }
        Glibc.kill(process, isPaused ? SIGSTOP : SIGCONT)
    }

    private var processFile: URL { folder.appendingPathComponent("process") }

    /// Makes a request and waits for the answer; status 0 where there is none.
    @discardableResult
    func call(_ method: ShardEngine.Method, _ target: String, _ body: String = "") -> (status: Int, text: String) {
        let request = HTTPRequest(
            method: method,
            host: host,
            port: 8500,
            target: target,
            body: Array(body.utf8),
            timeout: .seconds(2)
        )
        guard case .response(let response) = HTTPSession(loop: EventLoop()).send(request) else { return (0, "") }
        return (response.status, String(decoding: response.body, as: UTF8.self))
    }

    /// The program that the scripts have fetched, or one that is installed.
    private static func program() throws -> String {
        let tree = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../..")
        let fetched = tree.standardized.appendingPathComponent(".build/tools/consul").path
        let paths = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { "\($0)/consul" }
        guard let path = ([fetched] + paths).first(where: FileManager.default.isExecutableFile) else {
            throw ConsulFailure("Consul is neither at \(fetched) nor on the PATH: run scripts/install-deps consul")
        }
        return path
    }
}

struct ConsulFailure: Error, CustomStringConvertible {
    var description: String

    init(_ description: String) { self.description = description }
}

/// A replica's register on a loop of its own thread.
final class TierReplica: @unchecked Sendable {
    /// What the register has told.
    struct Events {
        var snapshots: [TierSnapshot] = []
        /// When each was told.
        var times: [MonotonicTime] = []
        var losses: [String] = []
    }

    let id: UInt64
    private let loop = EventLoop()
    private let register: LoopBound<Box>
    private let boundLoop: LoopBound<EventLoop>
    private let thread: LoopThread
    private let events = Mutex(Events())
    private let noteEpoch = Mutex<Epoch>(0)

    private final class Box {
        var register: ConsulRegister?
    }

    init(_ agent: ConsulAgent, tier: String, wantsLock: Bool = false, datacenter: String? = nil) {
        id = .random(in: 1...(.max))
        var settings = Configuration.Consul()
        (settings.host, settings.serviceName, settings.datacenter) = (agent.host, tier, datacenter)
        let client = ConsulClient(loop: loop, resolver: Resolver(loop: loop), settings: settings)
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let made = ConsulRegister(loop: loop, client: client, id: id, logger: logger)
        let box = Box()
        box.register = made
        register = LoopBound(box, on: loop)
        boundLoop = LoopBound(loop, on: loop)
        // Nothing else keeps the loop from being idle, and an idle loop must not end.
        thread = LoopThread(loop)
        onLoop { [self] register in
            register.wantsLock = wantsLock
            register.note = { [self] in Note(epoch: noteEpoch.withLock { $0 }) }
            register.onSnapshot = { [self] snapshot in
                events.withLock {
                    $0.snapshots.append(snapshot)
                    $0.times.append(.now())
                }
            }
            register.onLoss = { [self] reason in events.withLock { $0.losses.append(reason) } }
            register.start()
        }
    }

    var seen: Events { events.withLock { $0 } }
    var last: TierSnapshot? { seen.snapshots.last }

    /// Runs `body` on the loop and waits for it.
    @discardableResult
    func onLoop<Result: Sendable>(_ body: @escaping @Sendable (ConsulRegister) -> Result) -> Result {
        let done = DispatchSemaphore(value: 0)
        let box = ResultBox<Result>()
        loop.mailbox.post { [register] in
            if let register = register.value.register { box.result = body(register) }
            done.signal()
        }
        done.wait()
        guard let result = box.result else { preconditionFailure("the replica is dead") }
        return result
    }

    /// Begins something on the loop and waits for what it is told.
    func waitOnLoop<Result: Sendable>(
        _ body: @escaping @Sendable (ConsulRegister, @escaping (Result) -> Void) -> Void
    ) -> Result {
        let done = DispatchSemaphore(value: 0)
        let box = ResultBox<Result>()
        onLoop { register in
            body(register) {
                box.result = $0
                done.signal()
            }
        }
        done.wait()
        guard let result = box.result else { preconditionFailure("no result") }
        return result
    }

    func write(_ register: Register, expecting epoch: Epoch?) -> TierSnapshot? {
        waitOnLoop { $0.write(register, expecting: epoch, $1) }
    }

    func writeNote(_ note: Note) -> Bool {
        noteEpoch.withLock { $0 = note.epoch }
        return waitOnLoop { $0.write(note, $1) }
    }

    /// Waits until the last snapshot is such a one; how long that has taken, or nil after 12 seconds.
    func wait(_ seconds: Double = 12, for isSuch: (TierSnapshot) -> Bool) -> TimeSpan? {
        waitUntil(seconds) { self.last.map(isSuch) == true }
    }

    /// Stops the process for a while, as SIGSTOP does, and then reads first.
    ///
    /// - Returns: the last snapshot that was told when the reading was done.
    func stop(seconds: Double) -> TierSnapshot? {
        waitOnLoop { [self] register, done in
            let before = seen.snapshots.count
            usleep(UInt32(seconds * 1e6))
            // At the end of the turn, as the turn is found to be late only then.
            loop.park { [self] in
                register.readFirst { [self] in
                    let events = seen
                    done(events.snapshots.count > before ? events.snapshots.last : nil)
                }
            }
        }
    }

    func leave() {
        let _: Bool = waitOnLoop { register, done in register.leave { done(true) } }
    }

    /// Ends it without a goodbye.
    func kill() {
        boundLoop.post { $0.stop() }
        thread.join()
        register.value.register = nil
    }
}

/// How long it takes until this is so; nil when it is not so in time.
func waitUntil(_ seconds: Double = 12, _ isSo: () -> Bool) -> TimeSpan? {
    let start = MonotonicTime.now()
    while !isSo() {
        if MonotonicTime.now().since(start) > .seconds(seconds) { return nil }
        usleep(2000)
    }
    return MonotonicTime.now().since(start)
}
