// A listening TCP socket. The server opens it before it says that it is up, and gives it to its HTTPServer.
import CEvent
import Glibc

/// Why a socket could not be opened.
public struct ListenFailure: Error, CustomStringConvertible {
    /// The address and the system's reason.
    public let description: String
}

/// Where the connections of an HTTP server come from; confined to the server's loop.
protocol ConnectionSource: AnyObject {
    /// Hands over new connections from now on; `onAccept` owns the sockets that it is given.
    func start(_ onAccept: @escaping (Int32) -> Void)
    /// Hands over none until `resume`; the kernel keeps new connections waiting.
    func pause()
    /// Hands over connections again.
    func resume()
    /// Has the kernel take no more connections than it has; those are still to be handed over.
    func stopQueueing()
}

/// A socket that listens; loop-confined.
final class Listener: ConnectionSource {
    private let check: LoopCheck
    private let listener: OpaquePointer
    private var onAccept: ((Int32) -> Void)?

    /// Opens the socket.
    ///
    /// - Parameters:
    ///   - host: nil for all addresses, IPv6 and IPv4.
    ///   - sharesPort: whether others that want this too, in this process or in another one, may listen on the port
    ///     (SO_REUSEPORT); the kernel then spreads connections over all of them.
    init(loop: EventLoop, host: String?, port: Int, sharesPort: Bool) throws(ListenFailure) {
        loop.assertOnLoop()
        check = LoopCheck(loop)
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
            if let listener = Listener.open(loop, address, sharesPort: sharesPort) {
                self.listener = listener
                return
            }
            if errno != EAFNOSUPPORT { break }
        }
        let hint = errno == EADDRINUSE ? ": another process has the port" : ""
        throw ListenFailure(description: "cannot listen on \(shown): \(String(cString: strerror(errno)))\(hint)")
    }

    deinit {
        check.assertOnLoop()
        evconnlistener_free(listener)
    }

    private static func open(_ loop: EventLoop, _ address: addrinfo, sharesPort: Bool) -> OpaquePointer? {
        let flags = LEV_OPT_REUSEABLE | LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC
        let listener = evconnlistener_new_bind(
            loop.base,
            nil,
            nil,
            sharesPort ? flags | LEV_OPT_REUSEABLE_PORT : flags,
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

    func start(_ onAccept: @escaping (Int32) -> Void) {
        check.assertOnLoop()
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

    func stopQueueing() {
        check.assertOnLoop()
        listen(evconnlistener_get_fd(listener), 0)
    }

    func pause() {
        check.assertOnLoop()
        evconnlistener_disable(listener)
    }

    func resume() {
        check.assertOnLoop()
        evconnlistener_enable(listener)
    }

    /// As many waiting connections as the system allows (net.core.somaxconn).
    private static let backlog: Int32 = 4096
}
