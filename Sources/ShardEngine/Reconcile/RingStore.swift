// Rings by which shards may still hold groups, kept in Consul's key-value store for replicas that start in the middle of a
// handover. Handover adds to them; a run that has settled everything removes all but the ring in force.
import FoundationEssentials

/// What a starting replica finds.
struct StoredRings {
    /// The shards of each ring that may not be settled.
    var rings: [[ShardAddress]] = []
    /// Shards off the ring that may come back with what they hold.
    var away: [ShardAddress] = []
    /// The shards of each ring by which those were owners.
    var awayRings: [[ShardAddress]] = []
}

/// The stored rings of one service; loop-confined.
final class RingStore {
    private let client: ConsulClient
    private let loop: EventLoop
    private var calls: [Int: HTTPCall] = [:]
    private var nextCall = 0
    private var unstored: [[ShardAddress]] = []
    private var retry: Timer?
    private var watch: KeyValueWatch?

    /// - Parameter loop: that of the client.
    init(client: ConsulClient, loop: EventLoop) {
        self.client = client
        self.loop = loop
        retry = Timer(loop: loop) { [unowned self] in addAgain() }
    }

    /// Calls `onRings` with all that is stored, now and whenever any replica has stored or removed a ring, for as long as
    /// this store lives.
    func watch(_ onRings: @escaping ([[ShardAddress]]) -> Void) {
        watch = KeyValueWatch(client: client, target: RingStore.listTarget(client), loop: loop) { outcome in
            onRings(Array(RingStore.rings(outcome).values))
        }
    }

    /// Stores a ring; when Consul does not take it, once it is back.
    func add(_ shards: [ShardAddress]) {
        let text = shards.map(\.text).joined(separator: "\n")
        let key = RingStore.key(text)
        call(.put, "\(RingStore.folder(client))\(key)\(client.datacenterQuery)", body: Array(text.utf8)) {
            [unowned self] outcome in
            if case .response(let response) = outcome, response.status == 200 { return }
            unstored.append(shards)
            retry?.schedule(after: RingStore.retryInterval)
        }
    }

    private func addAgain() {
        let rings = Set(unstored)
        unstored = []
        for ring in rings { add(ring) }
    }

    /// Reads all that is stored; nothing when Consul does not tell.
    func read(_ done: @escaping (StoredRings) -> Void) {
        call(.get, RingStore.listTarget(client)) { [unowned self] outcome in
            let rings = RingStore.rings(outcome).values.map { Array($0) }
            let target = ConsulLock.keyTarget(client) + "raw=1"
            call(.get, target) { outcome in
                var stored = StoredRings(rings: rings)
                if case .response(let response) = outcome, response.status == 200,
                    let state = try? JSONDecoder().decode(RunState.self, from: Data(response.body))
                {
                    stored.away = state.awayShards
                    stored.awayRings = state.awayRings.map { $0.compactMap { ShardAddress(parsing: $0) } }
                }
                done(stored)
            }
        }
    }

    private func call(
        _ method: Method,
        _ target: String,
        body: [UInt8] = [],
        _ done: @escaping (HTTPOutcome) -> Void
    ) {
        let id = nextCall
        nextCall += 1
        calls[id] = client.call(method, target, body: body, timeout: RingStore.timeout) { [unowned self] outcome in
            calls[id] = nil
            done(outcome)
        }
    }

    /// Where all rings are listed.
    static func listTarget(_ client: ConsulClient) -> String {
        let query = client.datacenterQuery
        return "\(folder(client))\(query)\(query.isEmpty ? "?" : "&")recurse=1"
    }

    /// The rings of a listing, by their keys.
    static func rings(_ outcome: HTTPOutcome) -> [String: [ShardAddress]] {
        let rings = KeyValueEntry.list(outcome).map { entry in
            let text = String(decoding: entry.value, as: UTF8.self)
            return (entry.key, text.split(separator: "\n").compactMap { ShardAddress(parsing: $0) })
        }
        return Dictionary(rings) { first, _ in first }
    }

    private static func folder(_ client: ConsulClient) -> String {
        "/v1/kv/shardd/\(client.escaped(client.settings.serviceName))/rings/"
    }

    /// The same for the same shards.
    private static func key(_ text: String) -> String {
        var text = text
        let hash = text.withUTF8 { murmur3(UnsafeRawBufferPointer($0)) }
        return "\(text.utf8.count)-\(String(hash, radix: 16))"
    }

    /// A start waits for it.
    private static let timeout = TimeSpan.milliseconds(500)
    private static let retryInterval = TimeSpan.milliseconds(500)
}
