// Contiguous bytes with a read end and a write end: what pipelines send from and receive into.
// The owner is a class that stores one; nothing here is shared or copied.
import Glibc

/// A growable run of bytes, appended at its end and consumed from its start.
struct ByteBuffer: ~Copyable {
    private var memory: UnsafeMutableRawPointer
    private(set) var capacity: Int
    private var start = 0
    private var end = 0

    init(capacity: Int) {
        self.capacity = max(capacity, 64)
        memory = .allocate(byteCount: self.capacity, alignment: 16)
    }

    deinit {
        memory.deallocate()
    }

    /// How many bytes are there to read.
    var count: Int { end - start }

    /// The bytes to read; valid until the next change.
    var readable: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: memory + start, count: count)
    }

    /// Room for at least `size` bytes at the end; write there, then `commit` as many as were written.
    mutating func reserve(_ size: Int) -> UnsafeMutableRawPointer {
        if capacity - end < size { makeRoom(size) }
        return memory + end
    }

    /// Counts `size` bytes, written where `reserve` pointed, as part of the buffer.
    mutating func commit(_ size: Int) {
        precondition(end + size <= capacity)
        end += size
    }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress else { return }
        memcpy(reserve(bytes.count), source, bytes.count)
        end += bytes.count
    }

    mutating func append(_ text: StaticString) {
        append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    /// Appends a string's UTF-8; a literal is meant to be a static string, which costs less.
    @_disfavoredOverload
    mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    mutating func append(byte: UInt8) {
        reserve(1).storeBytes(of: byte, as: UInt8.self)
        end += 1
    }

    /// Appends a number that is not negative, in decimal.
    mutating func append(decimal number: Int) {
        precondition(number >= 0)
        var digits = 1
        var rest = number
        while rest >= 10 {
            rest /= 10
            digits += 1
        }
        let target = reserve(digits).assumingMemoryBound(to: UInt8.self)
        rest = number
        for position in stride(from: digits - 1, through: 0, by: -1) {
            target[position] = UInt8(truncatingIfNeeded: 0x30 + rest % 10)
            rest /= 10
        }
        end += digits
    }

    /// Drops `size` bytes from the start.
    mutating func consume(_ size: Int) {
        precondition(size <= count)
        start += size
        if start == end {
            start = 0
            end = 0
        }
    }

    /// Drops `size` bytes from the end.
    mutating func removeLast(_ size: Int) {
        precondition(size <= count)
        end -= size
    }

    /// Drops all the bytes, and the memory too when it has grown beyond `keeping` bytes.
    mutating func reset(keeping: Int) {
        start = 0
        end = 0
        guard capacity > keeping else { return }
        memory.deallocate()
        capacity = keeping
        memory = .allocate(byteCount: capacity, alignment: 16)
    }

    /// Moves the bytes to the front when that makes enough room and most of the front is free, else grows.
    private mutating func makeRoom(_ size: Int) {
        let held = count
        if held + size <= capacity, start >= capacity / 2 {
            memmove(memory, memory + start, held)
        } else {
            var larger = capacity * 2
            while larger - held < size { larger *= 2 }
            let moved = UnsafeMutableRawPointer.allocate(byteCount: larger, alignment: 16)
            memcpy(moved, memory + start, held)
            memory.deallocate()
            memory = moved
            capacity = larger
        }
        start = 0
        end = held
    }
}
