// A listening TCP socket. The server opens it before it says that it is up, and gives it to its HTTPServer.
import CEvent
import Glibc

/// Why a socket could not be opened.
public struct ListenFailure: Error, CustomStringConvertible {
    /// The address and the system's reason.
    public let description: String
}

/// A socket that listens, for one HTTP server.
final class Listener {
    private let listener: OpaquePointer
    private var onAccept: ((Int32) -> Void)?

    /// Opens the socket; several may listen on one port (SO_REUSEPORT), in one process or in more.
    ///
    /// - Parameter host: nil for all addresses, IPv6 and IPv4.
    init(loop: EventLoop, host: String?, port: Int) throws(ListenFailure) {
        let shown = ShardAddress(host: host ?? "*", port: port).text
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        // An IPv6 socket on the unspecified address takes IPv4 as well; IPv4's alone is for hosts without IPv6.
        for name in host.map({ [$0] }) ?? ["::", "0.0.0.0"] {
            let result = getaddrinfo(name, String(port), &hints, &found)
            guard result == 0, let address = found?.pointee else {
                throw ListenFailure(description: "cannot listen on \(shown): \(String(cString: gai_strerror(result)))")
            }
            defer { freeaddrinfo(found) }
            if let listener = Listener.open(loop, address) {
                self.listener = listener
                return
            }
            if errno != EAFNOSUPPORT { break }
        }
        throw ListenFailure(description: "cannot listen on \(shown): \(String(cString: strerror(errno)))")
    }

    deinit {
        evconnlistener_free(listener)
    }

    private static func open(_ loop: EventLoop, _ address: addrinfo) -> OpaquePointer? {
        let flags =
            LEV_OPT_REUSEABLE | LEV_OPT_REUSEABLE_PORT | LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC
        let listener = evconnlistener_new_bind(
            loop.base,
            nil,
            nil,
            flags,
            backlog,
            address.ai_addr,
            Int32(address.ai_addrlen)
        )
        guard let listener else { return nil }
        var on: Int32 = 1
        let descriptor = evconnlistener_get_fd(listener)
        // Accepted sockets inherit it.
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &on, socklen_t(MemoryLayout<Int32>.size))
        return listener
    }

    /// The port in use, which the system has chosen where 0 was asked for.
    var port: Int {
        var address = sockaddr_in6()
        var size = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let descriptor = evconnlistener_get_fd(listener)
        withUnsafeMutableBytes(of: &address) { bytes in
            if let base = bytes.baseAddress {
                getsockname(descriptor, base.assumingMemoryBound(to: sockaddr.self), &size)
            }
        }
        // Both families have the port in the same place.
        return Int(UInt16(bigEndian: address.sin6_port))
    }

    /// Accepts from now on; `onAccept` owns the sockets that it is given.
    func start(_ onAccept: @escaping (Int32) -> Void) {
        self.onAccept = onAccept
        evconnlistener_set_cb(
            listener,
            { _, descriptor, _, _, context in
                guard let context else { return }
                Unmanaged<Listener>.fromOpaque(context).takeUnretainedValue().onAccept?(descriptor)
            },
            Unmanaged.passUnretained(self).toOpaque()
        )
        // Out of descriptors, accepting fails and the socket stays readable: the loop would spin. `resume` is called
        // again before long.
        evconnlistener_set_error_cb(listener) { listener, _ in evconnlistener_disable(listener) }
    }

    /// Has the kernel take no more connections than it has; those are still to be accepted.
    func stopQueueing() {
        listen(evconnlistener_get_fd(listener), 0)
    }

    /// Stops accepting; the kernel keeps new connections waiting.
    func pause() {
        evconnlistener_disable(listener)
    }

    /// Accepts again.
    func resume() {
        evconnlistener_enable(listener)
    }

    /// As many waiting connections as the system allows (net.core.somaxconn).
    private static let backlog: Int32 = 4096
}
