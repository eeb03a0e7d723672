// When shards were off the ring. A process that hung goes on, when it is back, with the requests that its sockets have kept:
// what it gets in that way is new by its clock, but older than what others have got in its stead. The server keeps them, and
// runs correct listings by them.

/// A time in which no replica gave a shard any request as to an owner, all in nanoseconds since 1970.
struct Absence: Equatable, Sendable {
    /// When it had to leave the ring: what others have got in its stead is newer.
    var leftAt: Int64
    /// What it got from then on is late, or a copy of what others got after it.
    var from: Int64
    /// The end of that.
    var until: Int64
    /// The process that was absent; nil where that was not known. No other process has what its sockets had kept.
    var process: String?
}

/// The latest absences of all shards.
struct Absences: Sendable {
    private struct Departure {
        var leftAt: Int64
        /// The process behind the shard's address then; nil where that was not known.
        var process: String?
        /// When the ring without the shard was in force.
        var goneAt: Int64?
        /// When the shard was seen to be back; nil while it is not, or not any more.
        var backAt: Int64?
    }

    /// How long it may take until a shard that hung is seen to be back; nil where that is not known.
    var noticeTime: TimeSpan?
    /// How far apart replicas may be.
    var lag = TimeSpan.zero
    /// Of shards that are back.
    private var past: [ShardAddress: [Absence]] = [:]
    private var departures: [ShardAddress: Departure] = [:]
    /// The shards of the latest ring that is to be in force, and since when it is to be.
    private var wanted: (shards: [ShardAddress], since: Int64) = ([], 0)

    /// When the shard was absent, and is.
    ///
    /// - Parameter now: in nanoseconds since 1970, as elsewhere.
    func times(of shard: ShardAddress, at now: Int64 = wallClockNanoseconds()) -> [Absence] {
        (past[shard] ?? []) + [departures[shard].flatMap { absence($0, at: now) }].compactMap { $0 }
    }

    /// A ring of these shards is about to take the place of that in force, or of one that is about to.
    mutating func willUse(
        _ shards: [ShardAddress],
        after before: [ShardAddress],
        stores: StoreMap,
        at now: Int64 = wallClockNanoseconds()
    ) {
        wanted = (shards, now)
        for shard in before where !shards.contains(shard) {
            departures[shard] = Departure(leftAt: now, process: stores.identity(of: shard)?.process)
        }
        for (shard, departure) in departures where !before.contains(shard) {
            departures[shard]?.backAt = shards.contains(shard) ? departure.backAt ?? now : nil
        }
    }

    /// A ring of these shards has taken the place of another one.
    mutating func didUse(_ shards: [ShardAddress], at now: Int64 = wallClockNanoseconds()) {
        for (shard, departure) in departures {
            if !shards.contains(shard) {
                departures[shard]?.goneAt = departure.goneAt ?? now
                // It may have been back before the ring without it was in force.
                if wanted.shards.contains(shard) { departures[shard]?.backAt = departure.backAt ?? wanted.since }
            } else if departure.goneAt != nil {
                departures[shard] = nil
                guard let absence = absence(departure, at: now) else { continue }
                past[shard] = (past[shard] ?? []).suffix(Absences.limit - 1) + [absence]
            }
        }
    }

    private func absence(_ departure: Departure, at now: Int64) -> Absence? {
        guard let goneAt = departure.goneAt else { return nil }
        let noticed = noticeTime.map { (departure.backAt ?? now) - Int64($0.nanoseconds) } ?? .min
        let from = max(goneAt + Int64(lag.nanoseconds), noticed)
        let until = departure.backAt.map { $0 + Absences.lateTime } ?? .max
        guard from < until else { return nil }
        return Absence(leftAt: departure.leftAt, from: from, until: until, process: departure.process)
    }

    /// By when a shard that hung has done what its sockets have kept, in nanoseconds: before any replica gives it requests
    /// as to an owner, since the ring with it is announced for longer.
    private static let lateTime: Int64 = 250_000_000
    /// Absences of one shard.
    private static let limit = 8
}

extension ShardListing {
    /// What the shard got while it was absent is as old as its absence, if it is the process that was.
    mutating func correct(by absences: [Absence], process: String?) {
        let absences = absences.filter { $0.process == process }
        guard !absences.isEmpty else { return }
        for (labels, copy) in groups {
            for (name, family) in copy.families {
                guard let absence = absences.first(where: { ($0.from...$0.until).contains(family.pushedAt) }) else {
                    continue
                }
                groups[labels]?.families[name]?.version = absence.leftAt
            }
        }
    }
}
