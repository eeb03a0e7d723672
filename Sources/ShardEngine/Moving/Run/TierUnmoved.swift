// What the tier does where nothing is moved: a ring takes the place of another at once, stores go by their addresses, and a shard
// that refuses a push is off the ring until it passes its health check.
import Logging
import MovingCore

extension Tier {
    /// A shard does not take a push: the others get its keys.
    func leaveOut(_ store: StoreID, _ cause: String) {
        guard refused[store] == nil, let known = following?.view.store(store) else { return }
        logger.warning(
            "shard has failed: others take its pushes",
            metadata: ["shard": "\(known.address)", "reason": "\(cause)"]
        )
        refused[store] = (known, cause)
        workers.note(cause: cause, of: store)
        counts.failovers += 1
        replaceRing()
    }

    /// Makes a ring of the healthy shards that take connections; of all, and told to be down, where none does.
    func replaceRing() {
        guard let view = following?.view, !isStopped else { return }
        let healthy = members.sightings(nil)
        refused = refused.filter { id, _ in healthy.contains { $0.id == id } }
        let usable = healthy.filter { refused[$0.id] == nil }
        guard !healthy.isEmpty else { return }
        let all = RingMembers(vnodes: members.vnodes, found: healthy.map { Member(address: $0.address, store: $0.id) })
        let next = Register(resting: healthy, without: Set(refused.keys), vnodes: members.vnodes, epoch: view.epoch + 1)
        if next.ring == view.ring, next.down == view.down,
            wholeRing?.members == (usable.count < healthy.count ? all : nil)
        {
            return
        }
        builder.build(all, nil) { [unowned self] ring, _ in
            wholeRing = usable.count < healthy.count ? (all, ring) : nil
            write(next) { _ in }
        }
    }

    /// Asks those that have been left out whether they are back.
    func probeLeftOut() {
        for (store, known) in refused where healthProbes[store] == nil {
            guard let address = ShardAddress(parsing: known.store.address) else { continue }
            healthProbes[store] = HealthProbe(address, check: check, loop: loop, resolver: resolver) {
                [unowned self] outcome in
                healthProbes[store] = nil
                guard outcome == .healthy, refused.removeValue(forKey: store) != nil else { return }
                logger.info("shard is used again", metadata: ["shard": "\(address)"])
                replaceRing()
            }
        }
    }
}
