// What is wrong with a history at its end, and how a change of the register is told in plain words.
import MovingCore

extension World {
    /// Compares what stores hold with what clients were told.
    func judge() {
        for key in 0..<World.keyCount {
            let holders = inDiscovery.filter { $0.isUp && $0.content.exists[key] }
            if holders.count > 1 {
                log { "WRONG (doubled): group \(key) is on \(holders.map(\.name))" }
                wrong.insert(.doubled)
            }
            for family in 0..<3 {
                let (allowed, late) = oracle.allowed(key, family)
                var seen = Set(holders.map { $0.content.values[key * 3 + family] }).subtracting([0])
                if seen.isEmpty { seen = [0] }
                for value in seen where !allowed.contains(value) {
                    found(late.contains(value) ? .late : allowed == [0] ? .back : .lost, key, family, seen, allowed)
                }
            }
        }
    }

    /// What has changed in the register.
    func difference(_ old: Register, _ new: Register) -> String {
        var parts = ["epoch \(new.epoch)"]
        if new.next != old.next {
            parts.append(new.next.map { "moves to \($0.members.map(\.address))" } ?? "the ring is reached")
        }
        if new.down != old.down { parts.append("failed: \(new.down.map(name))") }
        if new.dirty != old.dirty { parts.append("may hold void copies: \(new.dirty.map { name($0.store) })") }
        if new.adopting != old.adopting { parts.append("adopts from \(new.adopting.map { name($0.store) })") }
        let slots = Set(old.entries.keys).union(new.entries.keys)
        let texts = slots.sorted().filter { old.entry($0) != new.entry($0) }.map { slot in
            (slot, text(new.entry(slot)) + (new.entries[slot] == nil ? " (at rest)" : ""))
        }
        let rings = rings(for: new)
        for (text, group) in Dictionary(grouping: texts, by: { $0.1 }).sorted(by: { $0.key < $1.key }) {
            let slots = Set(group.map(\.0))
            let those = keys.indices.filter { slots.contains(rings.slot(of: keys[$0].hash)) }
            if !those.isEmpty { parts.append("groups \(those): \(text)") }
        }
        return parts.joined(separator: "; ")
    }

    private func text(_ entry: Entry) -> String {
        var text = "on \(name(entry.own))"
        switch entry.step {
        case .settled: break
        case .unclean: text += ", which has to be cleaned"
        case .announced(let to): text += ", will go to \(name(to))"
        case .copying(let to): text += ", fenced, going to \(name(to))"
        case .overlapping(let backup, _): text += ", and also on \(name(backup))"
        case .ending(let backup, _): text += ", fenced, and also on \(name(backup))"
        case .wiping(let former): text += ", fenced, leaving \(name(former))"
        case .ailing: text += ", ailing"
        case .healing: text += ", fenced, being healed"
        }
        if !entry.predecessors.isEmpty {
            text += ", preceded by \(entry.predecessors.map { "\(name($0.store)) since \($0.since)" })"
        }
        return text
    }
}
