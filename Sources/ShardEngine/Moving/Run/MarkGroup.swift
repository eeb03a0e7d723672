// The groups in which shardd keeps marks in stores, and the one by which it sees that a store has done all that it has answered.
// Store calls write and read them. Their families have no metrics: Pushgateway keeps those and never exposes them, so that of a
// whole group Prometheus sees the two times that every group has.
import MovingCore

/// Groups of marks: one for each number, with a family for each key that is marked with it.
enum MarkGroup {
    private static let label = "void"
    private static let prefix = "shardd_void_"

    /// Where the marks with a number are pushed.
    static func path(_ number: Epoch) -> String { "/metrics/job/\(StoreMark.job)/\(label)/\(number)" }

    /// What a push of a mark holds.
    static func body(_ mark: MarkID) -> [UInt8] { FamilyEncoder.withoutMetrics(name(mark)) }

    /// The number of a group of marks; nil for any other group.
    static func number(of group: GroupLabels) -> Epoch? {
        guard StoreMark.isOwn(group) else { return nil }
        return group.pairs.first { $0.name == label }.flatMap { Epoch($0.value) }
    }

    /// The mark that a family is; nil for any other family.
    static func mark(named name: String) -> MarkID? {
        guard name.hasPrefix(prefix) else { return nil }
        let digits = name.dropFirst(prefix.count)
        guard digits.utf8.count == 24, let hash = UInt32(digits.prefix(8), radix: 16),
            let digest = UInt64(digits.dropFirst(8), radix: 16)
        else { return nil }
        return MarkID(hash: hash, digest: digest)
    }

    private static func name(_ mark: MarkID) -> String {
        prefix + digits(UInt64(mark.hash), count: 8) + digits(mark.digest, count: 16)
    }
}

/// The group that shows which pushes a store has done. A listing puts one family into it, in place of what was there, and deletes
/// it in the end: so nothing piles up, and Prometheus sees the group while a store is being listed.
enum BarrierGroup {
    private static let label = "barrier"
    private static let prefix = "shardd_barrier_"
    /// Where it is pushed.
    static let path = "/metrics/job/\(StoreMark.job)/\(label)/listing"

    /// A name that nobody else uses.
    static func newName() -> String { prefix + digits(.random(in: 0...UInt64.max), count: 16) }

    /// What a push of a name holds.
    static func body(_ name: String) -> [UInt8] { FamilyEncoder.withoutMetrics(name) }

    /// Whether the group is this one.
    static func isBarrier(_ group: GroupLabels) -> Bool {
        StoreMark.isOwn(group) && group.pairs.contains { $0.name == label }
    }
}

private func digits(_ number: UInt64, count: Int) -> String {
    let text = String(number, radix: 16)
    return String(repeating: "0", count: count - text.utf8.count) + text
}
