// Counts by status code. A few codes make up nearly all answers, so a short list beats a table.

/// How often each status was answered.
struct StatusCounts {
    /// The counts, in the order in which the codes first came up.
    private(set) var entries: [(status: Int, count: UInt64)] = []

    /// How many answers were successes.
    var successCount: UInt64 {
        entries.reduce(0) { (200..<300).contains($1.status) ? $0 &+ $1.count : $0 }
    }

    mutating func count(_ status: Int) {
        add(1, to: status)
    }

    /// Adds the counts of another one.
    mutating func add(_ other: StatusCounts) {
        for entry in other.entries { add(entry.count, to: entry.status) }
    }

    private mutating func add(_ count: UInt64, to status: Int) {
        for index in entries.indices where entries[index].status == status {
            entries[index].count &+= count
            return
        }
        entries.append((status, count))
    }
}
