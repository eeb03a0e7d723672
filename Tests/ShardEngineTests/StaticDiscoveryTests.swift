// Static discovery on a loop, against many scripted shards: how often each was asked is what a real one does not tell.
import Logging
import Testing

@testable import ShardEngine

@Suite struct StaticDiscoveryTests {
    /// With an interval shorter than a round takes, the last servers must have their turn all the same.
    @Test func probesAFewAtATimeAndEveryServerInTurn() {
        let shards = (0..<100).map { _ in ScriptedShard(health: .answerLater(50)) { _, _ in .answer } }
        defer { shards.forEach { $0.stop() } }
        var configuration = Configuration()
        configuration.servers = shards.map(\.address).sorted()
        configuration.check.interval = .milliseconds(10)
        let loop = EventLoop()
        let resolver = Resolver(loop: loop)
        let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        var memberships: [Membership] = []
        let discovery = Discovery(loop: loop, resolver: resolver, configuration: configuration, logger: logger) {
            memberships.append($0)
        }
        let start = MonotonicTime.now()
        discovery.start()
        var watch: ShardEngine.Timer?
        watch = Timer(loop: loop) {
            let isOver = shards.allSatisfy { $0.healthChecks > 0 } || MonotonicTime.now().since(start) > .seconds(10)
            if isOver { loop.stop() } else { watch?.schedule(after: .milliseconds(5)) }
        }
        watch?.schedule(after: .milliseconds(5))
        loop.run()
        #expect(shards.allSatisfy { $0.healthChecks > 0 })
        // Thirty-two at a time: the last ones come after three rounds of 50 ms.
        #expect(MonotonicTime.now().since(start) >= .milliseconds(150))
        // No shard was left out, or there would have been a change.
        #expect(memberships.isEmpty)
        discovery.stop()
    }
}
