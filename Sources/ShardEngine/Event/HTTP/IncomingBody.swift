// The rest of a large body while it comes in: received to where it stays until its push is answered. A parser has one, and
// gives it to evhttp when it is whole.
import CEvent
import Glibc

/// So many bytes, as they come in; loop-confined.
final class IncomingBody {
    private let byteCount: Int
    private var count = 0
    /// From malloc, as it is freed by C.
    private var memory: UnsafeMutableRawPointer?
    private var capacity = 0

    /// - Parameter byteCount: how many bytes are to come.
    init(byteCount: Int) {
        self.byteCount = byteCount
    }

    deinit {
        free(memory)
    }

    var isWhole: Bool { count == byteCount }

    /// Receives some of it, as recv(2) does.
    func receive(from descriptor: Int32, limit: Int) -> Int {
        let wanted = min(limit, byteCount - count)
        if capacity - count < wanted { grow() }
        let received = recv(descriptor, memory.map { $0 + count }, wanted, 0)
        count += max(0, received)
        return received
    }

    /// Grows with what has come: what a client says of its body may not be true.
    private func grow() {
        capacity = min(byteCount, max(2 * capacity, IncomingBody.firstCapacity))
        memory = realloc(memory, capacity)
        precondition(memory != nil, "out of memory")
    }

    /// Moves it, whole, to the end of a buffer.
    func give(to buffer: OpaquePointer?) {
        evbuffer_add_reference(
            buffer,
            memory,
            count,
            { memory, _, _ in free(UnsafeMutableRawPointer(mutating: memory)) },
            nil
        )
        memory = nil
    }

    private static let firstCapacity = 1 << 20
}
