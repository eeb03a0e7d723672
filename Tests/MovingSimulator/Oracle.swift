// What clients were told, and so what the stores may hold: each family must be what some order of the pushes gives in which
// a push that was acknowledged before another began comes before it.
import MovingCore

/// One push, as its client saw it.
final class Push {
    let number: Value
    let method: PushMethod
    let key: Int
    let families: [Int: Value]
    let began: Int64
    var ended: Int64?
    var isAcknowledged = false
    /// No store takes it, whatever it holds.
    var isWrong = false
    /// Its client is gone, and is told nothing.
    var isAbandoned = false
    /// Lost with what a store had not written to its file: as with one Pushgateway.
    var isForgiven = false
    /// When stores did it.
    var done: [StoreID: Int64] = [:]
    /// When it was done after it had been held up in the network, at the store that was authoritative by then.
    var arrived: Int64?
    /// Whose answer its client got.
    var acknowledgedBy: StoreID?
    /// When stores took it from a replica, first and last.
    private var taken: [StoreID: (first: Int64, last: Int64)] = [:]

    init(number: Value, method: PushMethod, key: Int, families: [Int], began: Int64) {
        (self.number, self.method, self.key, self.began) = (number, method, key, began)
        self.families = Dictionary(families.map { ($0, number) }) { $1 }
    }

    /// A store does it; whether its client was told before that nobody answered.
    func isTaken(by store: StoreID, at time: Int64) -> Bool {
        taken[store] = (taken[store]?.first ?? time, time)
        return ended != nil && !isAcknowledged
    }

    /// Whether a store did this push late after the other one, which it had answered by then: one Pushgateway does the same.
    func followsLate(_ other: Push) -> Bool {
        if !isAcknowledged, let arrived, other.began <= arrived { return true }
        guard !isAcknowledged, let ended, let store = other.acknowledgedBy, let late = taken[store]?.last,
            let before = other.taken[store]?.first
        else { return false }
        return late > ended && late >= before
    }
}

/// All pushes of a history.
struct Oracle {
    private var pushes: [[Push]] = Array(repeating: [], count: World.keyCount * 3)
    /// Pushes that began by then are not asked for any more.
    private var pardoned: [Int64] = Array(repeating: -1, count: World.keyCount * 3)
    /// What was allowed before, until a push of the key begins or ends; -1: not known, -2: more than one value.
    private var known: [Value] = Array(repeating: -1, count: World.keyCount * 3)

    /// The only value that the family may have; nil where there are several.
    mutating func only(_ key: Int, _ family: Int) -> Value? {
        let place = key * 3 + family
        if known[place] == -1 {
            let values = allowed(key, family).values
            known[place] = values.count == 1 ? values.first! : -2
        }
        return known[place] == -2 ? nil : known[place]
    }

    /// A push of the key has begun or ended.
    mutating func changed(_ key: Int) {
        for family in 0..<3 { known[key * 3 + family] = -1 }
    }

    mutating func began(_ push: Push) {
        changed(push.key)
        for family in 0..<3 where push.method != .post || push.families[family] != nil {
            pushes[push.key * 3 + family].append(push)
        }
    }

    /// What the family may be, 0 for nothing; and what it may not be, since it comes too late, though nobody was told so.
    func allowed(_ key: Int, _ family: Int) -> (values: Set<Value>, late: Set<Value>) {
        let all = pushes[key * 3 + family]
        let pardoned = pardoned[key * 3 + family]
        let isBinding = { (push: Push) in push.isAcknowledged && !push.isForgiven && push.began > pardoned }
        var values: Set<Value> = all.contains(where: isBinding) ? [] : [0]
        var late: Set<Value> = []
        let binding = all.filter(isBinding)
        let lastBinding = binding.reduce(Int64.min) { max($0, $1.began) }
        for push in all {
            let end = push.ended ?? .max
            if lastBinding <= end || binding.allSatisfy({ $0.began <= end || push.followsLate($0) }) {
                values.insert(push.families[family] ?? 0)
            } else if !push.isAcknowledged {
                late.insert(push.families[family] ?? 0)
            }
        }
        return (values, late)
    }

    /// A store's process was killed: what it had not written to its file is gone.
    mutating func killed(_ store: StoreID, writtenAt: Int64) {
        for key in 0..<World.keyCount { changed(key) }
        for push in pushes.joined() {
            guard let time = push.done[store], time > writtenAt else { continue }
            push.done[store] = nil
            if push.done.isEmpty { push.isForgiven = true }
        }
        // What a push that is gone had replaced cannot be asked for either.
        for place in pushes.indices {
            for push in pushes[place] where push.isForgiven { pardoned[place] = max(pardoned[place], push.began) }
        }
    }
}

/// What is wrong with a history.
public enum Wrong: String, Hashable, Sendable {
    /// I1: an acknowledged push is gone.
    case lost
    /// I2: what was removed is there again.
    case back
    /// A push that was answered 504 has beaten one that came after it.
    case late
    /// I3: a group is on two stores.
    case doubled
    /// It never came to rest.
    case dead
    /// I5: a scrape did not see a series that lives.
    case hidden
    /// I5: a scrape saw an older value, or one beside the newer one.
    case older
    /// I5: a scrape saw what was removed.
    case ghost
    /// I5: copies on a store that leaves were about to go before it had left discovery.
    case hasty
    /// I6: a request waited too long inside a fence.
    case held
    /// I8: something was listed or written at rest.
    case restless
}
