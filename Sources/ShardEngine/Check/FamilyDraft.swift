// A family while its body is read, in plain memory that is kept from push to push. BodyFamilies has those of a body.

struct FamilyDraft {
    let name: UnsafeRawBufferPointer
    /// Of the name.
    let hash: UInt64
    /// Tells it from all others of the body, also from one of its name whose place it takes.
    let serial: UInt32
    var kind: FamilyKind?
    /// As it stands in the body.
    var help: UnsafeRawBufferPointer?
    var isHelpEscaped = false
    /// Pushgateway puts its own in its place, so that nothing but its timestamps counts.
    let isReplaced: Bool
    /// Whether it breaks a rule.
    var isRefused = false
    var seriesCount = 0
    /// Where the first and the last of its series are; they are linked.
    var firstSeries = -1
    var lastSeries = -1
    /// The same of its shapes, and the one that its last series has.
    var firstShape = -1
    var lastShape = -1
    var presentShape = -1
    /// The labels in the body of a histogram's or summary's last metric in text.
    private(set) var lastMetric: Int?

    init(name: UnsafeRawBufferPointer, hash: UInt64, serial: UInt32) {
        self.name = name
        self.hash = hash
        self.serial = serial
        isReplaced = equals(name, "push_time_seconds") || equals(name, "push_failure_time_seconds")
    }

    /// - Returns: whether the metric is another one than that of the line before.
    @inline(__always)
    mutating func begin(metric hash: Int) -> Bool {
        if lastMetric == hash { return false }
        lastMetric = hash
        return true
    }

    /// Where a hash of this family's is in a table of all families: of a series, or of a metric.
    @inline(__always)
    func place(_ hash: Int, isMetric: Bool) -> UInt64 {
        UInt64(truncatingIfNeeded: hash) &+ (UInt64(serial) << 1 | (isMetric ? 1 : 0)) &* 0x9E37_79B9_7F4A_7C15
    }
}
