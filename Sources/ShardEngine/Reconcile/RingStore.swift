// Rings by which shards may still hold groups, kept in Consul's key-value store for all replicas: those that start in the
// middle of a handover, and those that have not had the same membership. Handover adds to them and watches them; a run that
// has settled everything removes all but the ring in force.
import FoundationEssentials

/// What a starting replica finds.
struct StoredRings {
    /// Those that may not be settled.
    var rings: [StoredRing] = []
    /// Those by which shards off the ring, which may come back with what they hold, were owners.
    var awayRings: [StoredRing] = []
}

/// The stored rings of one service; loop-confined.
final class RingStore {
    private let client: ConsulClient
    private let loop: EventLoop
    private var calls: [Int: HTTPCall] = [:]
    private var nextCall = 0
    /// Rings that Consul has yet to take, and whether each is in use.
    private var unstored: [StoredRing: Bool] = [:]
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
    func watch(_ onRings: @escaping ([RingEntry]) -> Void) {
        loop.assertOnLoop()
        watch = KeyValueWatch(client: client, target: RingStore.listTarget(client), loop: loop) { outcome in
            onRings(RingStore.entries(outcome))
        }
    }

    /// Stores a ring; when Consul does not take it, once it is back.
    ///
    /// - Parameter isInUse: whether requests are given to its shards already.
    func add(_ ring: StoredRing, isInUse: Bool = false) {
        loop.assertOnLoop()
        guard let request = RingStore.request(client, ring, isInUse: isInUse) else { return }
        call(request.method, request.target, body: request.body) { [unowned self] outcome in
            if case .response(let response) = outcome, response.status == 200 { return }
            unstored[ring] = isInUse
            retry?.schedule(after: RingStore.retryInterval)
        }
    }

    private func addAgain() {
        let rings = unstored
        unstored = [:]
        for (ring, isInUse) in rings { add(ring, isInUse: isInUse) }
    }

    /// Reads all that is stored; nothing when Consul does not tell.
    func read(_ done: @escaping (StoredRings) -> Void) {
        loop.assertOnLoop()
        call(.get, RingStore.listTarget(client)) { [unowned self] outcome in
            let rings = RingStore.entries(outcome).map(\.ring)
            let target = client.keyTarget([ConsulLock.key], "raw=1", ConsulClient.consistentRead)
            call(.get, target) { outcome in
                var stored = StoredRings(rings: rings)
                if case .response(let response) = outcome, response.status == 200,
                    let state = try? JSONDecoder().decode(RunState.self, from: Data(response.body))
                {
                    stored.awayRings = state.storedAwayRings
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

    /// Has Consul store a ring.
    static func request(_ client: ConsulClient, _ ring: StoredRing, isInUse: Bool = false) -> HTTPRequest? {
        let document = RingEntry.Document(
            shards: ring.shards.map(\.text),
            vnodes: ring.vnodes,
            holders: ring.holders?.sorted().map(\.text),
            isInUse: isInUse,
            storedAt: wallClockNanoseconds()
        )
        guard let body = try? JSONEncoder().encode(document) else { return nil }
        return client.request(.put, client.keyTarget([folder, key(of: ring)]), body: Array(body))
    }

    /// Where all rings are listed.
    static func listTarget(_ client: ConsulClient) -> String {
        client.keyTarget([folder, ""], "recurse=1", ConsulClient.consistentRead)
    }

    /// What a listing tells.
    static func entries(_ outcome: HTTPOutcome) -> [RingEntry] {
        KeyValueEntry.list(outcome).compactMap { RingEntry($0) }
    }

    /// The same for the same ring.
    private static func key(of ring: StoredRing) -> String {
        let lists = [ring.shards] + (ring.holders.map { [$0.sorted()] } ?? [])
        var text = "\(ring.vnodes) " + lists.map { $0.map(\.text).joined(separator: " ") }.joined(separator: " of ")
        let hash = text.withUTF8 { murmur3(UnsafeRawBufferPointer($0)) }
        return "\(text.utf8.count)-\(String(hash, radix: 16))"
    }

    private static let folder = "rings"
    /// A start waits for it.
    private static let timeout = TimeSpan.milliseconds(500)
    private static let retryInterval = TimeSpan.milliseconds(500)
}
