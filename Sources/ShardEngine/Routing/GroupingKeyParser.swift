// What places a push: its grouping key, read from the path of the request.
// Each loop has one, which the push handler asks for every request; the hash then goes to the ring. The admin API and
// `shardd locate` ask one too, so they answer what serving does.

/// Reads grouping keys from paths as Pushgateway does (1.5 through 1.11), and hashes them; confined to one loop.
///
/// The text that is hashed is `/metrics/job/` JOB, then `/` NAME `/` VALUE for each label in bytewise order of the
/// names, all decoded: two paths that a Pushgateway puts in one group have one text, whatever the order and the
/// encoding of their labels. For that, labels with an empty value are left out and names that begin with `U__` are
/// unescaped. What a Pushgateway would refuse is hashed as it is. See Pushgateway's `handler/push.go`.
///
/// It allocates nothing once its buffers have their size; the time it takes is linear in the path, sorting apart.
public final class GroupingKeyParser {
    private let key: HashKey
    private var assembly = GroupingKeyAssembly()

    /// What was hashed last; valid until the next call, and no longer than the path that was given then.
    public private(set) var text = UnsafeRawBufferPointer(start: nil, count: 0)

    /// Makes a parser that hashes what `key` says.
    public init(key: HashKey) {
        self.key = key
    }

    /// Whether the path, decoded, begins with `/metrics/job/` or `/metrics/job@base64/`: whether it is a push's.
    public func isPushPath(_ path: UnsafeRawBufferPointer) -> Bool {
        let length = PushPath.prefix.utf8CodeUnitCount
        if begins(path, at: 0, with: PushPath.prefix), path.count > length, path[length] == PathByte.slash {
            return true
        }
        guard path.first == PathByte.slash else { return false }
        var offset = 0
        for wanted in UnsafeBufferPointer(start: PushPath.prefix.utf8Start, count: length) {
            guard decodedByte(path, &offset) == wanted else { return false }
        }
        let next = decodedByte(path, &offset)
        if next == PathByte.slash { return true }
        let marker = PushPath.base64Marker
        guard next == marker.utf8Start[0] else { return false }
        for index in 1..<marker.utf8CodeUnitCount {
            guard decodedByte(path, &offset) == marker.utf8Start[index] else { return false }
        }
        return decodedByte(path, &offset) == PathByte.slash
    }

    /// The grouping labels of a push, name and value, `job` among them; nil where a Pushgateway would refuse it.
    ///
    /// Unlike in the text that is hashed, labels with an empty value are among them: a Pushgateway has another group for
    /// those.
    func labels(path: UnsafeRawBufferPointer) -> [[UInt8]: [UInt8]]? { assembly.labels(path) }

    /// Calls `body` with the same labels, `job` first; the bytes are valid until the parser is asked again.
    ///
    /// - Returns: false where a Pushgateway would refuse the push.
    @discardableResult
    func forEachLabel(
        path: UnsafeRawBufferPointer,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        assembly.forEachLabel(path, body)
    }

    /// What tells a push's group from others, in numbers: the hash of its grouping key, whatever it is placed by, and a digest
    /// of its labels with those whose value is empty, the instance apart; nil where a Pushgateway would refuse the push.
    ///
    /// However a path is written, the same group has the same numbers.
    func identity(path: UnsafeRawBufferPointer) -> (hash: UInt32, digest: UInt64)? {
        text = UnsafeRawBufferPointer(start: nil, count: 0)
        guard let hash = assembly.groupingKey(path).map(murmur3), let digest = assembly.exactKey(path).map(wideMurmur3)
        else { return nil }
        return (hash, digest)
    }

    /// The key of a push on the ring.
    ///
    /// - Parameter path: the request's target without its query.
    public func hash(path: UnsafeRawBufferPointer) -> UInt32 {
        switch key {
        case .group: text = assembly.groupingKey(path) ?? path
        case .path: text = assembly.decodedPath(path) ?? path
        }
        return murmur3(text)
    }

    /// The key of a push on the ring, and what a guard has to know of its path.
    func place(path: UnsafeRawBufferPointer) -> (hash: UInt32, finding: PathFinding) {
        let groupingKey = assembly.groupingKey(path)
        guard key == .group, !assembly.isNotable else { return examine(path, groupingKey) }
        text = groupingKey ?? path
        return (murmur3(text), .nothing)
    }

    @inline(never)
    private func examine(
        _ path: UnsafeRawBufferPointer,
        _ groupingKey: UnsafeRawBufferPointer?
    ) -> (UInt32, PathFinding) {
        // The key lies in memory that the finding needs as well.
        text = groupingKey ?? path
        let hash = murmur3(text)
        let finding = assembly.isNotable ? assembly.finding(path) : .nothing
        return (key == .group ? hash : self.hash(path: path), finding)
    }
}
