// The steps of a slot, each a function from one register to the next, with what must hold before it.
//
//      settled ──announce──▶ announced ──fence──▶ copying ──flip──▶ overlapping ◀─fence, lift─▶ ending ──void──▶ wiping
//         ▲                                          │                   │                                       │
//         ├───────────────── lift ───────────────────┘                   │                                       │
//         ├───────────────── dropBackup ─────────────────────────────────┘                                       │
//         ├───────────────── finish, or lift (what was not wiped is dirt) ───────────────────────────────────────┘
//      unclean ──cleaned──▶ settled            failing over (RegisterChanges): any ──▶ settled or unclean
//      settled, announced or overlapping ──ail──▶ ailing ──heal──▶ healing ──healed──▶ settled       ailing, healing ──lift──▶ settled
//
// Any other transition traps. `Mover` calls these; nothing else changes a step but `RegisterChanges`.

extension Register {
    /// The next register; its epoch is one greater.
    func changed(_ body: (inout Register) -> Void) -> Register {
        var result = self
        result.epoch += 1
        body(&result)
        result.checkAuthority()
        return result
    }

    /// Changes a slot's entry, and dates what has changed.
    mutating func edit(_ slot: Slot, _ body: (inout Entry, inout Register) -> Void) {
        let old = entry(slot)
        var new = old
        body(&new, &self)
        if new == old { return }
        let isOther = new.own != old.own || new.predecessors != old.predecessors
        if isOther || (new.step == .unclean) != (old.step == .unclean) { new.changed = epoch }
        new.rev = epoch
        entries[slot] = new
    }

    /// I4: one authoritative store, which is none of the others; a predecessor appears once.
    func checkAuthority() {
        for (slot, entry) in entries {
            precondition(entry.step.other != entry.own, "I4: \(slot) is handed from \(entry.own) to itself")
            let former = entry.predecessors.map(\.store)
            precondition(!former.contains(entry.own), "I4: \(entry.own) precedes itself in \(slot)")
            precondition(Set(former).count == former.count, "I4: a predecessor twice in \(slot)")
            if let backup = entry.step.backup {
                precondition(!isDown(backup), "I4: \(slot) relies on a backup that is down")
                precondition(!former.contains(backup), "I4: \(slot) has a predecessor for a backup")
            }
        }
    }

    mutating func markDirty(_ store: StoreID) {
        dirty.removeAll { $0.store == store }
        dirty.append(Stray(store: store, since: epoch))
    }

    /// The slots will be handed over to these stores.
    package func announcing(_ targets: [(slot: Slot, to: StoreID)]) -> Register {
        changed { register in
            for (slot, to) in targets {
                register.edit(slot) { entry, register in
                    precondition(entry.step == .settled, "announce \(slot) in \(entry.step)")
                    precondition(
                        !register.isDown(to) && !register.isDown(entry.own),
                        "announce \(slot) for a failed store"
                    )
                    entry.step = .announced(to: to)
                }
            }
        }
    }

    /// Requests on the slots wait from now on.
    package func fencing(_ slots: [Slot]) -> Register {
        changed { register in
            for slot in slots {
                register.edit(slot) { entry, register in
                    switch entry.step {
                    case .announced(let to): entry.step = .copying(to: to)
                    case .overlapping(let backup, let processes): entry.step = .ending(backup: backup, processes)
                    case .settled, .unclean, .copying, .ending, .wiping, .ailing, .healing:
                        preconditionFailure("fence \(slot) in \(entry.step)")
                    }
                }
            }
        }
    }

    /// The targets have exactly what the authoritative stores have, inside the fence: they take their places.
    ///
    /// A predecessor whose slot does not belong to it is the backup instead: its store is on its way out.
    ///
    /// - Parameter starts: the processes, which were the same before the listing and after the last push.
    package func flipping(_ slots: [Slot], starts: [StoreID: StartTime], rings: Rings) -> Register {
        changed { register in
            for slot in slots {
                let target = register.target(slot, rings)
                register.edit(slot) { entry, register in
                    guard case .copying(let to) = entry.step, let ownStart = starts[entry.own], let toStart = starts[to]
                    else { preconditionFailure("flip \(slot) in \(entry.step)") }
                    let former = entry.own
                    if let place = entry.predecessors.firstIndex(where: { $0.store == to }) {
                        precondition(place == entry.predecessors.count - 1, "\(slot): a newer predecessor is absent")
                        entry.predecessors.removeLast()
                        if former == target {
                            entry.step = .overlapping(backup: to, Processes(own: ownStart, backup: toStart))
                            return
                        }
                    }
                    entry.own = to
                    entry.step = .overlapping(backup: former, Processes(own: toStart, backup: ownStart))
                }
            }
        }
    }

    /// The fence is taken away before the work in it was done, by the mover that failed or by the one after it.
    ///
    /// - Parameter unused: the slots of which the mover knows that nothing was pushed inside the fence, so that the target
    ///   holds no part of them.
    func lifting(_ slots: [Slot], unused: Set<Slot>) -> Register {
        changed { register in
            for slot in slots {
                register.edit(slot) { entry, register in
                    switch entry.step {
                    case .copying(let to):
                        // A predecessor stays one: it was given nothing but what counts.
                        let isPredecessor = entry.predecessors.contains { $0.store == to }
                        if !isPredecessor, !unused.contains(slot) { register.markDirty(to) }
                        entry.step = .settled
                    case .ending(let backup, let processes): entry.step = .overlapping(backup: backup, processes)
                    case .wiping(let former):
                        register.markDirty(former)
                        entry.step = .settled
                    // Each rewriting is whole in itself.
                    case .ailing, .healing: entry.step = .settled
                    case .settled, .unclean, .announced, .overlapping:
                        preconditionFailure("lift \(slot) in \(entry.step)")
                    }
                }
            }
        }
    }

    /// The authoritative stores still have everything: what their backups hold is void.
    package func voiding(_ slots: [Slot]) -> Register {
        changed { register in
            for slot in slots {
                register.edit(slot) { entry, _ in
                    guard case .ending(let backup, _) = entry.step else {
                        preconditionFailure("void \(slot) in \(entry.step)")
                    }
                    entry.step = .wiping(backup)
                }
            }
        }
    }

    /// The former backup holds nothing of the slots any more: the overlap has ended.
    package func finishing(_ slots: [Slot]) -> Register {
        changed { register in
            for slot in slots {
                register.edit(slot) { entry, register in
                    guard case .wiping = entry.step else { preconditionFailure("finish \(slot) in \(entry.step)") }
                    entry.step = .settled
                }
            }
        }
    }

    /// The backup refused what the authoritative store took: it is not equal any more.
    package func droppingBackup(_ slot: Slot) -> Register {
        changed { register in
            register.edit(slot) { entry, register in
                guard let backup = entry.step.backup else {
                    preconditionFailure("drop the backup of \(slot) in \(entry.step)")
                }
                register.markDirty(backup)
                entry.step = .settled
            }
        }
    }

    /// The stand-in holds nothing of the slots that a predecessor's absence did not bring: it may serve them.
    func cleaning(_ slots: [Slot]) -> Register { stepping(slots, from: .unclean, to: .settled) }

    /// Groups of the slots will be rewritten where they are. A backup would not be equal afterwards, so it is dropped.
    func ailing(_ slots: [Slot]) -> Register {
        changed { register in
            for slot in slots {
                register.edit(slot) { entry, register in
                    precondition(entry.step.mayHeal, "\(slot) ails in \(entry.step)")
                    if let backup = entry.step.backup { register.markDirty(backup) }
                    entry.step = .ailing
                }
            }
        }
    }

    /// Requests on the slots wait from now on.
    func healing(_ slots: [Slot]) -> Register { stepping(slots, from: .ailing, to: .healing) }

    /// The groups are rewritten.
    func healed(_ slots: [Slot]) -> Register { stepping(slots, from: .healing, to: .settled) }

    private func stepping(_ slots: [Slot], from former: Step, to next: Step) -> Register {
        changed { register in
            for slot in slots {
                register.edit(slot) { entry, _ in
                    precondition(entry.step == former, "\(slot) to \(next) in \(entry.step)")
                    entry.step = next
                }
            }
        }
    }

    /// The store holds nothing of slots in which it has no part, by a listing that began after `since` was followed.
    func wiped(_ stray: Stray) -> Register {
        changed { $0.dirty.removeAll { $0 == stray } }
    }

    /// What the store holds in these slots counts where the authoritative store lacks it: it precedes that one there.
    package func adopted(_ stray: Stray, in slots: [Slot], rings: Rings) -> Register {
        changed { register in
            precondition(register.adopting.contains(stray), "\(stray.store) is not being adopted")
            register.adopting.removeAll { $0 == stray }
            for slot in slots {
                let before = register.entry(slot).changed
                register.edit(slot) { entry, register in
                    precondition(
                        entry.step.mayPrecede && entry.own != stray.store && entry.step.backup != stray.store,
                        "adopt \(slot) in \(entry.step)"
                    )
                    // What stores held that have failed since is newer.
                    let place = entry.predecessors.firstIndex { $0.since > stray.since } ?? entry.predecessors.count
                    entry.predecessors.insert(
                        Predecessor(store: stray.store, since: stray.since, isAdopted: true),
                        at: place
                    )
                }
                // Requests have marked by this number since the store was named: nothing has changed for them.
                register.entries[slot]?.changed = before
            }
            register.findStandIns(rings)
        }
    }
}
