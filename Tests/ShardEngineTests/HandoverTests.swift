// The steps by which one ring takes the place of another, driven by hand on a loop of the test's own.
import Glibc
import Logging
import Testing

@testable import ShardEngine

@Suite struct HandoverTests {
    private final class Bench {
        let loop = EventLoop()
        var seen: [RingSet] = []
        private(set) var handover: Handover!
        let hints: Hints

        init(_ shards: [ShardAddress], hold: TimeSpan = .milliseconds(20)) {
            let logger = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            hints = Hints(loop: loop, resolver: Resolver(loop: loop), logger: logger)
            handover = Handover(
                loop: loop,
                ring: Ring(shards: shards, vnodes: 10),
                hold: hold,
                builder: RingBuilder(mailbox: loop.mailbox),
                hints: hints,
                logger: logger
            ) { [unowned self] rings in
                seen.append(rings)
                for shard in suspects where rings.ring.shards.contains(shard) { handover.isPassedOver(shard) }
            }
        }

        /// Shards that the forwarder takes for suspect: it says so with each set of rings.
        var suspects: Set<ShardAddress> = []

        func change(to shards: [ShardAddress], vnodes: Int = 10) {
            handover.change(to: Ring(shards: shards, vnodes: vnodes))
        }

        /// Drives the loop until the condition holds; false after a second.
        func wait(until condition: () -> Bool) -> Bool {
            let deadline = MonotonicTime.now().advanced(by: .seconds(1))
            let tick = Timer(loop: loop) {}
            while !condition() {
                guard MonotonicTime.now() < deadline else { return false }
                tick.schedule(after: .milliseconds(5))
                loop.turn()
            }
            return true
        }

        /// Has a run by the ring in force get so far.
        func observe(
            _ run: Int,
            _ phase: RunState.Phase,
            unreached: [ShardAddress] = [],
            draining: [ShardAddress] = []
        ) {
            var state = RunState(run: run, phase: phase, ring: handover.rings.ring.shards.map(\.text), vnodes: 10)
            let others = seen.flatMap { $0.others.flatMap(\.ring.shards) + $0.ring.shards }
            state.cleared = others.filter { !unreached.contains($0) }.map(\.text)
            state.draining = draining.map(\.text)
            handover.observe(state)
        }

        /// Has these rings be stored, and no others.
        ///
        /// - Parameter index: changes when they are stored again.
        func adopt(_ rings: [[ShardAddress]], inUse: [[ShardAddress]] = [], index: UInt64 = 1) {
            handover.adopt(
                (rings + inUse).map { shards in
                    let ring = StoredRing(Ring(shards: shards, vnodes: 10))
                    let isInUse = inUse.contains(shards)
                    return RingEntry(key: "\(shards)", ring: ring, isInUse: isInUse, modifyIndex: index)
                }
            )
        }

        func isInForce(_ shards: [ShardAddress]) -> Bool { handover.rings.ring.shards == shards }

        var visits: [Visit] { handover.rings.others.map(\.visit) }
    }

    private let a = ShardAddress(host: "10.0.0.1", port: 9091)
    private let b = ShardAddress(host: "10.0.0.2", port: 9091)
    private let c = ShardAddress(host: "10.0.0.3", port: 9091)

    @Test func forgetsNoRingBeforeARunHasSettledIt() {
        let bench = Bench([a])
        let others = (1...40).map { [a, ShardAddress(host: "10.0.1.\($0)", port: 9091)] }
        for shards in others {
            bench.change(to: shards)
            #expect(bench.wait { bench.isInForce(shards) })
        }
        #expect(bench.handover.rings.others.map(\.ring.shards) == [[a]] + others.dropLast())
        for number in 1...40 {
            let shards = [b, ShardAddress(host: "10.0.2.\(number)", port: 9091)]
            bench.change(to: shards)
            #expect(bench.wait { bench.isInForce(shards) })
        }
        // There is an end to it, if none of the runs.
        #expect(bench.handover.rings.others.count == 64)
        bench.observe(4, .copying)
        bench.observe(5, .settled)
        #expect(bench.wait { bench.visits.isEmpty })
    }

    @Test func takesEveryStep() {
        let bench = Bench([a, b])
        bench.change(to: [a, b, c])
        #expect(bench.isInForce([a, b]) && bench.visits == [.removal])
        #expect(bench.wait { bench.isInForce([a, b, c]) })
        #expect(bench.visits == [.copy] && bench.handover.rings.isReconcileDue && !bench.handover.isSettled)
        bench.observe(4, .settled)
        bench.observe(4, .settled)
        #expect(bench.visits == [.copy])
        bench.observe(5, .copying)
        #expect(bench.visits == [.copy])
        bench.observe(5, .copied)
        #expect(bench.visits == [.sweep])
        bench.observe(5, .settled)
        // Another replica may have started meanwhile, and copy by the old ring until it hears of that.
        #expect(bench.visits == [.removal] && bench.handover.isSettled)
        #expect(bench.wait { bench.visits.isEmpty })
    }

    @Test func whatARunCouldNotAskForIsNotSwept() {
        let bench = Bench([a, b])
        bench.change(to: [a, c])
        #expect(bench.wait { bench.isInForce([a, c]) })
        bench.observe(1, .settled)
        bench.observe(2, .copied, unreached: [b])
        #expect(bench.visits == [.sweep, .removal])
        #expect(bench.handover.rings.others.map(\.shards) == [[a], [b]])
    }

    @Test func aRunThatBeganBeforeTheChangeCountsForNothing() {
        let bench = Bench([a, b])
        bench.change(to: [a, b, c])
        #expect(bench.wait { bench.isInForce([a, b, c]) })
        bench.observe(7, .copying)
        bench.observe(7, .copied)
        bench.observe(7, .settled)
        #expect(bench.visits == [.copy])
    }

    @Test func whatIsBeingSweptIsNotCopiedToAgain() {
        let bench = Bench([a])
        bench.change(to: [a, b])
        #expect(bench.wait { bench.isInForce([a, b]) })
        bench.observe(1, .settled)
        bench.observe(2, .copied)
        // Another replica may have seen the run settled by now, and does not visit these shards any more.
        bench.change(to: [a, b, c])
        #expect(bench.wait { bench.isInForce([a, b, c]) })
        #expect(bench.visits == [.sweep, .copy])
    }

    /// While a run's last step removes what is stored, ring by ring, what is left has not been stored again.
    @Test(arguments: [false, true])
    func whatIsStoredStillIsNotCopiedToAgain(isInUse: Bool) {
        let bench = Bench([a, b])
        func adopt(index: UInt64) {
            bench.adopt(isInUse ? [] : [[a, b]], inUse: isInUse ? [[a, b]] : [], index: index)
        }
        adopt(index: 1)
        bench.change(to: [b, c])
        #expect(bench.wait { bench.isInForce([b, c]) })
        bench.observe(1, .settled)
        bench.observe(2, .copied, unreached: [a])
        #expect(bench.visits == [.sweep, .removal])
        adopt(index: 1)
        #expect(!bench.wait { bench.visits != [.sweep, .removal] })
        // A shard is suspect once more, for another replica.
        adopt(index: 2)
        #expect(bench.wait { bench.visits.contains(.copy) })
    }

    @Test func aRunByAnotherRingSettlesNothing() {
        let bench = Bench([a, b])
        bench.change(to: [a, b, c])
        #expect(bench.wait { bench.isInForce([a, b, c]) })
        bench.observe(1, .settled)
        for phase in [RunState.Phase.copying, .copied, .settled] {
            bench.handover.observe(RunState(run: 2, phase: phase, ring: [a.text, b.text], vnodes: 10))
        }
        #expect(bench.visits == [.copy] && !bench.handover.isSettled)
    }

    @Test func oneChangeComesAfterTheOther() {
        let bench = Bench([a])
        bench.change(to: [a, b])
        bench.change(to: [a, b, c])
        bench.change(to: [a, c])
        #expect(bench.wait { bench.isInForce([a, c]) })
        let inForce = bench.seen.map(\.ring.shards)
        #expect(inForce.contains([a, b]) && !inForce.contains([a, b, c]))
        #expect(bench.visits == [.copy, .copy])
    }

    @Test func aShardThatHangsAndHasGoneAgainHoldsUpNoOtherChange() {
        let bench = Bench([a])
        let (descriptor, port) = listenOnLoopback()
        defer { close(descriptor) }
        let hanging = ShardAddress(host: "127.0.0.1", port: port)
        bench.hints.add(hanging, path: Array("/metrics/job/a".utf8), doneBy: a) {}
        bench.change(to: [a, hanging])
        // It is being told what it has missed.
        #expect(!bench.wait { bench.isInForce([a, hanging]) })
        bench.change(to: [a, b])
        #expect(bench.wait { bench.isInForce([a, b]) })
        #expect(!bench.seen.contains { $0.ring.shards.contains(hanging) })
    }

    @Test func withoutConsulAShardIsToldWhatItMissesWhileItIsCopiedFrom() {
        let bench = Bench([a, b])
        bench.change(to: [a])
        #expect(bench.wait { bench.isInForce([a]) })
        #expect(bench.handover.isInUse(b) && !bench.handover.isInUse(c))
        bench.observe(1, .settled)
        bench.observe(2, .settled)
        #expect(bench.handover.isSettled && !bench.handover.isInUse(b))
    }

    @Test func aRingThatComesBackIsNotVisited() {
        let bench = Bench([a, b])
        bench.change(to: [a])
        #expect(bench.wait { bench.isInForce([a]) })
        bench.change(to: [a, b])
        #expect(bench.wait { bench.isInForce([a, b]) })
        #expect(bench.handover.rings.others.map(\.ring.shards) == [[a]])
    }

    @Test func shardsThatAreAwayAreRememberedUntilTheyJoin() {
        let bench = Bench([a, b])
        bench.change(to: [a])
        #expect(bench.wait { bench.isInForce([a]) })
        bench.observe(1, .settled)
        bench.observe(2, .settled, unreached: [b])
        #expect(bench.wait { bench.visits == [.removal] } && bench.handover.rings.others[0].shards == [b])
        #expect(bench.handover.isSettled)
        bench.change(to: [a, b])
        #expect(bench.wait { bench.isInForce([a, b]) })
        #expect(bench.handover.rings.others.map(\.ring.shards) == [[a]])
    }

    @Test func whatReturningShardsHoldByAnOlderRingIsCopiedToAgain() {
        let bench = Bench([a, b])
        bench.change(to: [a])
        #expect(bench.wait { bench.isInForce([a]) })
        bench.observe(1, .settled)
        bench.observe(2, .settled, unreached: [b])
        bench.change(to: [a, b, c])
        #expect(bench.wait { bench.isInForce([a, b, c]) })
        let others = bench.handover.rings.others
        #expect(others.map(\.ring.shards) == [[a, b], [a]] && others.map(\.shards) == [[b], nil])
        #expect(bench.visits == [.copy, .copy])
    }

    /// A run takes what they hold, though they do not come back to the ring.
    @Test func whatADrainedShardHoldsIsCopiedToAgain() {
        let bench = Bench([a, b])
        bench.change(to: [a, c])
        #expect(bench.wait { bench.isInForce([a, c]) })
        bench.observe(1, .settled)
        bench.observe(2, .settled, unreached: [b])
        #expect(bench.wait { bench.visits == [.removal] })
        bench.observe(3, .copying, draining: [b])
        #expect(bench.visits == [.copy] && bench.handover.rings.others.map(\.shards) == [[b]])
        bench.observe(4, .copied, draining: [b])
        #expect(bench.visits == [.sweep])
        bench.observe(4, .settled, draining: [b])
        #expect(bench.wait { bench.visits.isEmpty })
    }

    @Test func aShardThatARunDidNotKnowOfIsNotForgotten() {
        let bench = Bench([a, b])
        bench.change(to: [a])
        #expect(bench.wait { bench.isInForce([a]) })
        bench.observe(1, .settled)
        bench.handover.observe(RunState(run: 2, phase: .settled, ring: [a.text], vnodes: 10))
        #expect(bench.wait { bench.visits == [.removal] } && bench.handover.rings.others[0].shards == [b])
    }

    @Test func standInsOfASuspectAreVisitedUntilARunHasSettledThem() {
        let bench = Bench([a, b, c])
        bench.handover.isPassedOver(b)
        #expect(bench.wait { !bench.visits.isEmpty })
        bench.handover.isPassedOver(b)
        var isBack = false
        bench.handover.answers(b) { isBack = true }
        #expect(isBack && bench.handover.rings.others.map(\.ring.shards) == [[a, c]])
    }

    @Test func aShardThatWasSuspectOffTheRingIsPassedOverByNobodyOnceItIsBack() {
        let bench = Bench([b, c])
        bench.handover.isPassedOver(a)
        bench.change(to: [a, b, c])
        #expect(bench.wait { bench.isInForce([a, b, c]) })
        bench.handover.isPassedOver(b)
        #expect(bench.wait { bench.handover.rings.others.contains { $0.ring.shards == [a, c] } })
    }

    @Test func aShardIsInUseAgainThoughRingsCameWhileItWasTold() {
        let bench = Bench([a, b, c])
        bench.suspects = [b, c]
        bench.handover.isPassedOver(b)
        bench.handover.isPassedOver(c)
        #expect(bench.wait { bench.handover.rings.others.contains { $0.ring.shards == [a] } })
        bench.handover.answers(b) {
            bench.suspects.remove(b)
            bench.handover.isUp(b)
        }
        #expect(bench.wait { bench.handover.rings.others.contains { $0.ring.shards == [a, b] } })
        #expect(bench.handover.isInUse(b) && !bench.handover.isInUse(c))
    }

    @Test func groupsAreCopiedAtOnceToShardsThatStandInForOthers() {
        let bench = Bench([a, b], hold: .seconds(5))
        bench.adopt([[a, b]], inUse: [[a]])
        #expect(bench.wait { bench.visits == [.copy] })
        bench.adopt([[b]], inUse: [[a]])
        #expect(bench.wait { bench.visits == [.copy, .removal] })
        bench.adopt([], inUse: [[a], [b]])
        #expect(bench.wait { bench.visits == [.copy, .copy] })
    }

    @Test func aRingWithOtherPointsIsAnother() {
        let bench = Bench([a, b])
        bench.change(to: [a, b], vnodes: 20)
        #expect(bench.wait { bench.handover.rings.ring.vnodes == 20 })
        #expect(bench.visits == [.copy] && bench.handover.rings.others.map(\.ring.vnodes) == [10])
    }

    @Test func aRingOfAnotherReplicaIsCopiedToWhenAllKnowIt() {
        let bench = Bench([a, b])
        bench.adopt([[a, b], [a]])
        #expect(bench.wait { bench.visits == [.removal] } && !bench.handover.isSettled)
        #expect(bench.handover.rings.others.map(\.ring.shards) == [[a]])
        #expect(bench.wait { bench.visits == [.copy] } && bench.handover.rings.isReconcileDue)
    }

    @Test func ofARingOfAnotherReplicaOnlyItsHoldersMatter() throws {
        let bench = Bench([a, b])
        let returned = OtherRing(ring: Ring(shards: [a, c], vnodes: 10), visit: .copy, shards: [c])
        let stored = StoredRing(returned)
        #expect(StoredRing(shards: [a.text, c.text], vnodes: 10, holders: [c.text]) == stored)
        #expect(StoredRing(returned.ring).covers(stored) && !stored.covers(StoredRing(returned.ring)))
        bench.handover.adopt([RingEntry(key: "of c", ring: stored, isInUse: false, modifyIndex: 1)])
        #expect(bench.wait { bench.visits == [.copy] })
        #expect(bench.handover.rings.others[0].shards == [c])
        // All of it: another replica has had that ring in force.
        bench.adopt([[a, b], [a, c]])
        #expect(bench.wait { bench.visits == [.copy, .removal] })
        #expect(bench.wait { bench.visits == [.copy] })
        #expect(bench.handover.rings.others[0].shards == nil)
    }

    @Test func aRingThatIsSettledBeforeThatIsForgotten() {
        let bench = Bench([a, b], hold: .milliseconds(100))
        bench.adopt([[a, b], [a]])
        #expect(bench.wait { bench.visits == [.removal] })
        bench.adopt([[a, b]])
        bench.change(to: [a, b, c])
        #expect(bench.wait { bench.isInForce([a, b, c]) } && bench.visits == [.copy])
        #expect(bench.handover.rings.others.map(\.ring.shards) == [[a, b]])
    }

    @Test func aRingThatIsAnnouncedHereTooIsNotTakenUpTwice() {
        let bench = Bench([a])
        bench.adopt([[a], [a, b]])
        #expect(bench.wait { bench.visits == [.removal] })
        bench.change(to: [a, b])
        #expect(bench.visits == [.removal])
        #expect(bench.wait { bench.isInForce([a, b]) })
        #expect(bench.handover.rings.others.map(\.ring.shards) == [[a]])
    }

    @Test func withoutMovingGroupsARingIsInForceAtOnce() {
        let bench = Bench([a], hold: .zero)
        bench.change(to: [a, b])
        #expect(bench.isInForce([a, b]) && bench.visits.isEmpty && !bench.handover.rings.isReconcileDue)
    }
}
