// What the groups of all shards hold, as far as Pushgateway's consistency check asks: of each family its kind and which labels
// its series have. All workers share one. It decides the push that cannot clash with anything; for any other, FamilyLookup lists
// the shards, and it decides by that.
//
// Nothing is known of single groups or series. So a family may be known in a kind that no group has any more: that is found out
// when somebody pushes it in another. What other replicas take is known by their claims (ClaimLog); what was pushed past all of
// them is learned when shards are listed again.
import Synchronization

/// A push as the check sees it.
struct CheckedPush: Sendable {
    var families: [PushedFamily]
    /// What tells its group from others.
    var group: Int
    /// Whether the group keeps the families that the push does not have.
    var isPost: Bool
}

/// The families of a tier; any thread may ask.
final class KnownFamilies: Sendable {
    /// What becomes of a push.
    enum Decision {
        case take(TakenPush)
        case refuse(PushRefusal)
        /// It may clash with what a group holds: the shards have to be listed.
        case lookUp
        /// It cannot be decided before then, by a listing that begins later still.
        case wait(until: MonotonicTime)
        /// Other replicas have to hear of this before it is decided by another listing.
        case claim([FamilyClaim])
    }

    private let state = Mutex(FamilyState())
    private let clock: @Sendable () -> MonotonicTime

    /// - Parameter clock: tells when a push has ended.
    init(clock: @escaping @Sendable () -> MonotonicTime = { .now() }) {
        self.clock = clock
    }

    /// Decides by what is known, or sees that this is not enough.
    func decide(_ push: CheckedPush, at now: MonotonicTime) -> Decision {
        if let refusal = refusalByOwn(push) { return .refuse(refusal) }
        let isTaken = state.withLock { state in
            guard state.isComplete, push.families.allSatisfy({ state.cannotClash($0) }) else { return false }
            state.take(push, at: now)
            return true
        }
        return isTaken ? .take(TakenPush(push, self)) : .lookUp
    }

    /// Decides by a listing that began after the push had come.
    ///
    /// - Parameters:
    ///   - isAgain: whether a listing before has left it undecided.
    ///   - isLast: whether there will be no other listing for it.
    ///   - claimed: what other replicas have heard of it.
    func decide(
        _ push: CheckedPush,
        by listing: TierListing,
        isAgain: Bool = false,
        isLast: Bool,
        claimed: [FamilyClaim]? = nil,
        at now: MonotonicTime
    ) -> Decision {
        if let refusal = refusalByOwn(push) { return .refuse(refusal) }
        let found = state.withLock { state in
            let found = state.decide(push, by: listing, isAgain: isAgain, isLast: isLast, claimed: claimed, at: now)
            if case .taken = found { state.take(push, at: now) }
            return found
        }
        switch found {
        case .taken: return .take(TakenPush(push, self))
        case .news(let claims): return .claim(claims)
        case .conflict(let line): return .refuse(PushRefusal(reason: .inconsistent, line: line))
        case .early(let time): return .wait(until: time)
        }
    }

    /// Takes a push at once if all of it is known and has been found to go with a Pushgateway's own families; nil for any other.
    @inline(never)
    func takeAtOnce(_ push: BodyFamilies, at now: MonotonicTime) -> CountedPush? {
        let lent = LentFamilies(families: push)
        guard let number = state.withLock({ $0.takeAtOnce(lent, at: now) }) else { return nil }
        return CountedPush(number, of: self)
    }

    /// The families of Pushgateways themselves, as far as they are known.
    var own: [PushedFamily] { state.withLock { $0.own } }

    private func refusalByOwn(_ push: CheckedPush) -> PushRefusal? {
        state.withLock { state in
            for family in push.families {
                if let refusal = state.refusalByOwn(family) { return refusal }
            }
            return nil
        }
    }

    /// Learns what shards hold.
    ///
    /// - Parameter isWhole: whether the listing is of all that all shards hold.
    func learn(_ listing: TierListing, isWhole: Bool = false) {
        state.withLock { $0.learn(listing, isWhole: isWhole) }
    }

    /// Learns the families of Pushgateways themselves.
    func learn(own families: [PushedFamily]) {
        state.withLock { $0.learn(own: families) }
    }

    /// Whether all shards have been listed that can be.
    var isComplete: Bool {
        get { state.withLock { $0.isComplete } }
        set { state.withLock { $0.isComplete = newValue } }
    }

    /// Whether other replicas are to hear of what this one takes.
    var isShared: Bool {
        get { state.withLock { $0.isShared } }
        set { state.withLock { $0.isShared = newValue } }
    }

    /// Takes in what other replicas take, or may be about to.
    func hear(_ claims: ArraySlice<FamilyClaim>, at now: MonotonicTime) {
        state.withLock { state in
            for claim in claims { state.hear(claim, at: now) }
        }
    }

    /// Has all be looked up until the shards have been listed again: others may have taken what nobody tells of any more.
    func doubtAll() {
        state.withLock { $0.doubtAll() }
    }

    /// Forgets all.
    func clear() {
        state.withLock { $0.clear() }
    }

    fileprivate func ended(_ push: CheckedPush) {
        let now = clock()
        state.withLock { $0.ended(push, at: now) }
    }
}

extension KnownFamilies: PushCounter {
    /// A push that has been taken at once has ended.
    func ended(_ number: Int) {
        let now = clock()
        state.withLock { $0.ended(number, at: now) }
    }
}

/// A push that was taken; it has ended when this is let go of.
final class TakenPush: Sendable {
    private let push: CheckedPush
    private let known: KnownFamilies

    fileprivate init(_ push: CheckedPush, _ known: KnownFamilies) {
        self.push = push
        self.known = known
    }

    deinit {
        known.ended(push)
    }
}
