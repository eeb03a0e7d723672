// The address of a shard as the ring hashes it, logs print it and clients are told it.
// Config, Consul and probes make them through `init(parsing:defaultPort:)`, so one shard has one spelling.
import Glibc

/// A shard's network address, written `host:port`, or `[v6]:port` for an IPv6 literal.
public struct ShardAddress: Hashable, Sendable {
    /// Host name, IPv4 literal, or IPv6 literal without brackets.
    public let host: String
    /// TCP port, 1...65535.
    public let port: Int
    /// `host:port` or `[v6]:port`: what the ring hashes and everything outside sees.
    public let text: String

    /// Makes an address from a bare host (an IPv6 literal may come with or without brackets) and a port.
    public init(host: String, port: Int) {
        var bare = Substring(host)
        if bare.hasPrefix("["), bare.hasSuffix("]") { bare = bare.dropFirst().dropLast() }
        self.host = String(bare)
        self.port = port
        self.text = bare.contains(":") ? "[\(bare)]:\(port)" : "\(bare):\(port)"
    }

    /// Parses `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 literal.
    ///
    /// - Parameter defaultPort: the port when the text names none; without it a missing port is an error.
    /// - Returns: nil when the host is empty or has characters no host may have, or the port is not 1...65535.
    public init?(parsing text: some StringProtocol, defaultPort: Int? = nil) {
        let host: String
        var portText: String?
        if text.hasPrefix("[") {
            guard let close = text.firstIndex(of: "]") else { return nil }
            host = String(text[text.index(after: text.startIndex)..<close])
            let rest = text[text.index(after: close)...]
            if rest.hasPrefix(":") { portText = String(rest.dropFirst()) } else if !rest.isEmpty { return nil }
        } else if text.filter({ $0 == ":" }).count > 1 {
            host = String(text)
        } else if let colon = text.firstIndex(of: ":") {
            host = String(text[..<colon])
            portText = String(text[text.index(after: colon)...])
        } else {
            host = String(text)
        }
        let port: Int
        if let portText {
            guard portText.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let parsed = Int(portText) else {
                return nil
            }
            port = parsed
        } else {
            guard let defaultPort else { return nil }
            port = defaultPort
        }
        guard (1...65535).contains(port), Self.isPlausible(host: host) else { return nil }
        self.init(host: host, port: port)
    }

    /// A name or IPv4 literal by its characters; what has a colon must be an IPv6 literal, with or without a zone.
    private static func isPlausible(host: String) -> Bool {
        if host.contains(":") {
            var address = in6_addr()
            return inet_pton(AF_INET6, String(host.prefix { $0 != "%" }), &address) == 1
                && host.utf8.allSatisfy { isHostByte($0) || $0 == UInt8(ascii: ":") || $0 == UInt8(ascii: "%") }
        }
        return !host.isEmpty && host.utf8.allSatisfy(isHostByte)
    }

    private static func isHostByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: true
        default: false
        }
    }
}

extension ShardAddress: CustomStringConvertible, Comparable {
    /// The same as `text`.
    public var description: String { text }

    /// Ascending byte order of the text: the order in which shards are added to the ring.
    public static func < (left: ShardAddress, right: ShardAddress) -> Bool {
        left.text.utf8.lexicographicallyPrecedes(right.text.utf8)
    }
}
