// The lock that keeps runs apart, and what replicas tell each other through it: a key in Consul, held by a session. Beside it
// are the journal and the version book of runs, which only who has the lock may write.
// https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions and .../consul/api-docs/kv
//
// The session lives for as long as it is renewed. When it ends without having released the key, Consul lets nobody else
// have it for the lock delay, in which what is still under way here comes to its end.
import FoundationEssentials

/// The lock of one service's runs; confined to the thread of its session.
final class ConsulLock {
    /// What became of an attempt to have the lock.
    enum Acquisition: Equatable {
        case acquired
        /// Somebody else has it, or had it a moment ago.
        case taken
        /// Consul does not do it: the reason.
        case failed(String)
    }

    private let session: HTTPSession
    private let client: ConsulClient
    private var id: String?
    private var renewedAt: MonotonicTime?
    private var renewal: HTTPCall?
    private var timer: Timer?

    init(session: HTTPSession, settings: Configuration.Consul) {
        self.session = session
        client = ConsulClient(loop: session.loop, resolver: session.resolver, settings: settings)
        timer = Timer(loop: session.loop) { [unowned self] in renew() }
    }

    /// What was last written with the lock; the state of no run when nobody ever has.
    func read() -> Result<RunState, RunFailure> {
        switch session.send(
            client.request(.get, client.keyTarget([ConsulLock.key], "raw=1", ConsulClient.consistentRead))
        ) {
        case .failed(let reason): return .failure(RunFailure("Consul cannot be asked for the lock: \(reason)"))
        case .response(let response) where response.status == 404: return .success(RunState())
        case .response(let response) where response.status == 200:
            let state = try? JSONDecoder().decode(RunState.self, from: Data(response.body))
            return .success(state ?? RunState())
        case .response(let response):
            return .failure(RunFailure("Consul does not tell of the lock: it answered \(response.status)"))
        }
    }

    /// Tries to have the lock, and writes the state with it.
    func acquire(_ state: RunState) -> Acquisition {
        let settings = ["Name": "shardd reconcile", "TTL": "10s", "LockDelay": "10s", "Behavior": "release"]
        let body = (try? JSONEncoder().encode(settings)).map(Array.init) ?? []
        struct Created: Decodable {
            var id: String

            enum CodingKeys: String, CodingKey {
                case id = "ID"
            }
        }
        guard
            case .response(let response) = session.send(client.request(.put, "/v1/session/create\(query)", body: body)),
            let created = try? JSONDecoder().decode(Created.self, from: Data(response.body))
        else { return .failed("Consul makes no session for the lock") }
        id = created.id
        renewedAt = .now()
        switch write(state, "acquire") {
        case true?:
            timer?.schedule(after: ConsulLock.renewInterval)
            return .acquired
        case false?:
            destroy()
            return .taken
        case nil:
            destroy()
            return .failed("Consul does not take the lock's key")
        }
    }

    /// Whether the lock is still held, for certain.
    var isHeld: Bool {
        guard id != nil, let renewedAt else { return false }
        return MonotonicTime.now().since(renewedAt) < ConsulLock.timeToLive
    }

    /// Tells the other replicas how far the run has come; false when the lock is lost.
    func update(_ state: RunState) -> Bool { isHeld && write(state, "acquire") == true }

    /// Gives the lock back, with the last state.
    func release(_ state: RunState) {
        if isHeld { _ = write(state, "release") }
        destroy()
    }

    /// Which rings are stored; nil when Consul does not tell.
    func storedRings() -> [RingEntry]? {
        let outcome = session.send(client.request(.get, RingStore.listTarget(client)))
        // 404: there is none.
        guard case .response(let response) = outcome, [200, 404].contains(response.status) else { return nil }
        return RingStore.entries(outcome)
    }

    /// Stores a ring, for replicas that do not know it.
    func store(_ ring: StoredRing) {
        guard let request = RingStore.request(client, ring) else { return }
        _ = session.send(request)
    }

    /// What runs have pushed without having looked after it.
    func readJournals() -> Result<[CopyJournal], RunFailure> {
        readAll(ConsulLock.journalFolder)
    }

    /// Stores, or removes, what is about to be pushed of a shard's copies; false when the lock is lost, or Consul does not
    /// take it.
    func write(_ journal: CopyJournal?, from shard: ShardAddress) -> Bool {
        write(journal, ConsulLock.journalFolder, shard.text)
    }

    /// What owners have been given while shards were away that may have something newer.
    func readVersions() -> Result<[VersionBook.Page], RunFailure> { readAll(ConsulLock.versionFolder) }

    /// Stores, or removes, a page of the version book; false when the lock is lost, or Consul does not take it.
    func write(_ page: VersionBook.Page?, _ key: VersionBook.PageKey) -> Bool {
        write(page, ConsulLock.versionFolder, "\(key.owner)-\(key.part)")
    }

    private func readAll<Value: Decodable>(_ folder: String) -> Result<[Value], RunFailure> {
        let outcome = session.send(
            client.request(.get, client.keyTarget([folder, ""], "recurse=1", ConsulClient.consistentRead))
        )
        // 404: there is none.
        guard case .response(let response) = outcome, [200, 404].contains(response.status) else {
            return .failure(RunFailure("Consul does not tell what earlier runs have left"))
        }
        return .success(
            KeyValueEntry.list(outcome).compactMap { try? JSONDecoder().decode(Value.self, from: $0.value) }
        )
    }

    private func write<Value: Encodable>(_ value: Value?, _ folder: String, _ name: String) -> Bool {
        guard isHeld else { return false }
        let body = value.flatMap { try? JSONEncoder().encode($0) }.map { Array($0) }
        let target = client.keyTarget([folder, name])
        let request = client.request(body == nil ? .delete : .put, target, body: body ?? [])
        guard case .response(let response) = session.send(request) else { return false }
        return response.status == 200
    }

    /// Shards that have yet to be told what they have missed; nil when Consul does not tell.
    func untoldShards() -> Set<ShardAddress>? {
        HintStore.shards(session.send(client.request(.get, HintStore.shardsTarget(client))))
    }

    /// Forgets stored rings, but for those that have been stored again since they were read.
    func removeRings(_ entries: [RingEntry]) {
        let requests = entries.map { entry in
            client.request(.delete, client.keyTarget(listed: entry.key, "cas=\(entry.modifyIndex)"))
        }
        _ = session.sendAll(requests, atOnce: 4)
    }

    private func renew() {
        guard let id else { return }
        let startedAt = MonotonicTime.now()
        let request = client.request(.put, "/v1/session/renew/\(id)\(query)")
        renewal = HTTPCall(loop: session.loop, resolver: session.resolver, request) { [unowned self] outcome in
            renewal = nil
            if case .response(let response) = outcome {
                if response.status == 200 { renewedAt = startedAt }
                // The session has ended.
                if response.status == 404 { self.id = nil }
            }
        }
        timer?.schedule(after: ConsulLock.renewInterval)
    }

    /// Whether Consul has done it: no, where somebody else has the lock; nil when it cannot be told.
    private func write(_ state: RunState, _ action: String) -> Bool? {
        guard let id, let body = try? JSONEncoder().encode(state) else { return nil }
        let request = client.request(.put, client.keyTarget([ConsulLock.key], "\(action)=\(id)"), body: Array(body))
        guard case .response(let response) = session.send(request), response.status == 200 else { return nil }
        return String(decoding: response.body, as: UTF8.self).hasPrefix("true")
    }

    private func destroy() {
        timer?.cancel()
        renewal = nil
        guard let id else { return }
        self.id = nil
        _ = session.send(client.request(.put, "/v1/session/destroy/\(id)\(query)"))
    }

    private var query: String { client.datacenterQuery }

    /// Of the lock, and the state of the latest run.
    static let key = "reconcile"
    private static let journalFolder = "copying"
    private static let versionFolder = "versions"
    /// The shortest that Consul allows.
    private static let timeToLive = TimeSpan.seconds(10)
    private static let renewInterval = TimeSpan.seconds(3)
}
