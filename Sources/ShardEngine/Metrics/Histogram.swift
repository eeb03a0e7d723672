// Durations counted by size. The request and shard metrics hold them; the exposition prints them.

/// A histogram of durations with fixed buckets, in the manner of Prometheus.
struct Histogram {
    /// Upper bounds of the buckets, in nanoseconds; the last bucket, for all that is longer, has none.
    static let bounds: [UInt64] = [
        250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000, 100_000_000,
        250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000, 10_000_000_000, 30_000_000_000,
    ]

    /// Observations by bucket, not cumulated.
    private(set) var counts = [UInt64](repeating: 0, count: bounds.count + 1)
    /// The sum of all observations.
    private(set) var sum = TimeSpan.zero

    /// How many observations there were.
    var count: UInt64 { counts.reduce(0, &+) }

    mutating func observe(_ duration: TimeSpan) {
        sum.nanoseconds &+= duration.nanoseconds
        var bucket = 0
        while bucket < Histogram.bounds.count, duration.nanoseconds > Histogram.bounds[bucket] { bucket += 1 }
        counts[bucket] &+= 1
    }

    /// Adds the observations of another one.
    mutating func add(_ other: Histogram) {
        sum.nanoseconds &+= other.sum.nanoseconds
        for bucket in counts.indices { counts[bucket] &+= other.counts[bucket] }
    }
}
