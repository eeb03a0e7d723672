// What the tier has done so far, for metrics, the log and the commands. The tier counts; the server reads.
import MovingCore

/// Figures of moving groups, of this process.
struct TierCounts: Sendable {
    /// Groups that were given to the store that they belong to.
    var moved: UInt64 = 0
    /// Void copies that were deleted.
    var deleted: UInt64 = 0
    var listings: UInt64 = 0
    var failovers: UInt64 = 0
    /// How often the tier came to rest.
    var runs: [RunResult: UInt64] = [:]
    /// When that was last, in seconds since 1970.
    var lastRest: Double?
    /// Groups that a store refused, with the reason, by their paths.
    private(set) var refusals: [String: Refusal] = [:]
    /// Groups that were moved since the tier was last at rest.
    private var movedKeys: Set<GroupKey> = []
    /// Copies that were deleted since then: a job that is done again deletes what is gone already.
    private var deletedCopies: [StoreID: Set<GroupKey>] = [:]

    /// Why a group could not be moved.
    struct Refusal: Sendable {
        var store: StoreID
        var slot: Slot
        var kind: StuckReason
        /// The same for people.
        var reason: String
    }

    /// Takes in how a push of the mover's has ended.
    ///
    /// - Returns: the group, where it is refused and was not before.
    mutating func note(_ send: Send, _ result: PushResult, _ reason: String?) -> GroupKey? {
        switch (send.what, result) {
        case (.put(let key, _), .done), (.post(let key, _), .done):
            if movedKeys.insert(key).inserted { moved += 1 }
            refusals[key.text] = nil
        case (.delete(let key), .done):
            if deletedCopies[send.store, default: []].insert(key).inserted { deleted += 1 }
        // A push that is refused may leave an empty group, which is deleted: that is no reason to forget why.
        case (.put(let key, _), .rejected), (.post(let key, _), .rejected), (.delete(let key), .rejected):
            runs[.partial, default: 0] += 1
            let isNew = refusals[key.text] == nil
            guard refusals.count < TierCounts.mostRefusals || !isNew else { return nil }
            let reason = reason ?? "it was refused"
            let kind = StuckReason(isUntold: send.obstacle != nil, reason)
            refusals[key.text] = Refusal(store: send.store, slot: send.slot, kind: kind, reason: reason)
            return isNew ? key : nil
        case (_, _): break
        }
        return nil
    }

    /// Groups that cannot be moved, with the reasons, for the other replicas and for people; not all where there are many.
    var stuck: [String] {
        refusals.sorted { $0.key < $1.key }.prefix(TierCounts.mostToName).map { path, refusal in
            "\(GroupKey(text: path, hash: 0).shown): \(refusal.reason)".replacing("\n", with: " ")
        }
    }

    /// The tier is at rest: what moves from now on moves anew.
    mutating func rest() { (movedKeys, deletedCopies) = ([], [:]) }

    /// Forgets the groups of slots that are stuck no more.
    mutating func keep(_ stuck: Set<Slot>) {
        refusals = refusals.filter { stuck.contains($0.value.slot) }
    }

    private static let mostRefusals = 1000
    private static let mostToName = 20
}

/// Why a group cannot be moved.
enum StuckReason: String, CaseIterable, Sendable {
    /// A family has another type on the shard that it belongs to.
    case type
    /// Another group of that shard has one of its series.
    case series
    /// That shard refuses it for something else.
    case refused
    /// Its shard does not tell all that it holds.
    case untold

    /// - Parameter reason: what a Pushgateway's consistency check says, in client_golang's words.
    init(isUntold: Bool, _ reason: String) {
        if isUntold {
            self = .untold
        } else if reason.contains(" should be a ") || reason.contains("} is not a ") {
            self = .type
        } else if reason.contains("was collected before with the same name and label values") {
            self = .series
        } else {
            self = .refused
        }
    }
}

extension GroupKey {
    /// The grouping key as people read it, with what would break a line escaped.
    var shown: String {
        let parser = GroupingKeyParser(key: .group)
        var path = text
        return path.withUTF8 { bytes in
            _ = parser.hash(path: UnsafeRawBufferPointer(bytes))
            var buffer = ByteBuffer(capacity: 256)
            EscapedText.field.append(parser.text, to: &buffer)
            return String(decoding: buffer.readable, as: UTF8.self)
        }
    }
}
