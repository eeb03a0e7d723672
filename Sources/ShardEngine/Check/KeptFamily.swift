// Names of families that are not for clients, since a shard or shardd itself uses them. The guard's judge of bodies asks.

/// A family that shardd or Pushgateway keeps for itself.
enum KeptFamily {
    /// Of shardd's marks.
    case mark
    /// Pushgateway's own time of a group's last failed push, which a push may set only as Pushgateway does.
    case failureTime
    /// It takes the place of what `/api/v1/metrics` tells of its group.
    case fieldOfListing

    /// The family that a name is of; nil for all others.
    ///
    /// - Parameter name: begins with the family's name.
    @inline(__always)
    static func of(_ name: UnsafeRawBufferPointer) -> KeptFamily? {
        // Most names differ in the first letters.
        guard name.count >= 6 else { return nil }
        let second = name[1]
        switch name[0] {
        case UInt8(ascii: "s") where second == UInt8(ascii: "h"), UInt8(ascii: "p") where second == UInt8(ascii: "u"),
            UInt8(ascii: "l") where second == UInt8(ascii: "a"), UInt8(ascii: "\""):
            return find(name)
        case UInt8(ascii: "s"), UInt8(ascii: "p"), UInt8(ascii: "l"):
            return second == UInt8(ascii: "\"") ? find(name) : nil
        default: return nil
        }
    }

    @inline(never)
    private static func find(_ name: UnsafeRawBufferPointer) -> KeptFamily? {
        TextReader.withName(name) { family in
            if begins(family, at: 0, with: "shardd_store_") || begins(family, at: 0, with: "shardd_void_") {
                return .mark
            }
            if equals(family, "push_failure_time_seconds") { return .failureTime }
            return equals(family, "labels") || equals(family, "last_push_successful") ? .fieldOfListing : nil
        }
    }
}
