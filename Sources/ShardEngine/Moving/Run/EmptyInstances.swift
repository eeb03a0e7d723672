// Finds groups of the old form in shards and moves them to the plain form. The old form of `{job="b"}` is
// `{job="b", instance=""}`: a Pushgateway that has both fails every push and every scrape. shardd forwards pushes with an
// empty instance to the plain form; groups of the old form are left from before, or come from clients that bypass shardd.
//
// Each process of a shard is searched once, soon after it has started or joined, and when its scrape fails. The server owns this, tells it the
// processes, and hears which shards have yet to be searched. It has a thread and a loop of its own, so that no push waits for
// a listing.
import Logging

/// The search of one shardd for groups with an empty instance; its methods are for the server's loop.
final class EmptyInstances {
    /// What is searched.
    struct Input: Equatable, Sendable {
        /// When the process of each shard was started; without those that are not known.
        var processes: [ShardAddress: String]
        var check: Configuration.Check
    }

    private let session: LoopBound<HTTPSession>
    private let search: LoopBound<Search>
    private let home: LoopMailbox
    private var thread: LoopThread?
    /// Is called with the shards that have yet to be searched, when these change.
    var onPending: (Set<ShardAddress>) -> Void = { _ in }
    private var processes: [ShardAddress: String] = [:]
    private var searched: [ShardAddress: String] = [:]
    private var pending: Set<ShardAddress> = []

    /// - Parameter home: the mailbox of the server's loop.
    init(home: LoopMailbox, logger: Logger) {
        self.home = home
        let loop = EventLoop()
        let session = HTTPSession(loop: loop)
        self.session = LoopBound(session, on: loop)
        var found: @Sendable ([ShardAddress: String]) -> Void = { _ in }
        search = LoopBound(Search(session, logger) { found($0) }, on: loop)
        let this = WeakLoopBound(self, on: home)
        found = { searched in this.post { $0.note(searched) } }
    }

    /// Begins.
    func start() {
        home.assertOnLoop()
        let search = self.search
        thread = LoopThread(session.value.loop) { search.value.run() }
    }

    /// Searches other shards, or in another way, from now on.
    func update(_ input: Input) {
        home.assertOnLoop()
        processes = input.processes
        tell()
        search.post { $0.update(input) }
    }

    /// Searches a shard once more, as its scrape fails: a client may have pushed past shardd.
    func searchAgain(_ shard: ShardAddress) {
        home.assertOnLoop()
        searched[shard] = nil
        tell()
        search.post { $0.searchAgain(shard) }
    }

    private func note(_ searched: [ShardAddress: String]) {
        self.searched = searched
        tell()
    }

    private func tell() {
        let present = Set(processes.filter { searched[$0.key] != $0.value }.keys)
        guard present != pending else { return }
        pending = present
        onPending(present)
    }

    /// Breaks off what is under way and ends the thread.
    func stop() {
        home.assertOnLoop()
        session.post { $0.cancel() }
        thread?.join()
        thread = nil
    }
}

/// What happens on the thread.
private final class Search {
    private let session: HTTPSession
    private let logger: Logger
    private let onSearched: ([ShardAddress: String]) -> Void
    private let paths = GroupPath()
    private var input: EmptyInstances.Input?
    private var hasNewInput = false
    /// The start time of the process that has been searched.
    private var searched: [ShardAddress: String] = [:]

    init(_ session: HTTPSession, _ logger: Logger, onSearched: @escaping ([ShardAddress: String]) -> Void) {
        self.session = session
        self.logger = logger
        self.onSearched = onSearched
    }

    func update(_ new: EmptyInstances.Input) {
        guard new != input else { return }
        input = new
        hasNewInput = true
    }

    func searchAgain(_ shard: ShardAddress) {
        guard searched.removeValue(forKey: shard) != nil else { return }
        hasNewInput = true
    }

    func run() {
        while !session.isOver {
            hasNewInput = false
            let isDone = input.map(searchAll) ?? true
            session.pause(isDone ? .seconds(3600) : Search.retryTime) { hasNewInput }
        }
    }

    /// - Returns: whether all shards have been searched.
    private func searchAll(_ input: EmptyInstances.Input) -> Bool {
        let client = ShardClient(session: session, check: input.check)
        searched = searched.filter { input.processes[$0.key] == $0.value }
        for (shard, process) in input.processes.sorted(by: { $0.key < $1.key }) where searched[shard] == nil {
            guard !session.isOver, moveOldForms(of: shard, client) else { continue }
            searched[shard] = process
            onSearched(searched)
        }
        return searched.count == input.processes.count
    }

    /// - Returns: whether the shard could be listed.
    private func moveOldForms(of shard: ShardAddress, _ client: ShardClient) -> Bool {
        guard case .success(let listing) = client.list(shard, detail: { _ in .times }) else { return false }
        let groups = listing.groups.keys.filter(\.isOldForm)
        guard !groups.isEmpty else { return true }
        // Listed anew with all that they hold, right before they are moved; clients go on pushing to the plain forms.
        let wanted = Set(groups + groups.map(plainForm))
        guard case .success(let latest) = client.list(shard, detail: { wanted.contains($0) ? .content : .times }) else {
            return false
        }
        let native = client.nativeHistograms(of: shard) ?? []
        var moved = 0
        for group in groups {
            guard let copy = latest.groups[group] else { continue }
            let problem =
                obstacle(copy, native)
                ?? move(copy, onto: latest.groups[plainForm(group)], at: shard, client)
            if let problem {
                let metadata: Logger.Metadata = [
                    "shard": "\(shard)", "group": "\(paths.text(of: group))", "reason": "\(problem)",
                ]
                logger.warning("a group with an empty instance cannot be moved to the one without", metadata: metadata)
            } else {
                moved += 1
            }
        }
        if moved > 0 {
            logger.info(
                "groups with an empty instance have been moved to those without",
                metadata: ["shard": "\(shard)", "groups": "\(moved)"]
            )
        }
        return true
    }

    private func obstacle(_ copy: GroupCopy, _ native: Set<String>) -> String? {
        let name = copy.families.keys.first(where: native.contains)
        return copy.obstacle ?? name.map { "the listing does not tell the native buckets of \($0)" }
    }

    /// Deletes the old form first: while a shard has both, it fails the pushes of others.
    ///
    /// - Returns: why it is not moved; nil when it is.
    private func move(
        _ old: GroupCopy,
        onto plain: GroupCopy?,
        at shard: ShardAddress,
        _ client: ShardClient
    ) -> String? {
        let removal = ShardClient.Order(shard: shard, method: .delete, path: paths.path(of: old.labels))
        guard case .done = client.carryOut([removal])[0] else { return "the shard does not delete it" }
        var encoder = FamilyEncoder()
        for (name, family) in old.families where family.pushedAt > plain?.families[name]?.pushedAt ?? .min {
            if let content = family.content { encoder.append(content) }
        }
        guard !encoder.bytes.isEmpty || plain == nil else { return nil }
        let path = paths.path(of: plainForm(old.labels))
        let push = ShardClient.Order(shard: shard, method: .post, path: path, body: encoder.bytes)
        switch client.carryOut([push])[0] {
        case .done:
            return nil
        case .refused(let reason, _), .failed(let reason):
            return "it is deleted, but the other one does not take it: \(reason)"
        }
    }

    private func plainForm(_ group: GroupLabels) -> GroupLabels {
        GroupLabels(group.pairs.filter { $0.name != "instance" })
    }

    /// From one search to the next where a shard could not be listed.
    private static let retryTime = TimeSpan.seconds(2)
}
