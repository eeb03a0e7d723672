// A worker on a loop of its own thread, between raw clients and scripted shards.
import Foundation
import Glibc
import Logging
import MovingCore

@testable import ShardEngine

/// A worker that serves on a loopback port until it is stopped.
final class EngineUnderTest: @unchecked Sendable {
    let port: Int
    let ring: Ring
    private let loop: EventLoop
    private let worker: Worker
    private let boundWorker: LoopBound<Worker>
    private let stopped = DispatchSemaphore(value: 0)

    init(shards: [ShardAddress], _ configure: (inout Configuration) -> Void = { _ in }) throws {
        var configuration = Configuration()
        configuration.servers = shards
        // Nothing is moved, so that pushes leave no marks.
        configuration.reconcile.enabled = false
        configure(&configuration)
        let loop = EventLoop()
        self.loop = loop
        let listener = try Listener(loop: loop, host: "127.0.0.1", port: 0, sharesPort: false)
        port = listener.port
        worker = Worker(
            loop: loop,
            configuration: configuration,
            descriptorLimit: 1000,
            resolver: Resolver(loop: loop),
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        )
        boundWorker = LoopBound(worker, on: loop)
        ring = Ring(shards: shards, vnodes: 100)
        EngineUnderTest.serve(worker, ring)
        worker.pushHandler.onOther = { connection, _ in connection.reply(status: 404, line: "not found") }
        worker.server.start(listener)
        let thread = Thread { [self] in
            self.loop.run()
            worker.server.close()
            worker.forwarder.close()
            stopped.signal()
        }
        thread.start()
    }

    /// Has the worker serve by a register of its own, in which stores go by their addresses, and in which it fails over those
    /// that do not take pushes, as the tier does.
    static func serve(_ worker: Worker, _ ring: Ring) {
        guard !ring.isEmpty else { return }
        let members = TierMembers(vnodes: ring.vnodes, settle: .zero, movesGroups: false)
        members.healthy = ring.shards
        let register = members.firstRegister(members.sightings(nil))
        let rings = Rings(before: register.ring.map(ring))
        worker.onFailure = { [unowned worker] store, _ in
            guard let view = worker.forwarder.follower?.following.view, !view.isDown(store) else { return }
            let failed = view.failingOver(store, rings: rings, backupStarts: [:])
            worker.loop.park { [unowned worker] in
                let placement = Placement(ring: ring, register: failed, rings: rings)
                worker.follow(placement, peers: [], hasConsul: true, settings: 0)
            }
        }
        let placement = Placement(ring: ring, register: register, rings: rings)
        worker.follow(placement, peers: [], hasConsul: true, settings: 0)
    }

    /// Stops the loop and waits for it.
    func stop() {
        boundWorker.post { $0.loop.stop() }
        stopped.wait()
    }

    /// Runs `body` on the loop and returns its result.
    func onLoop<Result: Sendable>(_ body: @escaping @Sendable (Worker) -> Result) -> Result {
        let done = DispatchSemaphore(value: 0)
        let box = ResultBox<Result>()
        boundWorker.post {
            box.result = body($0)
            done.signal()
        }
        done.wait()
        guard let result = box.result else { preconditionFailure("no result") }
        return result
    }

    /// The path of a push that the shard owns; different ones for different numbers.
    func path(ownedBy shard: ShardAddress, _ number: Int = 0) -> String {
        var found = 0
        for index in 0..<100_000 {
            let path = "/metrics/job/job_\(index)"
            let hash = Array(path.utf8).withUnsafeBytes { GroupingKeyParser(key: .group).hash(path: $0) }
            guard ring.shards[ring.owner(of: hash)] == shard else { continue }
            if found == number { return path }
            found += 1
        }
        preconditionFailure("\(shard) owns nothing")
    }

    /// Pushes on a connection of its own; returns the status and the whole response.
    func push(_ path: String, body: String = "a 1\n", timeout: Int = 10) -> (status: Int, text: String) {
        let connection = connectToLoopback(port: port)
        defer { close(connection) }
        sendAll(connection, request(path, body: body))
        return parse(readMessage(connection, timeout: timeout))
    }

    /// Pushes many at a time, each on its own connection and thread; returns the statuses.
    func pushAtOnce(_ paths: [String], body: String = "a 1\n") -> [Int] {
        let group = DispatchGroup()
        let statuses = ResultBox<[Int]>()
        let lock = NSLock()
        statuses.result = []
        for path in paths {
            group.enter()
            Thread.detachNewThread { [self] in
                let status = push(path, body: body).status
                lock.withLock { statuses.result?.append(status) }
                group.leave()
            }
        }
        group.wait()
        return statuses.result ?? []
    }

    func request(_ path: String, body: String = "a 1\n") -> String {
        "PUT \(path) HTTP/1.1\r\nHost: test\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    }

    func parse(_ response: String?) -> (status: Int, text: String) {
        guard let response else { return (0, "") }
        return (Int(response.dropFirst(9).prefix(3)) ?? 0, response)
    }
}

/// What several threads fill or read, one at a time: whoever makes it keeps them apart, by a lock, a semaphore or one loop.
final class ResultBox<Value>: @unchecked Sendable {
    var result: Value?

    init(_ result: Value? = nil) {
        self.result = result
    }
}
