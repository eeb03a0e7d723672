// What Consul holds for one tier, read at one moment: the register, the replicas' notes and the mover's lock. One listing, or
// one transaction, gives all of it. `ConsulRegister` reads it and gives it to the replica as a `TierSnapshot`.
import FoundationEssentials
import MovingCore

/// What Consul held at one moment: the register, the other replicas and the lock, read together.
struct TierSnapshot: Equatable {
    /// Consul's index of that moment. It may be smaller than an earlier one, since Consul's index can go backwards.
    var index: UInt64
    /// nil where there is none yet, or `registerFault` says why it cannot be read.
    var register: Register?
    /// Why this version cannot decode the register that is there.
    var registerFault: String?
    /// The other replicas, ascending by ID.
    var peers: [Peer]
    /// Whether this replica holds the mover's lock.
    var hasLock: Bool
    /// Whether replicas of version 0.1 may be there, too.
    var hasOldReplicas = false
}

/// Where a tier's keys are.
struct TierKeys {
    /// Of the register.
    let register: String
    /// Of the mover's lock. Its value is for replicas of version 0.1 (OldReplicas), and theirs is ignored.
    let lock: String
    /// What all keys begin with under which replicas of version 0.1 keep rings.
    let oldRings: String
    /// All of the keys begin with it, and so one query reads them together.
    let prefix: String

    init(serviceName: String) {
        let folder = "shardd/\(serviceName)/"
        register = folder + TierKeys.registerName
        lock = folder + TierKeys.lockName
        oldRings = folder + "rings/"
        prefix = folder + TierKeys.prefixName
    }

    /// The key of a replica's note.
    func note(of id: UInt64) -> String { "\(register)/\(TierKeys.name(of: id))" }

    /// The replica whose note is under the key; nil for other keys.
    func replica(_ key: String) -> UInt64? {
        guard key.hasPrefix(register + "/") else { return nil }
        let name = key.dropFirst(register.count + 1)
        guard name.count == 16, let id = UInt64(name, radix: 16), TierKeys.name(of: id) == name else { return nil }
        return id
    }

    /// A replica's ID as keys and services have it: 16 digits.
    static func name(of id: UInt64) -> String {
        let digits = String(id, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    static let registerName = "register"
    static let lockName = "reconcile"
    static let prefixName = "r"
}

/// A register as it is stored, decoded.
struct StoredRegister {
    var value: Data
    /// What a check-and-set has to expect.
    var modifyIndex: UInt64
    var register: Register?
    var fault: String?

    /// - Parameter known: the one of an earlier read, which is not decoded again if it is the same.
    init(_ entry: KeyValueEntry, known: StoredRegister?) {
        (value, modifyIndex) = (entry.value, entry.modifyIndex)
        if let known, known.value == value {
            (register, fault) = (known.register, known.fault)
            return
        }
        do {
            register = try Register(decoding: Array(value))
        } catch {
            fault = "line \(error.line): \(error.reason)"
        }
    }
}

/// A replica's note as it is stored.
struct StoredReplica {
    var id: UInt64
    var note: StoredNote
    /// The session that holds the note; nil when the replica has none.
    var session: String?
    /// What a removal has to expect.
    var modifyIndex: UInt64

    var isLive: Bool { session != nil }
}

/// All that one read tells, with what is needed to write.
struct TierContent {
    private(set) var index: UInt64
    private(set) var register: StoredRegister?
    private(set) var replicas: [StoredReplica] = []
    /// The session that holds the lock.
    private(set) var lockSession: String?
    /// The keys under which replicas of version 0.1 keep rings, with the index of each.
    private(set) var oldRings: [String: UInt64] = [:]

    /// - Parameter known: what was read before.
    init(index: UInt64, _ entries: [KeyValueEntry], _ keys: TierKeys, known: TierContent?) {
        self.index = index
        for entry in entries {
            if entry.key == keys.register {
                register = StoredRegister(entry, known: known?.register)
            } else if entry.key == keys.lock {
                lockSession = entry.session
            } else if entry.key.hasPrefix(keys.oldRings) {
                oldRings[entry.key] = entry.modifyIndex
            } else if let id = keys.replica(entry.key) {
                let note = StoredNote(decoding: entry.value) ?? .unknown
                replicas.append(
                    StoredReplica(id: id, note: note, session: entry.session, modifyIndex: entry.modifyIndex)
                )
            }
        }
        replicas.sort { $0.id < $1.id }
    }

    /// Of a listing; nil where the answer is none. 404: nothing is stored.
    init?(listing outcome: HTTPOutcome, _ keys: TierKeys, known: TierContent?) {
        guard case .response(let response) = outcome, let index = outcome.consulIndex else { return nil }
        if response.status == 404 {
            self.init(index: index, [], keys, known: known)
            return
        }
        guard let entries: [KeyValueEntry] = decodeDocument(outcome) else { return nil }
        self.init(index: index, entries, keys, known: known)
    }

    /// Of a transaction that has written the register and listed all; nil where it has not been done.
    init?(transaction outcome: HTTPOutcome, _ keys: TierKeys, known: TierContent?) {
        guard let answer: TransactionAnswer = decodeDocument(outcome), let written = answer.results.first?.entry else {
            return nil
        }
        // The index of the write is that of the whole transaction, and nothing that it read is newer.
        self.init(index: written.modifyIndex, answer.results.dropFirst().map(\.entry), keys, known: known)
    }

    /// Whether this session holds the replica's note.
    func isHeld(_ id: UInt64, by session: String?) -> Bool {
        session != nil && replicas.contains { $0.id == id && $0.session == session }
    }

    /// As the replica sees it.
    func snapshot(for id: UInt64, session: String?) -> TierSnapshot {
        TierSnapshot(
            index: index,
            register: register?.register,
            registerFault: register?.fault,
            peers: replicas.filter { $0.id != id }.map { Peer(id: $0.id, isLive: $0.isLive, note: $0.note.note) },
            hasLock: session != nil && lockSession == session,
            hasOldReplicas: !oldRings.isEmpty
        )
    }
}

/// https://developer.hashicorp.com/consul/api-docs/txn
private struct TransactionAnswer: Decodable {
    struct Result: Decodable {
        var entry: KeyValueEntry

        enum CodingKeys: String, CodingKey {
            case entry = "KV"
        }
    }

    var results: [Result]

    enum CodingKeys: String, CodingKey {
        case results = "Results"
    }
}

/// One step of a transaction on keys.
struct TransactionStep: Encodable {
    struct Operation: Encodable {
        var verb: String
        var key: String
        var value: Data?
        var index: UInt64?

        enum CodingKeys: String, CodingKey {
            case verb = "Verb"
            case key = "Key"
            case value = "Value"
            case index = "Index"
        }
    }

    var operation: Operation

    enum CodingKeys: String, CodingKey {
        case operation = "KV"
    }

    /// Writes the register if it is what was read, and reads all in the same transaction.
    static func writing(_ register: [UInt8], expecting index: UInt64, _ keys: TierKeys) -> [UInt8] {
        let write = Operation(verb: "cas", key: keys.register, value: Data(register), index: index)
        let steps = [write, Operation(verb: "get-tree", key: keys.prefix)].map { TransactionStep(operation: $0) }
        guard let body = try? JSONEncoder().encode(steps) else { preconditionFailure("a transaction that is no JSON") }
        return Array(body)
    }
}

/// In which order answers tell of Consul's state. Answers can overtake one another, and Consul's index can go backwards: when
/// Consul has lost its state, and when it forgets which keys were deleted.
struct ReadOrder {
    private var lastCall = 0
    /// Answers to this call and those before it tell nothing any more.
    private var barrier = 0
    /// The latest call that had begun when the newest state was accepted.
    private var acceptedAt = 0
    private var index: UInt64 = 0

    /// A call begins: its number.
    mutating func begin() -> Int {
        lastCall += 1
        return lastCall
    }

    /// From now on, only calls that are yet to begin tell anything.
    mutating func bar() {
        barrier = lastCall
    }

    /// Whether the answer's state is accepted as the newest one. A call that began after the newest state had been accepted
    /// cannot tell of an older one, whatever its index, since all reads are consistent; otherwise the index decides.
    mutating func accepts(index: UInt64, of call: Int) -> Bool {
        guard call > barrier, call > acceptedAt || index > self.index else { return false }
        (self.index, acceptedAt) = (index, lastCall)
        return true
    }
}
