// What is known of families, by their names. FamilyState keeps one; a push whose families are all in it is taken without
// anything else being looked at.

/// A slot of a table of families, as long as its value is there.
struct FamilyReference {
    fileprivate let slot: UInt32
    fileprivate let round: UInt32
}

/// Values by the names of families. Each name has a slot, by which a push under way finds it again without its name.
struct FamilyTable<Value>: ~Copyable {
    private struct Slot {
        let name: [UInt8]
        let hash: UInt64
        var value: Value?
        /// Another one whenever a value has been removed.
        var round: UInt32
    }

    private var slots: [Slot] = []
    /// Those that have neither a name nor a value.
    private var unused: [Int] = []
    /// Of the slots, by the hashes of names.
    private var places = HashTable()
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
        places.number(hash.hash(name)) { slot in
            slots[slot].name.withUnsafeBytes { NameBytes($0) == NameBytes(name) }
        }
    }

    private mutating func add(_ name: [UInt8], _ value: Value) {
        let slot = Slot(
            name: name,
            hash: name.withUnsafeBytes { hash.hash($0) },
            value: value,
            round: nextRound()
        )
        let index = unused.popLast() ?? slots.count
        if index < slots.count { slots[index] = slot } else { slots.append(slot) }
        places.add(slot.hash, index)
        count += 1
    }

    private mutating func nextRound() -> UInt32 {
        rounds &+= 1
        return rounds
    }

    // MARK: By slot

    /// The slot of a name by its hash alone: that two names have one is as likely as that a client guesses the seeds.
    @inline(__always)
    func slot(ofHash hash: UInt64) -> Int? {
        guard let slot = places.number(hash, where: { _ in true }), slots[slot].value != nil else { return nil }
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
        slots.compactMap { slot in slot.value.flatMap { isWanted($0) ? (slot.name, $0) : nil } }
    }

    /// Keeps the values that are wanted, in their slots, and no names but theirs.
    mutating func keep(where isWanted: ([UInt8], Value) -> Bool) {
        places.removeAll()
        unused = []
        for index in slots.indices {
            if let value = slots[index].value, isWanted(slots[index].name, value) {
                places.add(slots[index].hash, index)
                continue
            }
            if slots[index].value != nil { count -= 1 }
            slots[index] = Slot(name: [], hash: 0, value: nil, round: nextRound())
            unused.append(index)
        }
    }
}
