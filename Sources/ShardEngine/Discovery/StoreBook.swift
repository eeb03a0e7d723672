// Which addresses lead to one store, to several, or to none, worked out from what they answer, round by round. `Stores` asks
// and writes it; the server makes rings of the addresses that it selects.

/// Of the addresses of a membership, those that pushes can be sent to, each store once.
struct StoreSelection: Equatable, Sendable {
    /// Ascending.
    var shards: [ShardAddress] = []
    /// Addresses that lead to the store of another one, which is on the ring in their stead.
    var sameStore: [ShardAddress: ShardAddress] = [:]
    /// Addresses that no push may be sent to, with the reason.
    var unusable: [ShardAddress: String] = [:]
}

/// What is known of the addresses that are asked; confined to whoever asks.
struct StoreBook {
    fileprivate struct Entry {
        var process: String?
        /// The mark of the store that the process has.
        var mark: String?
        /// The process that the mark was read from: the next one has perhaps another store.
        var markedProcess: String?
        /// Of which lines of registers the store has been a member.
        var tiers: Set<String> = []
        /// The start times that the address told before, the latest last.
        var retired: [String] = []
        /// Whether it has told a start time again after another one, as only an address of several processes does.
        var isAlternating = false
        /// Answers in a row that told the present start time.
        var steadyAnswers = 0
        var isShardd = false
        var isAnswering = false
        var obstacle: String?
        /// Answers in a row that did not tell the store.
        var obstructedAnswers = 0
        /// Why the store of the present process cannot be marked.
        var refusal: String?
    }

    /// Who is behind each address.
    private(set) var map = StoreMap()
    private var entries: [ShardAddress: Entry] = [:]
    /// For two addresses of one store, in how many rounds in a row they have told different start times.
    private var partings: [Set<ShardAddress>: Int] = [:]

    /// Whether the address has been asked before.
    func knows(_ shard: ShardAddress) -> Bool { entries[shard] != nil }

    /// Whether something answered when the address was last asked.
    func isAnswering(_ shard: ShardAddress) -> Bool { entries[shard]?.isAnswering == true }

    /// Why the store behind an address cannot be told, though something answers there; nil otherwise.
    func obstacle(of shard: ShardAddress) -> String? { entries[shard]?.obstacle }

    /// Why the store cannot be told, once that has been so for more than one answer, or cannot be marked.
    func lastingObstacle(of shard: ShardAddress) -> String? {
        guard let entry = entries[shard] else { return nil }
        return entry.refusal ?? (entry.obstructedAnswers >= StoreBook.answersToLast ? entry.obstacle : nil)
    }

    /// When the process that last answered at the address was started; nil where none has told.
    func process(of shard: ShardAddress) -> String? { entries[shard]?.process }

    /// Whether the mark of the store behind the address has yet to be read from its present process.
    func isUnread(_ shard: ShardAddress) -> Bool { entries[shard].map { $0.process != $0.markedProcess } ?? true }

    /// Takes in an answer.
    ///
    /// - Parameter fileInterval: how often the process writes its file, as the answer tells.
    mutating func record(_ finding: StoreFinding, of shard: ShardAddress, fileInterval: TimeSpan? = nil) {
        var entry = entries[shard] ?? Entry()
        entry.isShardd = finding == .shardd
        if case .unreachable = finding { entry.isAnswering = false } else { entry.isAnswering = true }
        switch finding {
        case .process(let process):
            (entry.obstacle, entry.obstructedAnswers) = (nil, 0)
            if process != entry.process { entry.refusal = nil }
            entry.take(process)
            var identity = StoreIdentity(process: process, mark: entry.mark, tiers: entry.tiers)
            identity.fileInterval = fileInterval
            identity.isMarkRead = entry.markedProcess == process
            map.identities[shard] = entry.isAlternating ? nil : identity
        case .unreachable:
            // It is still the store that it was, until it answers otherwise.
            break
        case .unidentified(let reason):
            entry.obstacle = reason
            entry.obstructedAnswers += 1
            map.identities[shard] = nil
        case .shardd:
            map.identities[shard] = nil
        }
        entries[shard] = entry
        if !entry.isAnswering { forgetTakenStores() }
    }

    /// Notes the mark of the store behind an address, if it is still that process.
    mutating func note(mark: String, tiers: Set<String> = [], of shard: ShardAddress, process: String) {
        guard entries[shard]?.process == process else { return }
        entries[shard]?.mark = mark
        entries[shard]?.markedProcess = process
        entries[shard]?.tiers = tiers
        entries[shard]?.refusal = nil
        map.identities[shard]?.mark = mark
        map.identities[shard]?.isMarkRead = true
        map.identities[shard]?.tiers = tiers
        forgetTakenStores()
    }

    /// An address that does not answer has its store no more once another process answers that has the store's file.
    private mutating func forgetTakenStores() {
        for (shard, entry) in entries where !entry.isAnswering && entry.mark != nil {
            let isTaken = entries.values.contains { other in
                other.isAnswering && other.mark == entry.mark && other.process != entry.process
                    && other.markedProcess == other.process
            }
            guard isTaken else { continue }
            // If that process answers again, its mark is read again.
            entries[shard]?.mark = nil
            entries[shard]?.markedProcess = nil
            map.identities[shard]?.mark = nil
            map.identities[shard]?.isMarkRead = false
        }
    }

    /// Notes why the store behind an address cannot be marked, if it is still that process.
    mutating func note(refusal: String, of shard: ShardAddress, process: String) {
        if entries[shard]?.process == process { entries[shard]?.refusal = refusal }
    }

    /// Compares what all addresses told in a round.
    ///
    /// Two addresses that told one start time lead to one store, and go on to do so though that is restarted: they part only
    /// when they tell different ones in two rounds in a row, as a restart falls between two questions now and then.
    ///
    /// - Parameter answered: the addresses that told a start time in this round.
    mutating func endRound(_ answered: Set<ShardAddress>) {
        for (pair, count) in partings where pair.isSubset(of: answered) {
            let processes = Set(pair.map { map.identities[$0]?.process })
            partings[pair] = processes.count == 1 && !processes.contains(nil) ? 0 : count + 1
        }
        partings = partings.filter { $0.value < StoreBook.roundsToPart }
        let identified = map.identities.keys.sorted()
        for shards in Dictionary(grouping: identified, by: { map.identities[$0]?.process ?? "" }).values {
            for other in shards.dropFirst() { partings[[shards[0], other]] = 0 }
        }
        join()
    }

    /// Fills in which addresses lead to one store, also by way of a third.
    private mutating func join() {
        map.sameStore = [:]
        for pair in partings.keys {
            let members = pair.reduce(pair) { $0.union(map.sameStore[$1] ?? []) }
            for member in members { map.sameStore[member] = members }
        }
    }

    /// Forgets addresses that are asked no more.
    mutating func keep(_ shards: Set<ShardAddress>) {
        entries = entries.filter { shards.contains($0.key) }
        map.identities = map.identities.filter { shards.contains($0.key) }
        partings = partings.filter { $0.key.isSubset(of: shards) }
        join()
    }

    /// Selects the addresses that a ring is made of: of each store the first one.
    ///
    /// - Parameter addresses: those of a membership, in any order.
    func select(_ addresses: some Sequence<ShardAddress>) -> StoreSelection {
        var selection = StoreSelection()
        var kept: Set<ShardAddress> = []
        for address in addresses.sorted() {
            if entries[address]?.isShardd == true {
                selection.unusable[address] = "it leads to shardd itself, or to another replica"
            } else if entries[address]?.isAlternating == true {
                selection.unusable[address] = "it leads to several Pushgateways, as a load balancer's address does"
            } else if let first = map.sameStore[address]?.intersection(kept).min() {
                selection.sameStore[address] = first
            } else {
                kept.insert(address)
                selection.shards.append(address)
            }
        }
        return selection
    }

    private static let roundsToPart = 2
    /// At first sight an address is asked twice.
    private static let answersToLast = 2
}

extension StoreBook.Entry {
    /// Takes in the start time that the address told.
    fileprivate mutating func take(_ new: String) {
        guard let process, process != new else {
            process = new
            steadyAnswers += 1
            if steadyAnswers >= Self.steadyEnough { (isAlternating, retired) = (false, []) }
            return
        }
        // A process that is started anew has a start time that nobody told before; and where an address was turned to another
        // Pushgateway and back, many answers lie between.
        if retired.contains(new), steadyAnswers < Self.fewAnswers { isAlternating = true }
        retired = retired.filter { $0 != new }.suffix(Self.memory - 1) + [process]
        self.process = new
        steadyAnswers = 1
    }

    /// An address that leads to several processes tells another one within so many answers, as each change is asked after.
    private static let fewAnswers = 4
    /// After so many equal answers in a row an address that led to several processes is taken to lead to one.
    private static let steadyEnough = 10
    /// Processes behind one address that are told apart.
    private static let memory = 32
}
