// A request body taken out of evhttp's hands, in the pieces in which it was read.
// An exchange keeps one while its large body is on the way to a shard, so that it can be sent again from the start.
import CEvent
import Glibc

/// The bytes of a body, owned apart from the request they came with; loop-confined.
final class BodyBuffer {
    private let buffer: OpaquePointer

    /// Takes all bytes out of `source`, without copying them.
    init(taking source: OpaquePointer) {
        guard let buffer = evbuffer_new() else { preconditionFailure("out of memory") }
        self.buffer = buffer
        evbuffer_add_buffer(buffer, source)
    }

    deinit {
        evbuffer_free(buffer)
    }

    /// Length in bytes.
    var count: Int { evbuffer_get_length(buffer) }

    /// Sends what follows the first `offset` bytes, as much as the socket takes; -1 with errno as `send(2)` has it.
    func send(from offset: Int, to descriptor: Int32) -> Int {
        var position = evbuffer_ptr()
        evbuffer_ptr_set(buffer, &position, offset, EVBUFFER_PTR_SET)
        return withUnsafeTemporaryAllocation(of: iovec.self, capacity: 64) { pieces in
            let available = evbuffer_peek(buffer, -1, &position, pieces.baseAddress, Int32(pieces.count))
            var message = msghdr()
            message.msg_iov = pieces.baseAddress
            message.msg_iovlen = min(Int(available), pieces.count)
            return sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL))
        }
    }
}
