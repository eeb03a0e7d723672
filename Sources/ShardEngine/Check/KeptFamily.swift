// Names of families that are not for clients, since a shard or shardd itself uses them. The guard's judge of bodies asks.

/// A family that shardd or Pushgateway keeps for itself.
enum KeptFamily {
    /// Of shardd's marks.
    case mark
    /// Pushgateway's own time of a group's last failed push, which a push may set only as Pushgateway does.
    case failureTime
    /// It takes the place of what `/api/v1/metrics` tells of its group.
    case fieldOfListing

    /// Whether a name that does not begin with a quote may be that of such a family: most differ in the first letters.
    ///
    /// - Parameter name: begins with the family's name.
    @inline(__always)
    static func mayBe(_ name: UnsafeRawBufferPointer) -> Bool {
        // From l to s.
        guard name.count >= 6, name[0] &- UInt8(ascii: "l") < 8 else { return false }
        switch name[1] {
        // Quotes may begin within a name.
        case UInt8(ascii: "a"), UInt8(ascii: "h"), UInt8(ascii: "u"), UInt8(ascii: "\""): return true
        default: return false
        }
    }

    /// The family that a name is of; nil for all others.
    ///
    /// - Parameter name: begins with the family's name.
    @inline(never)
    static func of(_ name: UnsafeRawBufferPointer) -> KeptFamily? {
        TextReader.withName(name) { family in
            if begins(family, at: 0, with: "shardd_store_") || begins(family, at: 0, with: "shardd_void_") {
                return .mark
            }
            if equals(family, "push_failure_time_seconds") { return .failureTime }
            return equals(family, "labels") || equals(family, "last_push_successful") ? .fieldOfListing : nil
        }
    }
}
