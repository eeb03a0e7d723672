// Hints kept in Consul's key-value store, so that they outlive the replica that has taken the requests, and any replica can
// tell a shard what it has missed. https://developer.hashicorp.com/consul/api-docs/kv
import FoundationEssentials

/// The stored hints of one service; loop-confined.
final class HintStore {
    private let client: ConsulClient
    private let loop: EventLoop
    private var watch: KeyValueWatch?
    /// Tells this replica's keys from others'.
    private let replica = String(UInt64.random(in: .min ... .max), radix: 16)
    private var count = 0

    /// - Parameter loop: that of the client.
    init(client: ConsulClient, loop: EventLoop) {
        self.client = client
        self.loop = loop
    }

    /// Calls `onShards` with the shards that any replica has stored something of, now and at each change, for as long as
    /// this store lives.
    func watch(_ onShards: @escaping (Set<ShardAddress>) -> Void) {
        loop.assertOnLoop()
        watch = KeyValueWatch(client: client, target: HintStore.shardsTarget(client), loop: loop) { outcome in
            onShards(HintStore.shards(outcome) ?? [])
        }
    }

    /// Stores what a shard has missed; `done` tells whether it is stored.
    func write(_ hints: [Hint], for shard: ShardAddress, _ done: @escaping (Bool) -> Void) -> HTTPCall {
        loop.assertOnLoop()
        count += 1
        let target = client.keyTarget([HintStore.folder, shard.text, "\(replica)-\(count)"])
        // A line each, its fields set apart by spaces: when, the store's mark, that of the store that did it, and the path.
        let lines = hints.map { hint in
            Array("\(hint.madeAt) \(hint.store ?? "-") \(hint.doneBy ?? "-") ".utf8) + hint.path
        }
        let body = Array(lines.joined(separator: [HintStore.separator]))
        return client.call(.put, target, body: body, timeout: HintStore.timeout) { outcome in
            if case .response(let response) = outcome { done(response.status == 200) } else { done(false) }
        }
    }

    /// What is stored of a shard, by key; nil when Consul does not tell.
    func read(_ shard: ShardAddress, _ done: @escaping ([String: [Hint]]?) -> Void) -> HTTPCall {
        loop.assertOnLoop()
        let target = client.keyTarget([HintStore.folder, shard.text, ""], "recurse=1", ConsulClient.consistentRead)
        return client.call(.get, target, timeout: HintStore.readTimeout) { outcome in
            // 404: nothing is stored.
            guard case .response(let response) = outcome, [200, 404].contains(response.status) else { return done(nil) }
            let hints = KeyValueEntry.list(outcome).map { entry in
                (entry.key, entry.value.split(separator: HintStore.separator).compactMap { HintStore.hint(Array($0)) })
            }
            done(Dictionary(hints) { first, _ in first })
        }
    }

    /// Where the shards that something is stored of are listed.
    static func shardsTarget(_ client: ConsulClient) -> String {
        client.keyTarget([folder, ""], "keys=1", "separator=/", ConsulClient.consistentRead)
    }

    /// The shards of a listing of keys; nil when Consul does not tell.
    static func shards(_ outcome: HTTPOutcome) -> Set<ShardAddress>? {
        guard case .response(let response) = outcome else { return nil }
        // 404: nothing is stored.
        if response.status == 404 { return [] }
        guard response.status == 200,
            let folders = try? JSONDecoder().decode([String].self, from: Data(response.body))
        else { return nil }
        return Set(folders.compactMap { $0.split(separator: "/").last.flatMap { ShardAddress(parsing: String($0)) } })
    }

    /// Forgets what has been told.
    func remove(_ key: String, _ done: @escaping () -> Void) -> HTTPCall {
        loop.assertOnLoop()
        return client.call(.delete, client.keyTarget(listed: key), timeout: HintStore.timeout) { _ in done() }
    }

    private static func hint(_ line: [UInt8]) -> Hint? {
        let fields = line.split(separator: 0x20, maxSplits: 3, omittingEmptySubsequences: false)
        guard fields.count == 4, let madeAt = Int64(String(decoding: fields[0], as: UTF8.self)) else { return nil }
        let marks = fields[1...2].map { String(decoding: $0, as: UTF8.self) }.map { $0 == "-" ? nil : $0 }
        return Hint(path: Array(fields[3]), madeAt: madeAt, store: marks[0], doneBy: marks[1])
    }

    private static let folder = "missed"
    /// No path has one.
    private static let separator = UInt8(ascii: "\n")
    /// There may be a hundred thousand keys; a shard that is back waits for it.
    private static let readTimeout = TimeSpan.seconds(5)
    /// A request of a client may wait for it.
    private static let timeout = TimeSpan.seconds(1)
}
