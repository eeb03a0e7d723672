// The body of a request that did not come as a whole, or is large: received to where it stays until its push is answered, so
// that it can be sent again. A partial request has one while it comes in, then the request, and then, of a large one, the
// exchange.
import CEvent
import Glibc

/// The bytes of a body, counted against the memory of their server as long as anybody has them; loop-confined.
final class BodyBuffer {
    private let memory: RequestMemory
    /// How many bytes are to come in all; for a chunked body, how many may.
    private let limit: Int
    private let isSized: Bool
    /// Length in bytes, so far.
    private(set) var count = 0
    private var storage: UnsafeMutableRawPointer?
    private var capacity = 0
    /// How many bytes it may hold; they are taken from the memory.
    private(set) var granted = 0

    /// - Parameter limit: how many bytes are to come; where that is not known, how many may.
    init(memory: RequestMemory, limit: Int, isSized: Bool) {
        self.memory = memory
        self.limit = limit
        self.isSized = isSized
    }

    deinit {
        free(storage)
        memory.giveBack(granted)
    }

    /// The bytes so far.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: storage, count: count) }

    /// How many bytes are to come; of a chunked body, at most.
    var bytesToCome: Int { limit - count }

    /// Whether all of it is there; a chunked body does not know.
    var isWhole: Bool { isSized && count == limit }

    /// How many bytes fit into what has been granted.
    var room: Int { granted - count }

    /// How much more it has to be granted before it can be read on: as much again as it has.
    var nextGrant: Int { min(max(granted, BodyBuffer.firstGrant), limit - granted) }

    /// Whether it has little yet.
    var isAtStart: Bool { granted < BodyBuffer.firstGrant }

    /// It may hold so many bytes more.
    func grant(_ bytes: Int) {
        granted += bytes
    }

    /// Receives more, as recv(2) does, as far as there is room.
    func receive(from descriptor: Int32, limit: Int) -> Int {
        let wanted = min(limit, room)
        makeRoom(wanted)
        let received = recv(descriptor, storage.map { $0 + count }, wanted, 0)
        count += max(0, received)
        return received
    }

    /// Adds what has been read already, with the head or between chunks.
    func append(_ bytes: UnsafeRawBufferPointer) {
        guard let source = bytes.baseAddress, let target = makeRoom(bytes.count) else { return }
        memcpy(target, source, bytes.count)
        count += bytes.count
        guard count > granted else { return }
        memory.take(count - granted)
        granted = count
    }

    /// Grows with what has come: what a client says of its body may not be true.
    @discardableResult
    private func makeRoom(_ more: Int) -> UnsafeMutableRawPointer? {
        if count + more > capacity {
            capacity = min(limit, max(2 * capacity, count + more, BodyBuffer.firstCapacity))
            storage = realloc(storage, capacity)
            precondition(storage != nil, "out of memory")
        }
        return storage.map { $0 + count }
    }

    /// Sends what follows the first `offset` bytes, as much as the socket takes; -1 with errno as `send(2)` has it.
    func send(from offset: Int, to descriptor: Int32) -> Int {
        Glibc.send(descriptor, storage.map { $0 + offset }, count - offset, Int32(MSG_NOSIGNAL))
    }

    private static let firstGrant = 1 << 16
    private static let firstCapacity = 1 << 18
}
