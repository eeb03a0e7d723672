// An IP address and a port as the system's calls want them. The resolver makes them; connections are made to them.
import CEvent
import Glibc

/// A numeric socket address, IPv4 or IPv6.
struct SocketAddress: Sendable {
    private let storage: sockaddr_storage
    private let length: socklen_t

    /// Copies an address out of the system's hands; nil when it is neither IPv4 nor IPv6.
    init?(_ address: UnsafePointer<sockaddr>, length: socklen_t) {
        let family = Int32(address.pointee.sa_family)
        guard family == AF_INET || family == AF_INET6, Int(length) <= MemoryLayout<sockaddr_storage>.size else {
            return nil
        }
        var storage = sockaddr_storage()
        withUnsafeMutableBytes(of: &storage) { bytes in
            bytes.copyMemory(from: UnsafeRawBufferPointer(start: address, count: Int(length)))
        }
        self.storage = storage
        self.length = length
    }

    /// The address of a literal; nil when the host is a name.
    init?(literal host: String, port: Int) {
        guard let address = SocketAddress.lookUp(host, port, flags: AI_NUMERICHOST).addresses.first else { return nil }
        self = address
    }

    /// `AF_INET` or `AF_INET6`.
    var family: Int32 { Int32(storage.ss_family) }

    /// The address without its port, in numbers.
    var host: String {
        withSockaddr { address, length in
            withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { text in
                guard let base = text.baseAddress else { return "" }
                let result = getnameinfo(address, length, base, socklen_t(NI_MAXHOST), nil, 0, NI_NUMERICHOST)
                return result == 0 ? String(cString: base) : ""
            }
        }
    }

    /// Calls `body` with the address as `connect(2)` takes it.
    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    /// Asks the system; blocks unless the flags, those of `getaddrinfo(3)`, forbid names.
    static func lookUp(_ host: String, _ port: Int, flags: Int32) -> Resolution {
        var hints = addrinfo()
        hints.ai_flags = flags
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        var found: UnsafeMutablePointer<addrinfo>?
        let result = getaddrinfo(host, String(port), &hints, &found)
        guard result == 0 else { return Resolution(failure: String(cString: gai_strerror(result))) }
        defer { freeaddrinfo(found) }
        var addresses: [SocketAddress] = []
        var next = found
        while let info = next?.pointee {
            if let address = SocketAddress(info.ai_addr, length: info.ai_addrlen) { addresses.append(address) }
            next = info.ai_next
        }
        return Resolution(addresses: addresses)
    }
}

/// What a name came to.
struct Resolution: Sendable {
    /// In the order in which the system prefers them.
    var addresses: [SocketAddress] = []
    /// The system's reason, when there is no address.
    var failure: String?
}
