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

    /// Why a group could not be moved.
    struct Refusal: Sendable {
        var store: StoreID
        var slot: Slot
        var reason: String
    }

    /// Takes in how a push of the mover's has ended.
    ///
    /// - Returns: the group, where it is refused and was not before.
    mutating func note(_ send: Send, _ result: PushResult, _ reason: String?) -> GroupKey? {
        switch (send.what, result) {
        case (.put(let key, _), .done), (.post(let key, _), .done):
            moved += 1
            refusals[key.text] = nil
        case (.delete(let key), .done):
            deleted += 1
            refusals[key.text] = nil
        case (.put(let key, _), .rejected), (.post(let key, _), .rejected), (.delete(let key), .rejected):
            let isNew = refusals[key.text] == nil
            guard refusals.count < TierCounts.mostRefusals || !isNew else { return nil }
            refusals[key.text] = Refusal(store: send.store, slot: send.slot, reason: reason ?? "it was refused")
            return isNew ? key : nil
        case (_, _): break
        }
        return nil
    }

    /// Forgets the groups of slots that are stuck no more.
    mutating func keep(_ stuck: Set<Slot>) {
        refusals = refusals.filter { stuck.contains($0.value.slot) }
    }

    private static let mostRefusals = 1000
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
