// Pushes that collide, at replicas that hear of each other late: shards never hold what does not go together.
import Foundation
import Testing

@testable import MovingSimulator
@testable import ShardEngine

@Suite struct CollidingTests {
    private static let count = ProcessInfo.processInfo.environment["COLLIDING"].flatMap { Int($0) } ?? 150
    private static let seed = ProcessInfo.processInfo.environment["SEED"].flatMap { UInt64($0) }

    @Test(arguments: [
        CollidingWorld.Setting(replicas: 1, isShared: false), CollidingWorld.Setting(replicas: 2),
        CollidingWorld.Setting(replicas: 3, shards: 1, pause: 60), CollidingWorld.Setting(replicas: 2, pause: 4000),
    ]) func shardsNeverHoldWhatDoesNotGoTogether(setting: CollidingWorld.Setting) {
        var (taken, refused, refusedInVain, sameSeries) = (0, 0, 0, 0)
        for seed in Self.seed.map({ $0...$0 }) ?? first...(first + UInt64(Self.count)) {
            let world = CollidingWorld(setting, seed: seed)
            world.run()
            taken += world.taken
            refused += world.refused
            refusedInVain += world.refusedInVain
            sameSeries += world.sameSeries
            if let fault = world.faults.first {
                Issue.record("SEED=\(seed) \(setting): \(fault)\n\(world.told.suffix(40).joined(separator: "\n"))")
                return
            }
        }
        print(
            "\(setting): \(taken) taken, \(refused) refused, \(refusedInVain) in vain; one series twice: \(sameSeries)"
        )
        #expect(taken > 0 && refused > 0)
        // Where others push what does not go together all the time, some wait for them in vain.
        #expect(refusedInVain * 20 <= refused, "\(refusedInVain) of \(refused) refused in vain")
    }

    private let first = UInt64.random(in: 0..<1 << 40)
}
