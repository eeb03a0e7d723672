// Lists of plain values that keep their memory from one push to the next. Who reads what pushes have in them owns some; nothing
// here is shared or copied.

/// A list that allocates only to grow.
struct Arena<Element: BitwiseCopyable>: ~Copyable {
    private var memory: UnsafeMutablePointer<Element>
    private var capacity: Int
    private let usualCapacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        usualCapacity = capacity
        memory = .allocate(capacity: capacity)
    }

    deinit {
        memory.deallocate()
    }

    subscript(index: Int) -> Element {
        @inline(__always) get {
            precondition(index >= 0 && index < count)
            return memory[index]
        }
        @inline(__always) _modify {
            precondition(index >= 0 && index < count)
            yield &memory[index]
        }
    }

    /// Where an element lies; valid until the next change of their number.
    @inline(__always)
    func pointer(to index: Int) -> UnsafeMutablePointer<Element> {
        precondition(index >= 0 && index < count)
        return memory + index
    }

    @inline(__always)
    mutating func append(_ element: Element) {
        if count == capacity { grow() }
        (memory + count).initialize(to: element)
        count &+= 1
    }

    /// Forgets what is behind so many elements.
    mutating func removeAll(from count: Int) {
        precondition(count <= self.count)
        self.count = count
    }

    /// Forgets all, and gives back what an unusual number of elements took.
    @inline(__always)
    mutating func removeAll() {
        count = 0
        if capacity > 64 &* usualCapacity { shrink() }
    }

    /// The elements; valid until the next change.
    var elements: UnsafeBufferPointer<Element> { UnsafeBufferPointer(start: memory, count: count) }

    @inline(never)
    private mutating func grow() {
        let larger = UnsafeMutablePointer<Element>.allocate(capacity: 2 * capacity)
        larger.moveInitialize(from: memory, count: count)
        memory.deallocate()
        memory = larger
        capacity *= 2
    }

    @inline(never)
    private mutating func shrink() {
        memory.deallocate()
        capacity = usualCapacity
        memory = .allocate(capacity: capacity)
    }
}
