// What a copy pass gives an owner of one group, and the requests by which it does.

/// A group that is being pushed to its owner.
struct GroupMove {
    var copy: GroupCopy
    var owner: ShardAddress
    /// Where pushes for the group go.
    var path: String
    /// What the owner is to be given.
    var families: [String: FamilyCopy]
    /// Whether the owner is to know that the group's last push has failed.
    var hasFailed: Bool

    /// A push of what the owner is to be given.
    var post: ShardClient.Order { order(.post, families) }

    /// A PUT: the owner is to have these families of the group, and no others.
    func put(_ families: [String: FamilyCopy]) -> ShardClient.Order { order(.put, families) }

    private func order(_ method: Method, _ families: [String: FamilyCopy]) -> ShardClient.Order {
        var encoder = FamilyEncoder()
        for content in families.values.compactMap(\.content) { encoder.append(content) }
        return ShardClient.Order(shard: owner, method: method, path: path, body: encoder.bytes)
    }

    /// A push that a Pushgateway refuses, for its timestamp, and remembers as a failed one.
    var failingPost: ShardClient.Order {
        ShardClient.Order(
            shard: owner,
            method: .post,
            path: path,
            body: Array("shardd_moved_a_group_whose_last_push_had_failed 1 1\n".utf8),
            contentType: "text/plain; version=0.0.4"
        )
    }
}
