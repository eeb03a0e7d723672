// Where the labels of a push path lie: offsets only, in memory that is kept from push to push.
// PushPath fills it, label decoding narrows the spans, the assembly of grouping keys sorts them and reads them out.
import Glibc

/// The name and the value of one label, as offsets into the bytes that were scanned.
struct LabelSpan {
    fileprivate var nameStart: UInt32
    private var nameEnd: UInt32
    private var valueStart: UInt32
    private var valueEnd: UInt32
    /// The name's first eight bytes as a number, so that most comparisons touch no other memory; set by `sortByName`.
    fileprivate var prefix: UInt64 = 0

    init(name: Range<Int>, value: Range<Int>) {
        nameStart = UInt32(name.lowerBound)
        nameEnd = UInt32(name.upperBound)
        valueStart = UInt32(value.lowerBound)
        valueEnd = UInt32(value.upperBound)
    }

    var name: Range<Int> { Int(nameStart)..<Int(nameEnd) }
    var value: Range<Int> { Int(valueStart)..<Int(valueEnd) }
}

/// A list of spans that allocates only to grow.
struct LabelSpans: ~Copyable {
    private var memory: UnsafeMutablePointer<LabelSpan>
    private var capacity = LabelSpans.usualCapacity
    private(set) var count = 0

    private static let usualCapacity = 64
    /// Up to so many labels a sort by insertion is the quicker one; more are sorted by heap, which no order of names
    /// can make slow.
    private static let insertionLimit = 24

    init() {
        memory = .allocate(capacity: capacity)
    }

    deinit {
        memory.deallocate()
    }

    subscript(index: Int) -> LabelSpan {
        get {
            precondition(index < count)
            return memory[index]
        }
        set {
            precondition(index < count)
            memory[index] = newValue
        }
    }

    @inline(__always)
    mutating func append(_ span: LabelSpan) {
        if count == capacity { grow() }
        (memory + count).initialize(to: span)
        count += 1
    }

    /// Forgets the spans, and gives back what an unusual number of them took.
    mutating func removeAll() {
        count = 0
        guard capacity > 16 * LabelSpans.usualCapacity else { return }
        memory.deallocate()
        capacity = LabelSpans.usualCapacity
        memory = .allocate(capacity: capacity)
    }

    /// Sorts by name, bytewise; equal names stay in the order in which they were in the path.
    mutating func sortByName(in bytes: UnsafeRawBufferPointer) {
        guard count > 1 else { return }
        for index in 0..<count { memory[index].prefix = LabelSpans.prefix(of: memory[index].name, in: bytes) }
        if count <= LabelSpans.insertionLimit {
            sortByInsertion(bytes)
        } else {
            sortByHeap(bytes)
        }
    }

    private func sortByInsertion(_ bytes: UnsafeRawBufferPointer) {
        for next in 1..<count {
            let span = memory[next]
            var place = next
            while place > 0, LabelSpans.isBefore(span, memory[place - 1], bytes) {
                memory[place] = memory[place - 1]
                place -= 1
            }
            memory[place] = span
        }
    }

    private func sortByHeap(_ bytes: UnsafeRawBufferPointer) {
        for root in stride(from: count / 2 - 1, through: 0, by: -1) { siftDown(from: root, to: count, bytes) }
        for end in stride(from: count - 1, through: 1, by: -1) {
            swap(&memory[0], &memory[end])
            siftDown(from: 0, to: end, bytes)
        }
    }

    private func siftDown(from root: Int, to end: Int, _ bytes: UnsafeRawBufferPointer) {
        let span = memory[root]
        var place = root
        while 2 * place + 1 < end {
            var child = 2 * place + 1
            if child + 1 < end, LabelSpans.isBefore(memory[child], memory[child + 1], bytes) { child += 1 }
            guard LabelSpans.isBefore(span, memory[child], bytes) else { break }
            memory[place] = memory[child]
            place = child
        }
        memory[place] = span
    }

    private mutating func grow() {
        let larger = UnsafeMutablePointer<LabelSpan>.allocate(capacity: capacity * 2)
        larger.moveInitialize(from: memory, count: count)
        memory.deallocate()
        memory = larger
        capacity *= 2
    }

    private static func prefix(of name: Range<Int>, in bytes: UnsafeRawBufferPointer) -> UInt64 {
        let surplus = UInt64(8 * max(0, 8 - name.count))
        if name.lowerBound + 8 <= bytes.count {
            let word = bytes.loadUnaligned(fromByteOffset: name.lowerBound, as: UInt64.self)
            return (UInt64(bigEndian: word) >> surplus) << surplus
        }
        return name.prefix(8).reduce(0) { $0 << 8 | UInt64(bytes[$1]) } << surplus
    }

    /// Whether one label comes before another: by name, then by place in the path.
    @inline(__always)
    private static func isBefore(_ left: LabelSpan, _ right: LabelSpan, _ bytes: UnsafeRawBufferPointer) -> Bool {
        if left.prefix != right.prefix { return left.prefix < right.prefix }
        let order = compareBytes(bytes, left.name, right.name)
        return order == 0 ? left.nameStart < right.nameStart : order < 0
    }
}

/// Negative, nought or positive as the one range of the bytes comes before, equals, or comes after the other.
@inline(__always)
func compareBytes(_ bytes: UnsafeRawBufferPointer, _ left: Range<Int>, _ right: Range<Int>) -> Int {
    let common = min(left.count, right.count)
    if common > 0, let start = bytes.baseAddress {
        let order = memcmp(start + left.lowerBound, start + right.lowerBound, common)
        if order != 0 { return Int(order) }
    }
    return left.count - right.count
}
