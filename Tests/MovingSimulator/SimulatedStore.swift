// A simulated Pushgateway: groups of families, marks, a file that is written now and then, a process that starts anew.
import MovingCore

/// A value that is told from any other: the number of the push that brought it.
typealias Value = Int

/// What a store holds: for each key whether its group is there, its families (0: none), and its greatest mark.
struct Content {
    var exists = [Bool](repeating: false, count: World.keyCount)
    var values = [Value](repeating: 0, count: World.keyCount * 3)
    var marks = [Epoch](repeating: 0, count: World.keyCount)
}

/// One store; where it is found is the world's to say.
final class SimulatedStore {
    let id: StoreID
    let name: String
    var content = Content()
    var start: StartTime = 1
    var isUp = true
    var isHung = false
    /// Since when it answers.
    var answersSince: Int64 = -10_000
    /// Whether it has its mark yet.
    var isMarked = false
    /// What was sent to it while it hung: to be done late, or to be told that its connection broke.
    var inbox: [(execute: () -> Void, refuse: () -> Void)] = []
    var file = Content()
    var fileWritten: Int64 = 0

    init(id: StoreID, name: String) { (self.id, self.name) = (id, name) }

    func put(_ key: Int, _ families: [Int: Value]) {
        delete(key)
        post(key, families)
    }

    func post(_ key: Int, _ families: [Int: Value]) {
        content.exists[key] = true
        for (family, value) in families { content.values[key * 3 + family] = value }
    }

    func delete(_ key: Int) {
        content.exists[key] = false
        for family in 0..<3 { content.values[key * 3 + family] = 0 }
    }

    func mark(_ key: Int, _ scope: Epoch) { content.marks[key] = max(scope, content.marks[key]) }

    /// Deletes the groups of marks with smaller numbers.
    func deleteMarks(below number: Epoch) {
        for key in 0..<World.keyCount where content.marks[key] < number { content.marks[key] = 0 }
    }

    func listing(_ world: World) -> Listing {
        var groups: [GroupKey: Group] = [:]
        var marks: [MarkID: Epoch] = [:]
        for key in 0..<World.keyCount {
            if content.exists[key] {
                var families: [Family] = []
                for (family, name) in familyNames.enumerated() {
                    let value = content.values[key * 3 + family]
                    if value > 0 {
                        families.append(Family(name: name, content: [UInt8(value & 0xff), UInt8(value >> 8)]))
                    }
                }
                groups[world.keys[key]] = Group(mark: world.marks[key], families: families)
            }
            if content.marks[key] > 0 { marks[world.marks[key]] = content.marks[key] }
        }
        return Listing(start: start, groups: groups, marks: marks)
    }

    /// Does what the mover pushes.
    func execute(_ what: Send.What) {
        switch what {
        case .put(let key, let families): put(keyIndex(key), values(families))
        case .post(let key, let families): post(keyIndex(key), values(families))
        case .delete(let key): delete(keyIndex(key))
        case .mark(let mark, let scope): self.mark(Int(mark.digest), scope)
        }
    }

    private func keyIndex(_ key: GroupKey) -> Int { Int(key.text)! }

    private func values(_ families: [Family]) -> [Int: Value] {
        var values: [Int: Value] = [:]
        for family in families {
            values[familyNames.firstIndex(of: family.name)!] = Int(family.content[0]) | Int(family.content[1]) << 8
        }
        return values
    }
}

let familyNames = ["x", "y", "z"]
