// The system calls on a TCP connection that is driven by hand: non-blocking, without signals. Pipelines use it.
import CEvent
import Glibc

/// A non-blocking TCP socket, closed with its owner.
struct StreamSocket: ~Copyable {
    /// What a call that moves bytes came to.
    enum Outcome {
        /// So many bytes, at least one.
        case bytes(Int)
        /// Nothing for now: wait until the socket is ready.
        case notReady
        /// The other side will send no more.
        case ended
        /// The connection is broken.
        case failed
    }

    let descriptor: Int32

    /// Begins to connect.
    ///
    /// - Returns: nil with `errno` set when the system refuses at once.
    static func connect(to address: SocketAddress) -> StreamSocket? {
        let descriptor = socket(
            address.family,
            Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue),
            0
        )
        guard descriptor >= 0 else { return nil }
        let socket = StreamSocket(descriptor: descriptor)
        var on: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        let result = address.withSockaddr { Glibc.connect(descriptor, $0, $1) }
        guard result == 0 || errno == EINPROGRESS else { return nil }
        return socket
    }

    private init(descriptor: Int32) {
        self.descriptor = descriptor
    }

    deinit {
        let error = errno
        close(descriptor)
        errno = error
    }

    /// The number of the error that connecting has ended with; 0 when the connection stands.
    func connectError() -> Int32 {
        var error: Int32 = 0
        var size = socklen_t(MemoryLayout<Int32>.size)
        getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &error, &size)
        return error
    }

    /// Sends what the socket takes.
    ///
    /// - Parameter isMoreToCome: the bytes may wait, for a moment, for those of the next call.
    func send(_ bytes: UnsafeRawBufferPointer, isMoreToCome: Bool) -> Outcome {
        let flags = Int32(MSG_NOSIGNAL) | (isMoreToCome ? Int32(MSG_MORE) : 0)
        return outcome(Glibc.send(descriptor, bytes.baseAddress, bytes.count, flags))
    }

    /// Sends what the socket takes of a body, from an offset on.
    func send(_ body: BodyBuffer, from offset: Int) -> Outcome {
        outcome(body.send(from: offset, to: descriptor))
    }

    /// Receives what there is, up to the buffer's size.
    func receive(into buffer: UnsafeMutableRawBufferPointer) -> Outcome {
        outcome(recv(descriptor, buffer.baseAddress, buffer.count, 0))
    }

    private func outcome(_ count: Int) -> Outcome {
        if count > 0 { return .bytes(count) }
        if count == 0 { return .ended }
        return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? .notReady : .failed
    }
}
