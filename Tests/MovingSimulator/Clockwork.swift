// Time and chance of a simulated history: a queue of things to do, and random numbers from a seed.

/// A small, fast generator (SplitMix64), the same on every machine.
struct Chance {
    private var state: UInt64

    init(_ seed: UInt64) { state = seed &* 0x9e37_79b9_7f4a_7c15 &+ 0x1234_5678_9abc_def1 }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }

    mutating func below(_ limit: Int) -> Int { Int(next() % UInt64(limit)) }

    mutating func between(_ low: Int64, _ high: Int64) -> Int64 { low + Int64(next() % UInt64(high - low + 1)) }

    /// Whether something happens that happens so many times of a thousand.
    mutating func happens(_ perThousand: Int) -> Bool { below(1000) < perThousand }

    mutating func shuffle<Element>(_ array: inout [Element]) {
        for index in array.indices.dropFirst().reversed() { array.swapAt(index, below(index + 1)) }
    }
}

/// What will be done when; things for one moment are done in the order in which they were asked for.
struct Agenda {
    private var heap: [Item] = []
    private var count: UInt64 = 0

    private struct Item {
        var time: Int64
        var order: UInt64
        var body: () -> Void

        func comes(before other: Item) -> Bool { (time, order) < (other.time, other.order) }
    }

    mutating func add(at time: Int64, _ body: @escaping () -> Void) {
        count += 1
        heap.append(Item(time: time, order: count, body: body))
        var index = heap.count - 1
        while index > 0, heap[index].comes(before: heap[(index - 1) / 2]) {
            heap.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    mutating func next() -> (time: Int64, body: () -> Void)? {
        guard let first = heap.first else { return nil }
        let last = heap.removeLast()
        if !heap.isEmpty {
            heap[0] = last
            var index = 0
            while true {
                var least = index
                for child in [2 * index + 1, 2 * index + 2] where child < heap.count {
                    if heap[child].comes(before: heap[least]) { least = child }
                }
                if least == index { break }
                heap.swapAt(index, least)
                index = least
            }
        }
        return (first.time, first.body)
    }
}
