// The JSON documents of /api/v1. The admin handler makes one for each answer.
import FoundationEssentials

/// A document of the API; its coding keys are the contract's names.
enum APIDocument {
    case ring(ServerStatus, WorkerSnapshot)
    case locate(LocatedPath)
    case serviceDiscovery(ServerStatus, WorkerSnapshot)

    /// Calls `body` with the document as JSON.
    func withJSON(_ body: (UnsafeRawBufferPointer) -> Void) {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        do {
            var data = try encode(encoder)
            data.append(0x0A)
            data.withUnsafeBytes(body)
        } catch {
            preconditionFailure("a document that is no JSON: \(error)")
        }
    }

    private func encode(_ encoder: JSONEncoder) throws -> Data {
        switch self {
        case .ring(let status, let snapshot): try encoder.encode(RingDocument(status, snapshot))
        case .locate(let located): try encoder.encode(LocateDocument(located))
        case .serviceDiscovery(let status, let snapshot):
            try encoder.encode(TargetGroup.groups(status, snapshot))
        }
    }
}

private struct RingDocument: Encodable {
    struct Shard: Encodable {
        var address: String
        var state: String
        var points: Int
        var share: Double
    }

    enum CodingKeys: String, CodingKey {
        case generation, fingerprint, vnodes, key, source, shards
        case lastChange = "last_change"
    }

    var generation: Int
    var fingerprint: UInt64
    var vnodes: Int
    var key: String
    var source: String
    var lastChange: Double
    var shards: [Shard]

    init(_ status: ServerStatus, _ snapshot: WorkerSnapshot) {
        generation = status.generation
        fingerprint = status.ring.fingerprint(key: status.key)
        vnodes = status.ring.vnodes
        key = status.key == .group ? "group" : "path"
        source = status.source.rawValue
        lastChange = status.ringChangedAt
        let readiness = Readiness(status, snapshot)
        shards = status.ring.shards.enumerated().map { index, shard in
            Shard(
                address: shard.text,
                state: readiness.fault(of: shard) == nil ? "up" : "suspect",
                points: status.ring.pointCount(of: index),
                share: status.ring.share(of: index)
            )
        }
        shards += status.draining.map { Shard(address: $0.text, state: "draining", points: 0, share: 0) }
    }
}

private struct LocateDocument: Encodable {
    enum CodingKeys: String, CodingKey {
        case path, hash, shard, next
        case groupingKey = "grouping_key"
    }

    var path: String
    var groupingKey: String
    var hash: String
    var shard: String?
    var next: String?

    init(_ located: LocatedPath) {
        path = located.path
        groupingKey = located.groupingKey
        let digits = String(located.hash, radix: 16)
        hash = String(repeating: "0", count: 8 - digits.count) + digits
        shard = located.shard?.text
        next = located.nextShard?.text
    }
}

/// Prometheus' HTTP service discovery: https://prometheus.io/docs/prometheus/latest/http_sd/
private struct TargetGroup: Encodable {
    var targets: [String]
    var labels: [String: String]

    /// Every shard that holds groups or may, and every one that ought to: a group of targets for each state.
    static func groups(_ status: ServerStatus, _ snapshot: WorkerSnapshot) -> [TargetGroup] {
        var states = status.offRing
        let readiness = Readiness(status, snapshot)
        for shard in status.ring.shards { states[shard] = readiness.fault(of: shard) == nil ? .up : .suspect }
        let groups = Dictionary(grouping: states.keys) { states[$0] ?? .up }
        return groups.sorted { $0.key.rawValue < $1.key.rawValue }.map { state, shards in
            TargetGroup(
                targets: shards.sorted().map(\.text),
                labels: ["__meta_shardd_state": state.rawValue, "__scheme__": "http", "__metrics_path__": "/metrics"]
            )
        }
    }
}
