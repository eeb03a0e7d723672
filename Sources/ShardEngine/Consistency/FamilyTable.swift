// What is known of families, by their names. FamilyState keeps one; a push whose families are all in it is taken without
// anything else being looked at.

/// A slot of a table of families, as long as its value is there.
struct FamilyReference {
    fileprivate let slot: UInt32
    fileprivate let round: UInt32
}

/// Values by the names of families. Each name has a slot, by which a push under way finds it again without its name.
///
/// There may be a hundred thousand: names lie one behind the other, and slots are found by four bytes for each place.
struct FamilyTable<Value>: ~Copyable {
    private struct Slot {
        let hash: UInt64
        var value: Value?
        /// Where its name is.
        var start: UInt32
        let length: UInt32
        /// Another one whenever a value has been removed.
        var round: UInt32
    }

    private let slots = Blocks<Slot>()
    private var names: [UInt8] = []
    /// Those that have neither a name nor a value.
    private var unused: [Int] = []
    /// One more than the slot, at or behind the place of its hash; 0 for none. At most half of the places are taken.
    private var places = [UInt32](repeating: 0, count: 256)
    private let hash = KeyedHash.ofProcess
    private var rounds: UInt32 = 0
    /// How many names have a value.
    private(set) var count = 0

    subscript(name: [UInt8]) -> Value? {
        get { name.withUnsafeBytes { slot($0) }.flatMap { slots[$0].value } }
        _modify {
            guard let slot = name.withUnsafeBytes({ slot($0) }) else {
                var value: Value?
                yield &value
                if let value { add(name, value) }
                return
            }
            let wasThere = slots[slot].value != nil
            yield &slots[slot].value
            let isThere = slots[slot].value != nil
            if wasThere, !isThere { slots[slot].round = nextRound() }
            count += (isThere ? 1 : 0) - (wasThere ? 1 : 0)
        }
    }

    private func slot(_ name: UnsafeRawBufferPointer) -> Int? {
        find(hash.hash(name)) { slot in
            slots[slot].length == name.count
                && names.withUnsafeBytes {
                    NameBytes(UnsafeRawBufferPointer(rebasing: $0[range(slot)])) == NameBytes(name)
                }
        }
    }

    private func range(_ slot: Int) -> Range<Int> {
        Int(slots[slot].start)..<Int(slots[slot].start) + Int(slots[slot].length)
    }

    private mutating func add(_ name: [UInt8], _ value: Value) {
        let hash = name.withUnsafeBytes { self.hash.hash($0) }
        let (start, length) = (UInt32(names.count), UInt32(name.count))
        append(name)
        let slot = Slot(hash: hash, value: value, start: start, length: length, round: nextRound())
        let index = unused.popLast() ?? slots.count
        if index < slots.count {
            slots[index] = slot
        } else {
            slots.append(slot)
        }
        if 2 * slots.count > places.count {
            places = [UInt32](repeating: 0, count: 2 * places.count)
            for index in slots.indices where slots[index].round != 0 { place(index) }
        } else {
            place(index)
        }
        count += 1
    }

    private mutating func append(_ name: some Collection<UInt8>) {
        // By itself, an array grows to twice its size.
        if names.count + name.count > names.capacity {
            names.reserveCapacity(names.count + name.count + names.count / 8)
        }
        names += name
    }

    private mutating func nextRound() -> UInt32 {
        rounds = max(1, rounds &+ 1)
        return rounds
    }

    // MARK: Places

    private mutating func place(_ slot: Int) {
        var place = Int(truncatingIfNeeded: slots[slot].hash) & (places.count - 1)
        while places[place] != 0 { place = (place + 1) & (places.count - 1) }
        places[place] = UInt32(slot + 1)
    }

    @inline(__always)
    private func find(_ hash: UInt64, where isWanted: (Int) -> Bool) -> Int? {
        let mask = places.count &- 1
        var place = Int(truncatingIfNeeded: hash) & mask
        while places[place] != 0 {
            let slot = Int(places[place]) &- 1
            if slots[slot].hash == hash, isWanted(slot) { return slot }
            place = (place &+ 1) & mask
        }
        return nil
    }

    // MARK: By slot

    /// The slot of a name by its hash alone: that two names have one is as likely as that a client guesses the seeds.
    @inline(__always)
    func slot(ofHash hash: UInt64) -> Int? {
        guard let slot = find(hash, where: { _ in true }), slots[slot].value != nil else { return nil }
        return slot
    }

    @inline(__always)
    func reference(to slot: Int) -> FamilyReference {
        FamilyReference(slot: UInt32(truncatingIfNeeded: slot), round: slots[slot].round)
    }

    /// Calls `body` with what a slot has; nil for an empty one.
    @inline(__always)
    mutating func update<Result>(_ slot: Int, _ body: (inout Value) -> Result) -> Result? {
        slots[slot].value != nil ? body(&slots[slot].value!) : nil
    }

    /// The same, unless the value has been removed since.
    @inline(__always)
    mutating func update(_ reference: FamilyReference, _ body: (inout Value) -> Void) {
        let slot = Int(reference.slot)
        if slot < slots.count, slots[slot].round == reference.round { _ = update(slot, body) }
    }

    // MARK: All of them

    mutating func updateAll(_ body: (inout Value) -> Void) {
        for slot in slots.indices { _ = update(slot, body) }
    }

    /// Those that are wanted, with their names.
    func values(where isWanted: (Value) -> Bool) -> [(name: [UInt8], value: Value)] {
        slots.indices.compactMap { index in
            slots[index].value.flatMap { isWanted($0) ? (Array(names[range(index)]), $0) : nil }
        }
    }

    /// Keeps the values that are wanted, in their slots, and no names but theirs.
    mutating func keep(where isWanted: ([UInt8], Value) -> Bool) {
        let former = names
        names = []
        (unused, count) = ([], 0)
        places = [UInt32](repeating: 0, count: places.count)
        for index in slots.indices {
            let name = Array(former[range(index)])
            if let value = slots[index].value, isWanted(name, value) {
                slots[index].start = UInt32(names.count)
                append(name)
                place(index)
                count += 1
            } else {
                // Of a name there is a place only where there is a round.
                slots[index] = Slot(hash: 0, value: nil, start: 0, length: 0, round: 0)
                unused.append(index)
            }
        }
    }
}
