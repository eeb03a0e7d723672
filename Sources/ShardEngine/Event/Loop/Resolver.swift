// Names to addresses, without holding up the loop: the system's resolver blocks, so it runs on other threads.
// Pools, probes and the Consul client share their loop's resolver.
import Dispatch

/// Resolves host names for one loop; loop-confined.
final class Resolver {
    private let loop: EventLoop
    private let lookUp: @Sendable (String, Int) -> Resolution
    private let threads = DispatchQueue(label: "shardd.resolver", attributes: .concurrent)
    private var known: [String: (resolution: Resolution, at: MonotonicTime)] = [:]
    private var waiting: [String: [(Resolution) -> Void]] = [:]

    /// - Parameter lookUp: what to ask about a name; it may block.
    init(
        loop: EventLoop,
        lookUp: @escaping @Sendable (String, Int) -> Resolution = { SocketAddress.lookUp($0, $1, flags: 0) }
    ) {
        self.loop = loop
        self.lookUp = lookUp
    }

    /// Calls `done` on the loop with the host's addresses: at once for a literal or a name asked for a moment ago.
    func resolve(_ host: String, port: Int, _ done: @escaping (Resolution) -> Void) {
        loop.assertOnLoop()
        if let literal = SocketAddress(literal: host, port: port) { return done(Resolution(addresses: [literal])) }
        let key = "\(host) \(port)"
        if let entry = known[key], loop.now.since(entry.at) < Resolver.lifetime { return done(entry.resolution) }
        waiting[key, default: []].append(done)
        guard waiting[key]?.count == 1 else { return }
        let this = WeakLoopBound(self, on: loop.mailbox)
        threads.async { [lookUp] in
            let resolution = lookUp(host, port)
            this.post { $0.resolved(key, resolution) }
        }
    }

    private func resolved(_ key: String, _ resolution: Resolution) {
        known = known.filter { loop.now.since($0.value.at) < Resolver.lifetime }
        known[key] = (resolution, loop.now)
        for done in waiting.removeValue(forKey: key) ?? [] { done(resolution) }
    }

    /// How long an answer is kept, so that a burst of connections asks once.
    private static let lifetime = TimeSpan.seconds(2)
}
