// What one run goes by, and its limits. The run protocol makes them for each run.

/// What a run goes by.
struct RunSettings {
    /// By which groups have their owners; not empty.
    var ring: Ring
    /// Shards that own nothing but may hold something.
    var others: [ShardAddress]
    /// Of those, the ones that are being emptied: nothing is settled without them.
    var draining: [ShardAddress] = []
    /// Groups a second, at most.
    var groupsPerSecond: Int
    /// How shards are asked whether they are there.
    var check: Configuration.Check
    /// Shards of which a part of what they hold is void, since they have yet to be told what they have missed; nil when
    /// that cannot be known.
    var untold: () -> Set<ShardAddress>? = { [] }
    /// Whether a shard may be taken at its word, by when its process was started, as it tells.
    var isTrusted: (ShardAddress, String?) -> Bool = { $1 != nil }
    /// Which versions owners have been given.
    var versions = VersionBook()
    /// When a shard was absent, or is.
    var absences: (ShardAddress) -> [Absence] = { _ in [] }
    /// Writes down what is about to be pushed of a shard's copies, and, given nil, forgets it; tells whether it could.
    var journal: (CopyJournal?, ShardAddress) -> Bool = { _, _ in true }
    /// Whether this is still the one to change anything.
    var mayGoOn: () -> Bool = { true }
    /// Why no copy may be deleted any more, as replicas go by other rings by now; nil when copies may be.
    var objection: () -> String? = { nil }
    /// How soon after it has copied a group another run, of which this one does not know, may delete the copy; nil where
    /// there can be no other run.
    var othersSweepAfter: TimeSpan?

    /// How many of a shard's strays are seen to between two looks: what was read must not be old when it is pushed, and a
    /// look at a large shard takes its time.
    static func batch(of strays: Int) -> Int { min(max(strays / 10, 200), 500) }
    /// Copies that are deleted between two looks at whether their owners are still there.
    static let deletionsAtOnce = 64
    /// For how long a look tells what may be deleted: an owner that hangs can hold up the question whether it is still there
    /// until pushes go elsewhere.
    static let lookLasts = TimeSpan.seconds(1)
    /// Looks at a copy in a row that have not lasted.
    static let lookLimit = 3
    /// Problems that are told of one run.
    static let problemLimit = 20
    /// Groups that can be left where they are; all replicas are told them.
    static let keptLimit = 20_000
}
