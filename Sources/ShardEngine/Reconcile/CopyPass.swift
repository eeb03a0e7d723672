// Gives owners what one shard holds of their groups, some hundred at a time: push, look again, push again what has changed
// meanwhile. A run makes one for each shard that has strays.

/// The copying of one shard's strays; a part of a run.
struct CopyPass {
    private let from: ShardAddress
    private unowned let run: ReconcileRun
    private var left: [GroupLabels]
    private let batchSize: Int
    private var attempts: [GroupLabels: Int] = [:]
    /// When the shard's process was started, as it tells.
    private var startTime: String?
    /// When the first push was about to be made, in nanoseconds since 1970.
    private let startedAt: Int64
    /// What was pushed, or may have been, and has not been found unchanged by a look since.
    private var unconfirmed: [GroupLabels: Set<String>] = [:]
    /// Whether the journal has something of this pass.
    private var isWritten = false
    /// What owners have been given of groups whose copies have yet to be looked at: by an earlier run that did not live to do
    /// so, or of a copy that was gone and has been made anew.
    private var doubtful: [GroupLabels: Set<String>] = [:]
    /// Groups of which owners may have something that is gone from the shard.
    private var vanished: Set<GroupLabels> = []
    /// When owners were about to be asked what they had of a group, before anything was pushed.
    private var askedAt: [GroupLabels: MonotonicTime] = [:]
    /// Families that owners have got from clients since they were pushed: with each later push, owners will get them too.
    private var followed: [GroupLabels: Set<String>] = [:]

    init(from: ShardAddress, _ groups: [GroupLabels], run: ReconcileRun) {
        self.from = from
        self.run = run
        left = groups.reversed()
        batchSize = RunSettings.batch(of: groups.count)
        startedAt = wallClockNanoseconds()
        startTime = run.client.startTime(of: from)
    }

    /// Sees to pushes of an earlier run: what it gave owners is taken for not given, and their copies are looked at.
    init(from: ShardAddress, after journal: CopyJournal, run: ReconcileRun) {
        self.from = from
        self.run = run
        startedAt = journal.startedAt
        startTime = journal.startTime
        for pushed in journal.groups {
            let group = GroupLabels(listed: pushed.labels)
            let owner = run.places.owner(of: group)
            let held = run.listings[owner]?.groups[group]
            let given = journal.given(pushed, of: held, copy: run.listings[from]?.groups[group])
            guard !given.isEmpty else { continue }
            doubtful[group] = Set(given.keys)
            for name in given.keys { run.listings[owner]?.groups[group]?.families[name] = nil }
            run.ledger.didPush(group, given.keys, by: given.values.map(\.pushedAt).max() ?? 0)
        }
        unconfirmed = doubtful
        left = Array(doubtful.keys)
        batchSize = RunSettings.batch(of: left.count)
        isWritten = true
    }

    /// Copies all; false when something is left that was pushed and has yet to be looked after.
    mutating func carryOut() -> Bool {
        var isDone = true
        if left.contains(where: { move($0) != nil || doubtful[$0] != nil }) {
            copy()
            isDone = left.isEmpty
        }
        guard unconfirmed.isEmpty else {
            run.leave(Set(unconfirmed.keys), on: from, areWrittenDown: note([]))
            return false
        }
        return (!isWritten || forget()) && isDone
    }

    private mutating func copy() {
        // What was read first is old by now.
        guard look() else { return }
        while !left.isEmpty || !vanished.isEmpty, run.mayGoOn {
            guard run.mayBelieve([from]), let moves = upToDate(nextMoves()) else { return }
            guard moves.isEmpty || carryOut(moves), lookAfterVanished() else { return }
        }
    }

    /// What there is to push by what owners hold now, as pushes may have gone to them alone, where the shard was too slow to
    /// be visited: a family that is pushed after such a one would take its place, and the copy would show nothing of it. Nil
    /// when owners cannot be asked.
    private mutating func upToDate(_ moves: [GroupMove]) -> [GroupMove]? {
        let new = moves.filter { !run.ledger.hasPushed($0.copy.labels) }
        for move in new { askedAt[move.copy.labels] = .now() }
        for (owner, moves) in Dictionary(grouping: new, by: \.owner) {
            guard let now = run.latest(owner) else { return nil }
            for move in moves { run.listings[owner]?.groups[move.copy.labels] = now.groups[move.copy.labels] }
        }
        return moves.compactMap { move($0.copy.labels) }
    }

    /// Pushes and looks again; false when the rest cannot be done.
    private mutating func carryOut(_ moves: [GroupMove]) -> Bool {
        guard note(moves) else { return false }
        let done = push(moves)
        let contested = done.filter { attempts[$0.copy.labels] != nil }
        let before = ownersTimes(of: contested)
        // Before a shard has deleted a group, it has answered already that it has.
        run.wait(CopyPass.deletionTime)
        // What the shard has missed by now would show as unchanged.
        guard look(), run.mayBelieve([from]) else { return false }
        let given = done.map { ($0.copy.labels, run.ledger.pushedNames(of: $0.copy.labels)) }
        guard run.noteVersions(given, from: from) else { return false }
        noteFollowed(since: before, ownersTimes(of: contested))
        var replacements: [GroupMove] = []
        for move in done {
            if let replacement = confirm(move) { replacements.append(replacement) }
        }
        run.pace(moves.count)
        return replace(replacements)
    }

    /// When owners, by their clocks, got the families of groups that have changed between looks before: they may change all
    /// the time.
    private func ownersTimes(of moves: [GroupMove]) -> [GroupLabels: [String: Int64]] {
        var times: [GroupLabels: [String: Int64]] = [:]
        for (owner, moves) in Dictionary(grouping: moves, by: \.owner) {
            guard let listing = run.latest(owner) else { continue }
            for move in moves {
                let held = listing.groups[move.copy.labels]?.families ?? [:]
                times[move.copy.labels] = held.filter { move.families[$0.key] != nil }.mapValues(\.pushedAt)
            }
        }
        return times
    }

    private mutating func noteFollowed(
        since before: [GroupLabels: [String: Int64]],
        _ now: [GroupLabels: [String: Int64]]
    ) {
        for (group, times) in before {
            for (name, time) in times where now[group]?[name] ?? time > time {
                followed[group, default: []].insert(name)
            }
        }
    }

    /// The next groups, as many as may be pushed between two looks, and fit into the journal.
    private mutating func nextMoves() -> [GroupMove] {
        var moves: [GroupMove] = []
        var size = 0
        while moves.count < batchSize, size < CopyJournal.roomForBatch, let group = left.popLast() {
            guard let move = move(group) else {
                cannotBeMoved(group)
                continue
            }
            moves.append(move)
            size += CopyJournal.size(of: group, move.families.keys)
        }
        return moves
    }

    private mutating func cannotBeMoved(_ group: GroupLabels) {
        guard unconfirmed[group] != nil else { return }
        if run.listings[from]?.groups[group] == nil { hasVanished(group) } else { didLookAfter(group) }
    }

    /// Nothing is left to be looked after; false when Consul does not take that.
    private func forget() -> Bool {
        if run.write(nil, from: from) { return true }
        run.problem("Consul does not take down that the copies from \(from) are looked after")
        // The next run reads that they are not, and takes what is swept now for deleted.
        run.leave([], on: from, areWrittenDown: false)
        return false
    }

    /// The copy is gone: by a DELETE, unless the shard has lost everything, or another run has deleted it, as the owner has it.
    private mutating func hasVanished(_ group: GroupLabels) {
        doubtful[group] = nil
        followed[group] = nil
        let isSwept = askedAt[group].map(run.mayBeSwept) ?? false
        if let startTime, !isSwept, run.client.startTime(of: from) == startTime {
            vanished.insert(group)
        } else {
            didLookAfter(group)
        }
    }

    /// Takes back from owners what they were given of copies that are gone. A copy that a push has made anew since is to be
    /// moved again.
    ///
    /// - Returns: whether owners and the shard could be asked.
    private mutating func lookAfterVanished() -> Bool {
        guard !vanished.isEmpty else { return true }
        guard run.mayGoOn, let leftovers = run.removeResurrected(vanished), look() else { return false }
        for group in vanished {
            attempts[group, default: 0] += 1
            if run.listings[from]?.groups[group] != nil {
                moveAnew(group)
            } else if !leftovers.contains(group) {
                didLookAfter(group)
            } else if hasHadItsAttempts(group) {
                // Pushes make it anew without a visit to the copy: one could be lost if anything were taken away now.
                didLookAfter(group)
            }
        }
        return true
    }

    private mutating func moveAnew(_ group: GroupLabels) {
        vanished.remove(group)
        guard !hasHadItsAttempts(group) else { return }
        doubtful[group] = run.ledger.pushedNames(of: group)
        left.append(group)
    }

    /// Whether a group changes so often that no more is to be done about it; then people are told.
    private func hasHadItsAttempts(_ group: GroupLabels) -> Bool {
        guard attempts[group, default: 0] >= CopyPass.attemptLimit else { return false }
        run.problem("\(run.places.text(of: group)) changes too often to be moved from \(from)")
        return true
    }

    private mutating func didLookAfter(_ group: GroupLabels) {
        vanished.remove(group)
        unconfirmed[group] = nil
    }

    /// Writes down what is about to be pushed; false when it cannot be.
    private mutating func note(_ moves: [GroupMove]) -> Bool {
        for move in moves { unconfirmed[move.copy.labels, default: []].formUnion(move.families.keys) }
        isWritten = true
        let due = Set(moves.map(\.copy.labels))
        let journal = CopyJournal(
            from: from,
            startTime: startTime,
            startedAt: startedAt,
            unconfirmed,
            owner: run.places.owner(of:),
            takenBy: { [ledger = run.ledger] in due.contains($0) ? nil : ledger.takenBy($0) }
        )
        if run.write(journal, from: from) { return true }
        run.problem("Consul does not take down what is about to be pushed from \(from)")
        return false
    }

    private func look() -> Bool {
        switch run.look(at: from) {
        case .success(let listing):
            run.listings[from] = listing
            return true
        case .failure(let failure):
            run.problem(failure.reason)
            return false
        }
    }

    /// What the owner lacks of a group; nil when it lacks nothing, or cannot be given it.
    private func move(_ group: GroupLabels) -> GroupMove? {
        guard let copy = run.listings[from]?.groups[group] else { return nil }
        let owner = run.places.owner(of: group)
        let held = run.listings[owner]?.groups[group]
        let families = copy.families.filter { name, family in
            if let owned = held?.families[name], owned.version >= family.version { return false }
            return followed[group]?.contains(name) != true
                && !run.ledger.hasAcknowledged(group, name, version: family.version)
                && !run.hasNewer(group, name, than: family, on: from)
        }
        let isKnown = held != nil || run.ledger.hasPushed(group)
        guard !families.isEmpty || !isKnown || unconfirmed[group] != nil else { return nil }
        if let obstacle = copy.obstacleToMove {
            run.keep(group, "\(run.places.text(of: group)) stays on \(from): \(obstacle)")
            return nil
        }
        return GroupMove(
            copy: copy,
            owner: owner,
            path: run.places.path(of: group),
            families: families,
            hasFailed: !copy.wasLastPushSuccessful && held == nil
        )
    }

    /// Pushes; returns the moves that were acknowledged.
    private mutating func push(_ moves: [GroupMove]) -> [GroupMove] {
        let answers = run.client.carryOut(moves.map(\.post))
        var done: [GroupMove] = []
        var failed: [ShardClient.Order] = []
        for (move, answer) in zip(moves, answers) {
            switch answer {
            case .refused(let reason, let isForGood):
                // An earlier push of it may be in doubt, but must not hold up all others for ever.
                if isForGood || !run.ledger.hasPushed(move.copy.labels) { unconfirmed[move.copy.labels] = nil }
                if isForGood {
                    run.keep(move.copy.labels, notTaken(move, reason))
                } else {
                    run.problem(notTaken(move, reason))
                }
            case .failed(let reason):
                // It may have been.
                let now = wallClockNanoseconds()
                run.ledger.didPush(move.copy.labels, move.families.keys, by: now, isAnswered: false)
                run.problem(notTaken(move, reason))
            case .done(let time, let isChecked):
                run.ledger.didPush(move.copy.labels, move.families.keys, by: time)
                if isChecked, move.hasFailed { failed.append(move.failingPost) }
                done.append(move)
            }
        }
        _ = run.client.carryOut(failed)
        return done
    }

    private func notTaken(_ move: GroupMove, _ reason: String) -> String {
        let group = run.places.text(of: move.copy.labels)
        return "\(group) stays on \(from): \(move.owner) does not take it: \(reason)"
    }

    /// Compares what was pushed with what the shard holds now.
    ///
    /// - Returns: what the owner has to be given as a whole, as the copy has lost something that the owner was given.
    private mutating func confirm(_ move: GroupMove) -> GroupMove? {
        let group = move.copy.labels
        guard let now = run.listings[from]?.groups[group] else {
            hasVanished(group)
            return nil
        }
        var isUnchanged = true
        for (name, family) in move.families {
            if now.families[name]?.pushedAt == family.pushedAt {
                run.ledger.acknowledge(group, name, version: family.version)
            } else if followed[group]?.contains(name) != true {
                isUnchanged = false
            }
        }
        let names = (doubtful.removeValue(forKey: group) ?? []).union(move.families.keys)
        let haveAllStayed = names.allSatisfy { now.families[$0] != nil }
        if isUnchanged, haveAllStayed {
            unconfirmed[group] = nil
            run.ledger.confirm(group)
            return nil
        }
        attempts[group, default: 0] += 1
        guard !hasHadItsAttempts(group) else { return nil }
        left.append(group)
        guard !haveAllStayed else { return nil }
        doubtful[group] = names
        followed[group] = nil
        return GroupMove(copy: now, owner: move.owner, path: move.path, families: now.families, hasFailed: false)
    }

    /// A PUT has taken families away from copies that owners had been given meanwhile: owners get what the copies hold now,
    /// and keep what they have from others.
    ///
    /// - Returns: whether the rest can be done.
    private mutating func replace(_ moves: [GroupMove]) -> Bool {
        guard !moves.isEmpty else { return true }
        guard note(moves) else { return false }
        for move in moves where replaceWhole(move) { doubtful[move.copy.labels] = Set(move.families.keys) }
        // A push that came in between the look at the owner and the PUT has left what it brought on the copy.
        return look()
    }

    /// Returns whether the owner has taken it.
    private func replaceWhole(_ move: GroupMove) -> Bool {
        let group = move.copy.labels
        guard move.copy.obstacleToMove == nil,
            case .success(let listing) = run.look(at: move.owner, alsoWanted: [group])
        else {
            return false
        }
        let held = listing.groups[group]
        guard held?.obstacle == nil else { return false }
        let foreign = held.map { run.ledger.foreignFamilies(of: $0) } ?? [:]
        let families = move.families.merging(foreign) { $0.version > $1.version ? $0 : $1 }
        let answers = run.client.carryOut([move.put(families)])
        run.ledger.didReplace(group)
        guard case .done(let time, _) = answers.first else {
            run.ledger.didPush(group, families.keys, by: wallClockNanoseconds(), isAnswered: false)
            return false
        }
        run.ledger.didPush(group, families.keys, by: time)
        return true
    }

    private static let deletionTime = TimeSpan.milliseconds(50)
    /// How often a group that changes all the time is pushed.
    private static let attemptLimit = 10
}
