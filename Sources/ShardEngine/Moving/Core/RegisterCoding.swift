// The register as text: what is kept in Consul, and what an operator sees there. One line for each thing; slots that are in
// the same state and have the same owners share a line, with their ranges, so that a large move stays small. A value that
// a decoder does not know wholly is refused: nothing is moved by half an understanding.
//
//      shardd-register 1
//      epoch 57
//      birth 1
//      frontier 0
//      store 9f3a61c2 1795521600000000000 10.0.0.1:9091      id, process, address; lines below name stores by their place
//      ring 500 0=10.0.0.1:9091 1=10.0.0.2:9091
//      next 500 0=10.0.0.1:9091
//      down 1
//      adopting 2@41
//      dirty 0@45
//      slots 0 1 own 1 after 0@52,2@41~ overlapping 0 17 18 changed 53 rev 53 ranges 0-4,9

/// What a decoder does not take: the line, counted from 1, and why.
package struct RegisterFormatError: Error, Equatable {
    package var line: Int
    package var reason: String
}

extension Register {
    /// The register as text.
    package func encoded() -> [UInt8] {
        let places = Dictionary(uniqueKeysWithValues: stores.enumerated().map { ($1.id, $0) })
        func place(_ id: StoreID) -> String { places[id].map(String.init) ?? "#" + String(id.value, radix: 16) }
        func list(_ strays: [Stray]) -> String {
            strays.map { "\(place($0.store))@\($0.since)" }.joined(separator: " ")
        }
        func line(_ word: String, _ ring: RingMembers) -> String {
            "\(word) \(ring.vnodes) " + ring.members.map { "\(place($0.store))=\($0.address)" }.joined(separator: " ")
        }
        var lines = ["shardd-register 1", "epoch \(epoch)", "birth \(birth)", "frontier \(frontier)"]
        lines += stores.map { "store \(String($0.id.value, radix: 16)) \($0.start) \($0.address)" }
        lines.append(line("ring", ring))
        if let next { lines.append(line("next", next)) }
        if !down.isEmpty { lines.append("down " + down.map(place).joined(separator: " ")) }
        if !adopting.isEmpty { lines.append("adopting " + list(adopting)) }
        if !dirty.isEmpty { lines.append("dirty " + list(dirty)) }
        var ranges: [String: [UInt16]] = [:]
        for (slot, entry) in entries.sorted(by: { $0.key < $1.key }) {
            let former = entry.predecessors.map { "\(place($0.store))@\($0.since)\($0.isAdopted ? "~" : "")" }
                .joined(separator: ",")
            let step =
                switch entry.step {
                case .settled: "settled"
                case .unclean: "unclean"
                case .announced(let to): "announced \(place(to))"
                case .copying(let to): "copying \(place(to))"
                case .wiping(let former): "wiping \(place(former))"
                case .ailing: "ailing"
                case .healing: "healing"
                case .overlapping(let other, let start): "overlapping \(place(other)) \(start.own) \(start.backup)"
                case .ending(let other, let start): "ending \(place(other)) \(start.own) \(start.backup)"
                }
            let key =
                "slots \(place(slot.before)) \(place(slot.after)) own \(place(entry.own)) after "
                + "\(former.isEmpty ? "-" : former) \(step) changed \(entry.changed) rev \(entry.rev) ranges "
            ranges[key, default: []].append(slot.range)
        }
        lines += ranges.map { $0.key + runs($0.value) }.sorted()
        return Array((lines.joined(separator: "\n") + "\n").utf8)
    }

    /// The ascending ranges, as `0-4,9`.
    private func runs(_ ranges: [UInt16]) -> String {
        var runs: [(first: UInt16, last: UInt16)] = []
        for range in ranges {
            if let last = runs.last, last.last + 1 == range {
                runs[runs.count - 1].last = range
            } else {
                runs.append((range, range))
            }
        }
        return runs.map { $0.first == $0.last ? "\($0.first)" : "\($0.first)-\($0.last)" }.joined(separator: ",")
    }

    /// The register that the text says.
    package init(decoding bytes: [UInt8]) throws(RegisterFormatError) {
        var decoder = RegisterDecoder()
        for (index, line) in String(decoding: bytes, as: UTF8.self).split(separator: "\n").enumerated() {
            decoder.line = index + 1
            try decoder.take(line.split(separator: " ").map(String.init))
        }
        self = try decoder.finished()
    }
}

/// Takes one line after another.
private struct RegisterDecoder {
    var line = 0
    private var isOfThisVersion = false
    private var epoch: Epoch?
    private var birth: Epoch?
    private var ring: RingMembers?
    private var rest = Register(epoch: 0, stores: [], ring: RingMembers(vnodes: 1, members: []))

    mutating func take(_ words: [String]) throws(RegisterFormatError) {
        if line == 1 {
            guard words == ["shardd-register", "1"] else { throw error("not a register of version 1") }
            isOfThisVersion = true
            return
        }
        let values = Array(words.dropFirst())
        switch words[0] {
        case "epoch" where values.count == 1: epoch = try number(values[0])
        case "birth" where values.count == 1: birth = try number(values[0])
        case "frontier" where values.count == 1: rest.frontier = UInt16(clamping: try number(values[0]))
        case "store" where values.count == 3:
            guard let id = UInt64(values[0], radix: 16) else { throw error("\(values[0]) is no id") }
            rest.stores.append(Store(id: StoreID(id), address: values[2], start: try number(values[1])))
        case "ring" where values.count >= 1: ring = try members(values)
        case "next" where values.count >= 1: rest.next = try members(values)
        case "down": for value in values { rest.down.append(try store(value)) }
        case "adopting": for value in values { rest.adopting.append(try stray(value)) }
        case "dirty": for value in values { rest.dirty.append(try stray(value)) }
        case "slots": try slots(values)
        default: throw error("unknown line: \(words[0])")
        }
    }

    func finished() throws(RegisterFormatError) -> Register {
        guard isOfThisVersion, let epoch, let birth, let ring else {
            throw error("the version, the epoch, the birth or the ring is missing")
        }
        var result = rest
        (result.epoch, result.birth, result.ring) = (epoch, birth, ring)
        return result
    }

    private mutating func slots(_ values: [String]) throws(RegisterFormatError) {
        guard values.count >= 7, values[2] == "own", values[4] == "after" else {
            throw error("a slot's line is cut short")
        }
        var entry = Entry(own: try store(values[3]))
        if values[5] != "-" {
            for value in values[5].split(separator: ",") {
                let isAdopted = value.hasSuffix("~")
                let former = try stray(String(isAdopted ? value.dropLast() : value))
                entry.predecessors.append(
                    Predecessor(store: former.store, since: former.since, isAdopted: isAdopted)
                )
            }
        }
        var tail = Array(values[7...])
        switch (values[6], tail.count) {
        case ("settled", 6): entry.step = .settled
        case ("unclean", 6): entry.step = .unclean
        case ("ailing", 6): entry.step = .ailing
        case ("healing", 6): entry.step = .healing
        case ("announced", 7): entry.step = .announced(to: try store(tail[0]))
        case ("copying", 7): entry.step = .copying(to: try store(tail[0]))
        case ("wiping", 7): entry.step = .wiping(try store(tail[0]))
        case ("overlapping", 9), ("ending", 9):
            let processes = Processes(own: try number(tail[1]), backup: try number(tail[2]))
            let backup = try store(tail[0])
            entry.step =
                values[6] == "ending" ? .ending(backup: backup, processes) : .overlapping(backup: backup, processes)
        default: throw error("unknown step: \(values[6])")
        }
        tail = tail.suffix(6)
        guard tail[0] == "changed", tail[2] == "rev", tail[4] == "ranges" else {
            throw error("a slot's line is cut short")
        }
        (entry.changed, entry.rev) = (try number(tail[1]), try number(tail[3]))
        let (before, after) = (try store(values[0]), try store(values[1]))
        for run in tail[5].split(separator: ",") {
            let ends = run.split(separator: "-").compactMap { UInt16($0) }
            guard let first = ends.first, let last = ends.last, first <= last, ends.count <= 2 else {
                throw error("\(run) is no range")
            }
            for range in first...last { rest.entries[Slot(range: range, before: before, after: after)] = entry }
        }
    }

    private func members(_ values: [String]) throws(RegisterFormatError) -> RingMembers {
        var members: [Member] = []
        for value in values.dropFirst() {
            guard let cut = value.firstIndex(of: "=") else { throw error("\(value) is no member") }
            let id = try store(String(value[..<cut]))
            members.append(Member(address: String(value[value.index(after: cut)...]), store: id))
        }
        return RingMembers(vnodes: Int(clamping: try number(values[0])), members: members)
    }

    private func stray(_ value: String) throws(RegisterFormatError) -> Stray {
        let parts = value.split(separator: "@").map(String.init)
        guard parts.count == 2 else { throw error("\(value) lacks an epoch") }
        return Stray(store: try store(parts[0]), since: try number(parts[1]))
    }

    /// A store by its place, or one that has left by its id.
    private func store(_ value: String) throws(RegisterFormatError) -> StoreID {
        if value.hasPrefix("#"), let id = UInt64(value.dropFirst(), radix: 16) { return StoreID(id) }
        guard let place = Int(value), rest.stores.indices.contains(place) else {
            throw error("there is no store \(value)")
        }
        return rest.stores[place].id
    }

    private func number(_ value: String) throws(RegisterFormatError) -> UInt64 {
        guard let number = UInt64(value) else { throw error("\(value) is no number") }
        return number
    }

    private func error(_ reason: String) -> RegisterFormatError { RegisterFormatError(line: line, reason: reason) }
}
