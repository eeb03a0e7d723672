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
    /// However the socket is closed, by the end of the process too, the kernel resets the connection and drops what it has
    /// not delivered; `closesInOrder()` is the exception.
    ///
    /// - Parameter patience: how long what is sent may stay unacknowledged before the kernel gives the connection up.
    /// - Returns: nil with `errno` set when the system refuses at once.
    static func connect(to address: SocketAddress, patience: TimeSpan) -> StreamSocket? {
        let descriptor = socket(
            address.family,
            Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue),
            0
        )
        guard descriptor >= 0 else { return nil }
        let socket = StreamSocket(descriptor: descriptor)
        socket.set(Int32(IPPROTO_TCP), TCP_NODELAY, to: Int32(1))
        socket.set(SOL_SOCKET, SO_LINGER, to: linger(l_onoff: 1, l_linger: 0))
        socket.setPatience(patience)
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

    /// How long what is sent may stay unacknowledged before the kernel gives the connection up.
    func setPatience(_ patience: TimeSpan) {
        let milliseconds = min(max(1, patience.nanoseconds / 1_000_000), UInt64(Int32.max))
        set(Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, to: UInt32(milliseconds))
    }

    /// The same, as the kernel has it, in milliseconds.
    var patience: UInt32 {
        var value: UInt32 = 0
        var size = socklen_t(MemoryLayout<UInt32>.size)
        getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, &value, &size)
        return value
    }

    /// Has the socket, when it is closed, tell the other side so, after all that was sent, instead of resetting.
    func closesInOrder() {
        set(SOL_SOCKET, SO_LINGER, to: linger(l_onoff: 0, l_linger: 0))
    }

    private func set<Value: BitwiseCopyable>(_ level: Int32, _ option: Int32, to value: Value) {
        var value = value
        setsockopt(descriptor, level, option, &value, socklen_t(MemoryLayout<Value>.size))
    }

    /// Whether the other side's kernel has acknowledged everything that was sent.
    var isAllDelivered: Bool {
        var count: Int32 = 0
        return ioctl(descriptor, UInt(TIOCOUTQ), &count) == 0 && count == 0
    }

    /// What `receive` would come to now; nothing is received.
    func peek() -> Outcome {
        var byte: UInt8 = 0
        return outcome(recv(descriptor, &byte, 1, Int32(MSG_PEEK)))
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
