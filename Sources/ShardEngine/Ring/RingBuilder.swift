// Makes rings on another thread, because a large one would hold up the pushes for tens of milliseconds.
// The engine owns one for each loop, asks it when the membership changes, and swaps the ring in when it comes back.
import DequeModule
import Dispatch

/// Builds rings off the loop and hands each back on the loop; loop-confined.
final class RingBuilder {
    private let mailbox: LoopMailbox
    private let queue = DispatchQueue(label: "shardd.ring-builder")
    /// Who waits for a ring, in the order of asking, which is the order in which the rings come.
    private var waiting: Deque<(Ring) -> Void> = []

    /// Makes a builder for the loop whose mailbox this is.
    init(mailbox: LoopMailbox) {
        self.mailbox = mailbox
    }

    /// Builds a ring and calls `done` with it on the loop, after those asked for before; every call is answered once,
    /// unless the builder has gone by then.
    func build(shards: [ShardAddress], vnodes: Int, _ done: @escaping (Ring) -> Void) {
        let this = WeakLoopBound(self, on: mailbox)
        waiting.append(done)
        queue.async {
            let ring = Ring(shards: shards, vnodes: vnodes)
            this.post { $0.deliver(ring) }
        }
    }

    private func deliver(_ ring: Ring) {
        let done = waiting.removeFirst()
        done(ring)
    }
}
