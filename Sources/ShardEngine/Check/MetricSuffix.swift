// Names of families by which they may be parts of others. The readers of bodies ask, and whoever looks at the families of a body.

/// The end of a name by which it may be that of a series of a summary or histogram.
enum MetricSuffix {
    case count(root: UnsafeRawBufferPointer)
    case sum(root: UnsafeRawBufferPointer)
    case bucket(root: UnsafeRawBufferPointer)

    /// nil for a name without such an end, or without anything in front of it.
    @inline(__always)
    init?(_ name: UnsafeRawBufferPointer) {
        func root(_ suffix: StaticString) -> UnsafeRawBufferPointer? {
            let length = name.count - suffix.utf8CodeUnitCount
            guard length > 0, begins(name, at: length, with: suffix) else { return nil }
            return UnsafeRawBufferPointer(rebasing: name[..<length])
        }
        switch name.last {
        case UInt8(ascii: "t"):
            if let root = root("_count") { self = .count(root: root); return }
            if let root = root("_bucket") { self = .bucket(root: root); return }
        case UInt8(ascii: "m"):
            if let root = root("_sum") { self = .sum(root: root); return }
        default: break
        }
        return nil
    }

    /// The name without it.
    var root: UnsafeRawBufferPointer {
        switch self {
        case .count(let root), .sum(let root), .bucket(let root): root
        }
    }

    /// Whether a family of that kind has series with this end.
    func belongs(to kind: FamilyKind?) -> Bool {
        switch (self, kind) {
        case (_, .histogram), (.count, .summary), (.sum, .summary): true
        default: false
        }
    }
}
