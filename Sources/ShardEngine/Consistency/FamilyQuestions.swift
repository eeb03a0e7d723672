// The pushes of one replica that wait to be decided by a listing, and by what other replicas claim. FamilyLookup makes the listings
// and owns this; it does nothing itself and has no clock, so that a simulation drives the same code.

import Synchronization

/// Questions, and when they are decided; confined to the thread that decides.
final class FamilyQuestions {
    /// Who asks a question; any thread may tell that it is gone.
    final class Asker: Sendable {
        private let gone = Atomic(false)

        var isGone: Bool { gone.load(ordering: .relaxed) }

        func leave() { gone.store(true, ordering: .relaxed) }
    }

    /// A push that waits for a listing.
    struct Question: Sendable {
        var push: CheckedPush
        /// Where it is gone, nothing is decided.
        let asker = Asker()
        /// When it is answered at the latest, by what is known then.
        var deadline: MonotonicTime
        /// Is called on the thread that decides.
        var answer: @Sendable (KnownFamilies.Decision) -> Void
    }

    /// One that is decided by a listing that begins not before a time.
    struct Waiting {
        fileprivate var question: Question
        fileprivate var after: MonotonicTime
        /// Whether a listing before has left it undecided.
        fileprivate var isAgain = false
        /// What other replicas were told of it.
        fileprivate var claimed: [FamilyClaim]?
    }

    private let known: KnownFamilies
    private var waiting: [Waiting] = []
    private var nextListing = MonotonicTime(nanoseconds: 0)
    /// Until when so much has been claimed that no more may be.
    private var nextClaims = MonotonicTime(nanoseconds: 0)

    init(_ known: KnownFamilies) {
        self.known = known
    }

    /// Has a push decided by a listing that begins from now on.
    func ask(_ question: Question, at now: MonotonicTime) {
        // What another replica has answered a moment ago may not be stored yet.
        let after = known.isShared ? now.advanced(by: FamilyQuestions.othersTime) : now
        waiting.append(Waiting(question: question, after: after))
    }

    /// Drops the questions whose askers are gone, and the memory that they take.
    func forget() {
        waiting.removeAll { $0.question.asker.isGone }
    }

    /// When a listing is due; nil where nothing waits.
    var nextTime: MonotonicTime? {
        waiting.map(\.after).min().map { max($0, nextListing) }
    }

    /// The questions for a listing that begins now.
    func due(at now: MonotonicTime) -> [Waiting] {
        guard now >= nextListing else { return [] }
        let due = waiting.filter { now >= $0.after }
        waiting.removeAll { now >= $0.after }
        // Who has waited longest comes first.
        return due.sorted { $0.question.deadline < $1.question.deadline }
    }

    /// The families that such a listing has to tell of.
    static func names(_ due: [Waiting]) -> Set<[UInt8]> {
        var names: Set<[UInt8]> = []
        for family in due.flatMap(\.question.push.families) {
            names.insert(family.name)
            names.formUnion(FamilyKin.names(of: family.name, family.kind))
        }
        return names
    }

    /// Decides what can be decided by a listing; the rest waits for another.
    ///
    /// - Parameter claim: tells other replicas of families.
    func decide(
        _ due: [Waiting],
        by listing: TierListing,
        at now: MonotonicTime,
        claim: ([FamilyClaim]) -> ClaimKeeper.Outcome
    ) {
        // Shards spend a tenth of their time on listings, unless these take long.
        let pause = TimeSpan(nanoseconds: 9 * now.since(listing.begun).nanoseconds)
        nextListing = now.advanced(by: min(pause, FamilyQuestions.longestPause))
        var open = due
        while !open.isEmpty {
            var claims: [FamilyClaim] = []
            var claimants: [(waiting: Waiting, news: [FamilyClaim])] = []
            for waiting in open where !waiting.question.asker.isGone {
                guard case .claim(let news) = decide(waiting, by: listing, at: now) else { continue }
                if now >= nextClaims, claims.count < FamilyQuestions.mostClaims {
                    // Many may push the same family for the first time.
                    claims += news.filter { !claims.contains($0) }
                    claimants.append((waiting, news))
                } else if now < waiting.question.deadline {
                    putOff(waiting, at: now)
                } else {
                    // Better known to this replica alone than lost.
                    var last = waiting
                    last.claimed = news
                    _ = decide(last, by: listing, at: now)
                }
            }
            open = []
            guard !claims.isEmpty else { return }
            if claims.count >= FamilyQuestions.manyClaims {
                nextClaims = now.advanced(by: FamilyQuestions.claimPause)
            }
            let outcome = claim(claims)
            for claimant in claimants {
                var waiting = claimant.waiting
                if outcome != .overtaken { waiting.claimed = claimant.news }
                switch outcome {
                case .overtaken: open.append(waiting)
                case .failed: _ = decide(waiting, by: listing, at: now)
                case .stored:
                    (waiting.after, waiting.isAgain) = (now.advanced(by: noticeTime), true)
                    self.waiting.append(waiting)
                }
            }
        }
    }

    /// So much has been claimed that this one has to wait for its turn.
    private func putOff(_ waiting: Waiting, at now: MonotonicTime) {
        var waiting = waiting
        waiting.after = min(waiting.question.deadline, max(nextClaims, now.advanced(by: FamilyQuestions.claimPause)))
        self.waiting.append(waiting)
    }

    /// Answers a question, or has it wait, unless its families have to be claimed first.
    private func decide(_ waiting: Waiting, by listing: TierListing, at now: MonotonicTime)
        -> KnownFamilies.Decision
    {
        let question = waiting.question
        let decision = known.decide(
            question.push,
            by: listing,
            isAgain: waiting.isAgain,
            isLast: now >= question.deadline,
            claimed: waiting.claimed,
            at: now
        )
        switch decision {
        case .claim: break
        case .wait(let time):
            var again = waiting
            (again.after, again.isAgain) = (min(time, question.deadline), true)
            self.waiting.append(again)
        case .take, .refuse, .lookUp: question.answer(decision)
        }
        return decision
    }

    /// Answers all by what is known: there is nothing to list.
    func decideAll(at now: MonotonicTime) {
        for waiting in waiting {
            let listing = TierListing(begun: now)
            let decision = known.decide(waiting.question.push, by: listing, isLast: true, at: now)
            if case .claim(let claims) = decision {
                waiting.question.answer(
                    known.decide(waiting.question.push, by: listing, isLast: true, claimed: claims, at: now)
                )
            } else {
                waiting.question.answer(decision)
            }
        }
        waiting = []
    }

    private static let longestPause = TimeSpan.seconds(2)
    /// Of a push that another replica has answered: shards store it within this time but for one in thousands.
    private static let othersTime = TimeSpan.milliseconds(20)
    /// Of one write to Consul, and from one with many claims to the next: all replicas have to hear of each before it is dropped from
    /// the log, and whoever pushes names without end is not to keep them from it.
    private static let mostClaims = 4096
    private static let manyClaims = 64
    private static let claimPause = TimeSpan.milliseconds(250)
}
