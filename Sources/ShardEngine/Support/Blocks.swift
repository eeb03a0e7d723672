// A list of many values that grows without being copied: an array needs the memory of both while it is. The table of families has
// its slots in one.

/// A list in blocks of equal size.
final class Blocks<Element> {
    private var blocks: [UnsafeMutablePointer<Element>] = []
    private(set) var count = 0

    private static var shift: Int { 10 }
    private static var size: Int { 1 << shift }

    init() {}

    deinit {
        var left = count
        for block in blocks {
            block.deinitialize(count: min(Blocks.size, left))
            block.deallocate()
            left -= Blocks.size
        }
    }

    var indices: Range<Int> { 0..<count }

    subscript(index: Int) -> Element {
        @inline(__always) _read {
            precondition(index >= 0 && index < count)
            yield blocks[index >> Blocks.shift][index & (Blocks.size &- 1)]
        }
        @inline(__always) _modify {
            precondition(index >= 0 && index < count)
            yield &blocks[index >> Blocks.shift][index & (Blocks.size &- 1)]
        }
    }

    func append(_ element: Element) {
        if count == blocks.count * Blocks.size { blocks.append(.allocate(capacity: Blocks.size)) }
        (blocks[count >> Blocks.shift] + (count & (Blocks.size - 1))).initialize(to: element)
        count += 1
    }
}
