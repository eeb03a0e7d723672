// A tier whose clients push what does not go together, in simulated time: replicas that decide by the code that ships, shards that
// answer before they store, and Consul's claims, which reach each replica late. One seed gives one history.
import MovingCore

@testable import MovingSimulator
@testable import ShardEngine

/// One history.
final class CollidingWorld {
    /// What is unlike in worlds.
    struct Setting: Sendable {
        var replicas = 2
        var shards = 2
        var pushes = 60
        /// From one push to the next, at most; in milliseconds.
        var pause: Int64 = 400
        /// Whether replicas tell each other of families.
        var isShared = true
    }

    /// A family as a shard holds it.
    struct Held {
        var body: String
        var family: PushedFamily
    }

    /// From when to when a group may have held something.
    struct Span {
        var group: Int
        var family: PushedFamily
        var from: Int64
        var to: Int64
    }

    let setting: Setting
    var chance: Chance
    private var agenda = Agenda()
    private(set) var now: Int64 = 1_000_000_000_000
    private let clock = Clock()
    private var replicas: [Replica] = []
    fileprivate var consul = ClaimLog(id: 1)
    /// Of each shard what it holds of each group, by the key's labels as text.
    fileprivate var shards: [[String: [Held]]]
    /// When each shard has done the last thing that it was given.
    private var busyUntil: [Int64]
    private var spans: [Span] = []
    private(set) var taken = 0
    private(set) var refused = 0
    /// Pushes that were refused although nothing that did not go with them can have been there.
    private(set) var refusedInVain = 0
    /// What was wrong, in words.
    private(set) var faults: [String] = []
    /// How often two groups came to hold one series, which two pushes at the same time may bring about.
    private(set) var sameSeries = 0
    private var holdsSameSeries = false
    private(set) var told: [String] = []

    fileprivate func tell(_ what: String) { told.append("\(now / 1_000_000): \(what)") }

    init(_ setting: Setting, seed: UInt64) {
        self.setting = setting
        chance = Chance(seed)
        shards = Array(repeating: [:], count: setting.shards)
        busyUntil = Array(repeating: 0, count: setting.shards)
        replicas = (0..<setting.replicas).map { Replica(self, $0, clock, isShared: setting.isShared) }
    }

    func run() {
        var time = now
        for _ in 0..<setting.pushes {
            time += chance.between(0, setting.pause * 1_000_000)
            let push = randomPush()
            let replica = replicas[chance.below(replicas.count)]
            at(time) { [unowned self] in replica.take(push) { self.decided(push, $0, replica.number, since: time) } }
        }
        for replica in replicas { replica.begin() }
        let end = time + 15_000_000_000
        while faults.isEmpty, let (next, body) = agenda.next(), next < end {
            now = next
            clock.now = next
            body()
        }
    }

    func at(_ time: Int64, _ body: @escaping () -> Void) { agenda.add(at: max(time, now), body) }

    /// A delay in nanoseconds: mostly short.
    func delay(_ usual: Int64, rarely: Int64) -> Int64 {
        chance.between(0, (chance.happens(50) ? rarely : usual) * 1_000_000)
    }

    // MARK: Pushes

    struct Push {
        var key: [(String, String)]
        var body: String
        var isPost: Bool
        var isDelete: Bool
        var checked: CheckedPush
        var shard: Int

        var group: String { key.map { "\($0.0)=\($0.1)" }.joined(separator: ",") }
    }

    private func randomPush() -> Push {
        let keys: [[(String, String)]] = [
            [("job", "a")], [("job", "b")], [("job", "a"), ("l", "1")], [("job", "b"), ("l", "2")],
        ]
        let key = keys[chance.below(keys.count)]
        let isDelete = chance.happens(250)
        let names = [["x"], ["x"], ["s"], ["s_count"], ["x", "s"], ["x", "s_count"]][chance.below(6)]
        let body = isDelete ? "" : names.map { randomFamily($0) }.joined()
        let isPost = chance.happens(500)
        let labels = key.map { (name: Array($0.0.utf8), value: Array($0.1.utf8)) }
        let contents = ContentsReaderTests.text(body, key: labels)
        var families: [PushedFamily] = []
        if case .families(let found) = contents { families = found } else { preconditionFailure("a bad body") }
        let checked = CheckedPush(families: families, group: SeriesHash.group(key), isPost: isPost)
        let shard = key.count == 1 ? 0 : setting.shards - 1
        return Push(key: key, body: body, isPost: isPost, isDelete: isDelete, checked: checked, shard: shard)
    }

    private func randomFamily(_ name: String) -> String {
        let label = ["", "{l=\"1\"}", "{l=\"2\"}", "{m=\"1\"}"][chance.below(4)]
        let kind = ["gauge", "gauge", "gauge", "counter"][chance.below(4)]
        guard name == "s" else { return "# TYPE \(name) \(kind)\n\(name)\(label) 1\n" }
        return "# TYPE s summary\ns_sum\(label) 1\ns_count\(label) 1\n"
    }

    private func decided(_ push: Push, _ decision: KnownFamilies.Decision, _ number: Int, since time: Int64) {
        switch decision {
        case .take(let taken): forward(push, taken, number)
        case .refuse(let refusal):
            refused += 1
            let isInVain = !isJustified(push, since: time)
            if isInVain { refusedInVain += 1 }
            tell(
                "R\(number) refused \(isInVain ? "in vain " : "")\(push.group) \(push.body.debugDescription): \(refusal.line)"
            )
        case .lookUp, .wait, .claim: faults.append("a push was left undecided")
        }
    }

    /// The shard has it, answers, and stores it then.
    private func forward(_ push: Push, _ ended: TakenPush, _ number: Int) {
        taken += 1
        tell("R\(number) took \(push.isPost ? "POST" : "PUT") \(push.group) \(push.body.debugDescription)")
        for family in push.checked.families {
            spans.append(Span(group: push.checked.group, family: family, from: now, to: .max))
        }
        // Each shard does one thing after the other.
        let arrival = max(now + delay(5, rarely: 300), busyUntil[push.shard])
        let stored = arrival + delay(2, rarely: 100)
        busyUntil[push.shard] = stored
        var ended: TakenPush? = ended
        at(arrival + delay(1, rarely: 2)) {
            withExtendedLifetime(ended) {}
            ended = nil
        }
        let since = now
        at(stored) { [unowned self] in store(push, since) }
    }

    private func store(_ push: Push, _ since: Int64) {
        var group = push.isDelete || !push.isPost ? [] : shards[push.shard][push.group] ?? []
        let names = push.checked.families.map(\.name)
        group.removeAll { names.contains($0.family.name) }
        group += push.checked.families.map { Held(body: push.body, family: $0) }
        for index in spans.indices
        where spans[index].group == push.checked.group && spans[index].from < since && spans[index].to == .max {
            let isReplaced = push.isDelete || !push.isPost || names.contains(spans[index].family.name)
            if isReplaced { spans[index].to = now }
        }
        shards[push.shard][push.group] = group.isEmpty ? nil : group
        tell("stored \(push.group) \(push.body.debugDescription)")
        look()
    }

    // MARK: What must be

    /// Two groups that do not go together, in words. What is on its way to another shard may mend it.
    private func conflicts() -> (faults: Set<String>, sameSeries: Bool) {
        let all = shards.flatMap { $0 }.sorted { $0.key < $1.key }
        var faults: Set<String> = []
        var sameSeries = false
        for (index, one) in all.enumerated() {
            for other in all[(index + 1)...] {
                for first in one.value {
                    for second in other.value where doNotGoTogether(first.family, second.family) {
                        let names = [first, second].map { String(decoding: $0.family.name, as: UTF8.self) }
                        let kinds = [first.family.kind, second.family.kind]
                        if names[0] == names[1], kinds[0] == kinds[1] {
                            sameSeries = true
                        } else {
                            faults.insert("\(one.key) and \(other.key) hold \(names) as \(kinds)")
                        }
                    }
                }
            }
        }
        return (faults, sameSeries)
    }

    private func look() {
        let (found, sameSeries) = conflicts()
        if sameSeries, !holdsSameSeries { self.sameSeries += 1 }
        holdsSameSeries = sameSeries
        guard !found.isEmpty else { return }
        at(now + 1_000_000_000) { [unowned self] in
            for fault in conflicts().faults.intersection(found) {
                faults.append("\(now / 1_000_000): for a second \(fault)")
            }
        }
    }

    private func doNotGoTogether(_ one: PushedFamily, _ other: PushedFamily) -> Bool {
        if FamilyKin.areKin((one.name, one.kind), (other.name, other.kind)) { return true }
        guard one.name == other.name else { return false }
        return one.kind != other.kind || !Set(one.series.map(\.hash)).isDisjoint(with: other.series.map(\.hash))
    }

    /// Whether something that does not go with it may have been there since it came.
    private func isJustified(_ push: Push, since time: Int64) -> Bool {
        spans.contains { span in
            span.to >= time
                && push.checked.families.contains { family in
                    guard doNotGoTogether(family, span.family) else { return false }
                    return span.group != push.checked.group || family.name != span.family.name
                }
        }
    }
}

/// The time of a world, as its replicas ask for it.
final class Clock: @unchecked Sendable {
    var now: Int64 = 0
}

// MARK: -

/// One replica: what FamilyLookup does, in simulated time.
private final class Replica {
    private unowned let world: CollidingWorld
    let number: Int
    private let known: KnownFamilies
    private let questions: FamilyQuestions
    private var log: ClaimLog
    private var isListing = false

    init(_ world: CollidingWorld, _ number: Int, _ clock: Clock, isShared: Bool) {
        self.world = world
        self.number = number
        known = KnownFamilies(clock: { MonotonicTime(nanoseconds: UInt64(clock.now)) })
        questions = FamilyQuestions(known)
        log = world.consul
        known.isShared = isShared
        known.isComplete = true
    }

    private var now: MonotonicTime { MonotonicTime(nanoseconds: UInt64(world.now)) }

    /// Lists all that shards hold now and again.
    func begin() {
        let time = world.now + world.chance.between(1_000_000_000, 9_000_000_000)
        world.at(time) { [unowned self] in
            list(isWanted: { _ in true }) { [unowned self] in known.learn($0, isWhole: true) }
            begin()
        }
    }

    func take(_ push: CollidingWorld.Push, _ done: @escaping (KnownFamilies.Decision) -> Void) {
        let decision = known.decide(push.checked, at: now)
        guard case .lookUp = decision else { return done(decision) }
        let answer = Answer(done)
        let deadline = now.advanced(by: .seconds(10))
        questions.ask(.init(push: push.checked, deadline: deadline) { answer.done($0) }, at: now)
        look()
    }

    /// Begins a listing as soon as one is due.
    private func look() {
        guard !isListing, let next = questions.nextTime else { return }
        if next > now {
            return world.at(Int64(next.nanoseconds)) { [unowned self] in look() }
        }
        let due = questions.due(at: now)
        guard !due.isEmpty else { return }
        let names = FamilyQuestions.names(due)
        isListing = true
        list(isWanted: names.contains) { [unowned self] listing in
            isListing = false
            questions.decide(due, by: listing, at: now) { claim($0) }
            look()
        }
    }

    private func list(isWanted: @escaping ([UInt8]) -> Bool, _ done: @escaping (TierListing) -> Void) {
        var listing = TierListing(begun: now)
        var end = world.now
        for shard in world.shards.indices {
            let time = world.now + world.delay(3, rarely: 200)
            end = max(end, time + 1_000_000)
            world.at(time) { [unowned self] in
                let body = Array(page(world.shards[shard]).utf8)
                let address = ShardAddress(host: "shard", port: shard + 1)
                let isRead = body.withUnsafeBytes {
                    listing.add($0, of: address, isWanted: isWanted, counts: { _ in true })
                }
                precondition(isRead)
            }
        }
        world.at(end) { done(listing) }
    }

    /// A shard's answer to a listing.
    private func page(_ groups: [String: [CollidingWorld.Held]]) -> String {
        let texts = groups.sorted { $0.key < $1.key }.map { key, families in
            let labels = key.split(separator: ",").map { $0.split(separator: "=").map(String.init) }
            let own = labels.map { "\"\($0[0])\": \"\($0[1])\"" }.joined(separator: ", ")
            let parts = families.map { "\"\(String(decoding: $0.family.name, as: UTF8.self))\": \(page($0, labels))" }
            return "{\"labels\": {\(own)}, \(parts.joined(separator: ", "))}"
        }
        return "{\"status\": \"success\", \"data\": [\(texts.joined(separator: ", "))]}"
    }

    private func page(_ held: CollidingWorld.Held, _ key: [[String]]) -> String {
        let name = String(decoding: held.family.name, as: UTF8.self)
        let line = held.body.split(separator: "\n").first { $0.hasPrefix(name) && !$0.hasPrefix("#") } ?? ""
        var labels = ["instance": ""]
        if let open = line.firstIndex(of: "{"), let close = line.firstIndex(of: "}") {
            let pair = line[line.index(after: open)..<close].split(separator: "=")
            labels[String(pair[0])] = pair[1].filter { $0 != "\"" }
        }
        for label in key { labels[label[0]] = label[1] }
        let text = labels.sorted { $0.key < $1.key }.map { "\"\($0.key)\": \"\($0.value)\"" }.joined(separator: ", ")
        let kind = held.family.kind.word.uppercased()
        return "{\"type\": \"\(kind)\", \"metrics\": [{\"labels\": {\(text)}}]}"
    }

    /// As ClaimKeeper does it: a write that fails where others have claimed something that this one has not heard of.
    private func claim(_ claims: [FamilyClaim]) -> ClaimKeeper.Outcome {
        guard hear() else { return .overtaken }
        world.consul.append(claims)
        let names = claims.map { "\(String(decoding: $0.name, as: UTF8.self)) \($0.kind)" }
        world.tell("R\(number) claims \(names.joined(separator: ", "))")
        log = world.consul
        world.claimed()
        return .stored
    }

    /// - Returns: whether there was nothing new.
    @discardableResult
    func hear() -> Bool {
        let claims = world.consul.claims(since: log)!
        log = world.consul
        known.hear(claims, at: now)
        return claims.isEmpty
    }
}

extension CollidingWorld {
    /// Each replica hears of it a little later.
    fileprivate func claimed() {
        for replica in replicas { at(now + delay(10, rarely: 240)) { replica.hear() } }
    }
}

/// What a question's answer is for, carried to where everything is on one thread anyway.
private final class Answer: @unchecked Sendable {
    let done: (KnownFamilies.Decision) -> Void

    init(_ done: @escaping (KnownFamilies.Decision) -> Void) { self.done = done }
}
