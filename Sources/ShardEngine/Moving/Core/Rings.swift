// Where keys lie on the ring in force and on the next one, and so in which slot each key is.
//
// The shell makes one `Rings` for the members that a register names, off the loop for large rings, and `Following` keeps
// it beside the register. The core never hashes an address.

/// The arcs of one ring in ascending order; each owns the keys after the arc before it up to its last key.
package struct RingMap: Sendable {
    private let lastKeys: [UInt32]
    private let owners: [StoreID]

    /// - Parameter arcs: in ascending order; the last one ends at the greatest key.
    package init(_ arcs: [(lastKey: UInt32, owner: StoreID)]) {
        lastKeys = arcs.map(\.lastKey)
        owners = arcs.map(\.owner)
        precondition(lastKeys.last == .max, "arcs cover all keys")
        precondition(zip(lastKeys, lastKeys.dropFirst()).allSatisfy { $0 < $1 }, "each arc has keys")
    }

    /// The store that a key belongs to.
    package func owner(of hash: UInt32) -> StoreID { owners[index(of: hash)] }

    /// The first store that is wanted, going clockwise from the key.
    func first(from hash: UInt32, where isWanted: (StoreID) -> Bool) -> StoreID? {
        let start = index(of: hash)
        for step in owners.indices {
            let owner = owners[(start + step) % owners.count]
            if isWanted(owner) { return owner }
        }
        return nil
    }

    /// The arcs that end at or after the key, as ends and owners, until one ends at or after the other key.
    func arcs(from first: UInt32, through last: UInt32) -> Zip2Sequence<ArraySlice<UInt32>, ArraySlice<StoreID>> {
        let indices = index(of: first)...index(of: last)
        return zip(lastKeys[indices], owners[indices])
    }

    private func index(of hash: UInt32) -> Int {
        var low = 0
        var high = lastKeys.count - 1
        while low < high {
            let middle = (low + high) / 2
            if lastKeys[middle] < hash { low = middle + 1 } else { high = middle }
        }
        return low
    }
}

/// The ring in force and the next one, which is the same while nothing is planned.
package struct Rings: Sendable {
    package let before: RingMap
    package let after: RingMap
    /// Every slot that has keys, in ascending order.
    package let slots: [Slot]
    /// In how many ranges the hash is cut, as a power of two.
    private let rangeBits: UInt32

    /// - Parameter rangeBits: 10, so that a slot is one of 1,024 ranges; the simulator takes fewer.
    package init(before: RingMap, after: RingMap? = nil, rangeBits: UInt32 = 10) {
        self.before = before
        self.after = after ?? before
        self.rangeBits = rangeBits
        var slots: Set<Slot> = []
        for range in 0..<UInt32(1 << rangeBits) {
            let first = range << (32 - rangeBits)
            let last = first | (.max >> rangeBits)
            for (end, owner) in before.arcs(from: first, through: last) {
                slots.insert(Slot(range: UInt16(range), before: owner, after: self.after.owner(of: min(end, last))))
            }
            for (end, owner) in self.after.arcs(from: first, through: last) {
                slots.insert(Slot(range: UInt16(range), before: before.owner(of: min(end, last)), after: owner))
            }
        }
        self.slots = slots.sorted()
    }

    package var rangeCount: UInt16 { 1 << rangeBits }

    package func range(of hash: UInt32) -> UInt16 { UInt16(hash >> (32 - rangeBits)) }

    /// The slot that a key is in.
    package func slot(of hash: UInt32) -> Slot {
        Slot(range: range(of: hash), before: before.owner(of: hash), after: after.owner(of: hash))
    }

    /// The first store that is wanted, going clockwise on the next ring from where the range begins; where that has none, on
    /// the ring in force.
    func standIn(_ range: UInt16, where isWanted: (StoreID) -> Bool) -> StoreID? {
        let first = UInt32(range) << (32 - rangeBits)
        return after.first(from: first, where: isWanted) ?? before.first(from: first, where: isWanted)
    }
}
