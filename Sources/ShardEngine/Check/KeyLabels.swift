// The labels of a push's grouping key, and what they bring to each of its series. The reader of contents has one, which the guard
// fills for each push.

/// Bytes that are told apart by what they are; they belong to the body or to the key.
struct NameBytes: Hashable {
    let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    @inline(__always)
    static func == (left: NameBytes, right: NameBytes) -> Bool {
        guard left.bytes.count == right.bytes.count else { return false }
        guard let first = left.bytes.baseAddress, let second = right.bytes.baseAddress else { return true }
        return areSame(first, second, left.bytes.count)
    }

    @inline(__always)
    func hash(into hasher: inout Hasher) {
        hasher.combine(bytes: bytes)
    }
}

/// The labels of a grouping key, and their parts in the hashes of all its series.
final class KeyLabels {
    /// The sums over its labels alone.
    private(set) var hash = 0
    private(set) var names: UInt64 = 0
    /// The parts of an `instance` with an empty value, which every series has that has no `instance`; nought where the key
    /// has one.
    private(set) var noInstanceHash = 0
    private(set) var noInstanceName: UInt64 = 0
    private(set) var hasQuantile = false
    /// Whether each value is UTF-8.
    private(set) var isUTF8 = true
    /// What tells its group from others; an empty instance is as none.
    private(set) var group = 0
    private var known = Arena<NameBytes>(capacity: 16)
    /// Names that are too many to be looked at one by one.
    private var late: Set<NameBytes> = []

    private static let instance: StaticString = "instance"
    private static let emptyInstance = (
        hash: SeriesHash.label(
            UnsafeRawBufferPointer(start: instance.utf8Start, count: instance.utf8CodeUnitCount),
            UnsafeRawBufferPointer(start: nil, count: 0)
        ),
        name: SeriesHash.shapeName(
            UnsafeRawBufferPointer(start: instance.utf8Start, count: instance.utf8CodeUnitCount),
            isEmpty: true
        )
    )
    private static let fewNames = 16

    /// The sum over the names of its labels, with `instance` among them.
    var shape: UInt64 { names &+ noInstanceName }

    /// Forgets the labels of the push before.
    func removeAll() {
        (hash, names, group) = (0, 0, 0)
        (hasQuantile, isUTF8) = (false, true)
        (noInstanceHash, noInstanceName) = KeyLabels.emptyInstance
        known.removeAll()
        if !late.isEmpty { late.removeAll() }
    }

    /// Adds a label of a name that is not there yet; the bytes are the caller's until the push has been decided.
    func add(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) {
        let part = SeriesHash.label(name, value)
        hash &+= part
        names &+= SeriesHash.shapeName(name, isEmpty: value.isEmpty)
        if known.count < KeyLabels.fewNames { known.append(NameBytes(name)) } else { late.insert(NameBytes(name)) }
        if equals(name, "quantile") { hasQuantile = true }
        if !ShardEngine.isUTF8(value) { isUTF8 = false }
        let isInstance = equals(name, KeyLabels.instance)
        if isInstance { (noInstanceHash, noInstanceName) = (0, 0) }
        if !isInstance || !value.isEmpty { group &+= part }
    }

    func contains(_ name: UnsafeRawBufferPointer) -> Bool {
        known.elements.contains(NameBytes(name)) || !late.isEmpty && late.contains(NameBytes(name))
    }

    /// A series of this key without labels of its own, but for `instance`.
    var series: SeriesSum { SeriesSum(hash: hash, names: names) }
}

/// What is known of a series while its labels are read.
struct SeriesSum {
    var hash: Int
    var names: UInt64
    /// Whether it has a label `instance` that is not the key's.
    var hasInstance = false

    /// All of it, with an empty `instance` where it has none.
    @inline(__always)
    func series(of key: KeyLabels) -> (hash: Int, allNames: UInt64) {
        hasInstance ? (hash, names) : (hash &+ key.noInstanceHash, names &+ key.noInstanceName)
    }
}
