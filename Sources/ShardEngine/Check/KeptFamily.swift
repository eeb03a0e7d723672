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
        switch (name[0], name[1]) {
        case (UInt8(ascii: "s"), UInt8(ascii: "h")), (UInt8(ascii: "p"), UInt8(ascii: "u")),
            (UInt8(ascii: "l"), UInt8(ascii: "a")):
            return find(name)
        default: return nil
        }
    }

    @inline(never)
    private static func find(_ name: UnsafeRawBufferPointer) -> KeptFamily? {
        let family = TextReader.name(name)
        if begins(family, at: 0, with: "shardd_store_") || begins(family, at: 0, with: "shardd_void_") { return .mark }
        if equals(family, "push_failure_time_seconds") { return .failureTime }
        return equals(family, "labels") || equals(family, "last_push_successful") ? .fieldOfListing : nil
    }
}
