// Names to addresses, without holding up the loop: the system's resolver blocks, so it runs on other threads.
// Pools, probes and the Consul client share their loop's resolver.
import Dispatch

/// Resolves host names for one loop.
final class Resolver {
    private let mailbox: LoopMailbox
    private let loop: EventLoop
    private let threads = DispatchQueue(label: "shardd.resolver", attributes: .concurrent)
    private var known: [String: (resolution: Resolution, at: MonotonicTime)] = [:]
    private var waiting: [String: [(Resolution) -> Void]] = [:]

    init(loop: EventLoop) {
        self.loop = loop
        mailbox = loop.mailbox
    }

    /// Calls `done` on the loop with the host's addresses: at once for a literal or a name asked for a moment ago.
    func resolve(_ host: String, port: Int, _ done: @escaping (Resolution) -> Void) {
        if let literal = SocketAddress(literal: host, port: port) { return done(Resolution(addresses: [literal])) }
        let key = "\(host) \(port)"
        if let entry = known[key], loop.now.since(entry.at) < Resolver.lifetime { return done(entry.resolution) }
        waiting[key, default: []].append(done)
        guard waiting[key]?.count == 1 else { return }
        let this = WeakLoopBound(self)
        threads.async { [mailbox] in
            let resolution = SocketAddress.lookUp(host, port, flags: 0)
            mailbox.post { this.object?.resolved(key, resolution) }
        }
    }

    private func resolved(_ key: String, _ resolution: Resolution) {
        known[key] = (resolution, loop.now)
        for done in waiting.removeValue(forKey: key) ?? [] { done(resolution) }
    }

    /// How long an answer is kept, so that a burst of connections asks once.
    private static let lifetime = TimeSpan.seconds(2)
}
