// The simulator's rings: a few points for each address, four ranges. Made once for each pair of memberships and kept.
import MovingCore

extension World {
    /// The rings that the register names.
    func rings(for register: Register) -> Rings {
        ringsFor(RingPair(before: register.ring, after: register.next))
    }

    func ringsFor(_ key: RingPair) -> Rings {
        if let known = ringCache[key] { return known }
        let made = Rings(
            before: ringMap(key.before),
            after: key.after.map(ringMap),
            rangeBits: 2
        )
        ringCache[key] = made
        return made
    }

    private func ringMap(_ ring: RingMembers) -> RingMap {
        var points: [(lastKey: UInt32, owner: StoreID)] = []
        for member in ring.members {
            for index in 0..<3 {
                var hash: UInt64 = 14_695_981_039_346_656_037
                for byte in "\(index)\(member.address)\(scenario.seed % 8)".utf8 {
                    hash = (hash ^ UInt64(byte)) &* 1_099_511_628_211
                }
                var chance = Chance(hash)
                points.append((UInt32(truncatingIfNeeded: chance.next() >> 32), member.store))
            }
        }
        points.sort { $0.lastKey < $1.lastKey }
        points.append((.max, points[0].owner))
        return RingMap(points)
    }
}

/// What rings are made of.
struct RingPair: Hashable {
    var before: RingMembers
    var after: RingMembers?
}
