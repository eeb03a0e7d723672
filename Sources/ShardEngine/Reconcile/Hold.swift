// How long steps wait for replicas that hear of things later. Handover and the commands go by it.

extension Configuration {
    /// Whether groups are moved. By the path alone nobody can tell where a group belongs: it has many paths.
    var movesGroups: Bool { reconcile.enabled && hash.key == .group && mode == .forward }

    /// How far apart replicas may hear of a membership: without Consul, as they make their own probes, mostly.
    var replicaLag: TimeSpan {
        let interval = consul?.pollInterval ?? min(check.interval, .seconds(1))
        return TimeSpan(nanoseconds: 2 * interval.nanoseconds + 250_000_000)
    }

    /// How long it may take until a shard that hung is seen to be back; nil with Consul, which may be away itself. Without it,
    /// a shard may be off the ring of one replica alone, and be given pushes by others.
    var noticeTime: TimeSpan? {
        guard consul == nil else { return nil }
        let probing = UInt64(check.rise) * check.interval.nanoseconds + check.timeout.nanoseconds
        return TimeSpan(nanoseconds: probing + replicaLag.nanoseconds)
    }

    /// How long a ring is announced before it is in force; zero where groups are not moved.
    var hold: TimeSpan { movesGroups ? replicaLag : .zero }
}
