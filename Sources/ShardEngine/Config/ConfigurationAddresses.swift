// The kinds of values that are addresses: where to listen, and where Consul is.
// Shards' addresses are read by the draft, which knows their default port.
import Yams

extension ConfigurationKind<Configuration.ListenAddress> {
    /// `:port`, `host:port` or `[v6]:port`.
    static var listenAddress: Self {
        scalar("an address such as :9292, 127.0.0.1:9292 or \"[::1]:9292\"") { scalar throws(Mistake) in
            let isAnyHost = scalar.string.hasPrefix(":")
            let text = isAnyHost ? "any" + scalar.string : scalar.string
            guard let address = ShardAddress(parsing: text) else { throw Mistake("is not an address with a port") }
            return Configuration.ListenAddress(host: isAnyHost ? nil : address.host, port: address.port)
        }
    }
}

/// Where a Consul agent listens.
struct ConsulEndpoint {
    let isTLS: Bool
    let address: ShardAddress
}

extension ConfigurationKind<ConsulEndpoint> {
    /// `host:port`, `host` for the standard port 8500, or a URL of scheme, host and port.
    static var consulEndpoint: Self {
        scalar("an address such as localhost:8500 or https://consul.example:8501") { scalar throws(Mistake) in
            let text = scalar.string
            guard let scheme = ["http://", "https://"].first(where: text.hasPrefix) else {
                guard let address = ShardAddress(parsing: text, defaultPort: 8500) else {
                    throw Mistake("is not an address")
                }
                return ConsulEndpoint(isTLS: false, address: address)
            }
            let rest = text.dropFirst(scheme.count)
            guard let address = ShardAddress(parsing: rest.hasSuffix("/") ? rest.dropLast() : rest) else {
                throw Mistake("is not a URL of a host and a port")
            }
            return ConsulEndpoint(isTLS: scheme == "https://", address: address)
        }
    }
}
