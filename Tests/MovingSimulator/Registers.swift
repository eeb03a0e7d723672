// Registers for tests of their text: those that a history writes, and large ones.
import MovingCore

/// Every register that is written in a history.
package func registers(of scenario: Scenario) -> [Register] {
    let world = World(scenario)
    world.keepsRegisters = true
    world.run()
    return world.registers
}

/// Four stores: three of them hand their keys over to the fourth, in several states; more: one of them has failed.
package func registerOfLargeMove(stores count: Int) -> Register {
    let stores = (1...count).map {
        Store(id: StoreID(UInt64($0) &* 0x9e37_79b9_7f4a_7c15), address: "10.0.0.1:\(9000 + $0)", start: UInt64($0))
    }
    func map(_ stores: [Store]) -> RingMap {
        var points: [(lastKey: UInt32, owner: StoreID)] = []
        for (index, store) in stores.enumerated() {
            var chance = Chance(UInt64(index + 1) << 32)
            for _ in 0..<500 { points.append((UInt32(truncatingIfNeeded: chance.next()), store.id)) }
        }
        points.sort { ($0.lastKey, $0.owner) < ($1.lastKey, $1.owner) }
        points = zip(points, points.dropFirst()).filter { $0.lastKey < $1.lastKey }.map(\.0)
        points.append((.max, points[0].owner))
        return RingMap(points)
    }
    let isLarge = count > 4
    var register = Register(stores: isLarge ? stores : Array(stores.dropLast()), vnodes: 500)
    let whole = Rings(before: map(stores))
    for stray in register.adopting { register = register.adopted(stray, in: [], rings: whole) }
    if isLarge { return register.failingOver(stores[0].id, rings: whole, backupStarts: [:]) }
    let rings = Rings(before: map(Array(stores.dropLast())), after: map(stores))
    register = register.planning(stores, unmarked: [], vnodes: 500, rings: rings)
    let moving = rings.slots.filter { $0.before != $0.after }
    let starts = Dictionary(uniqueKeysWithValues: stores.map { ($0.id, $0.start) })
    register = register.announcing(moving.map { ($0, $0.after) })
    for part in 0..<4 {
        let slots = moving.enumerated().filter { $0.offset % 5 == part }.map(\.element)
        register = register.fencing(slots).flipping(slots, starts: starts, rings: rings)
    }
    return register
}
