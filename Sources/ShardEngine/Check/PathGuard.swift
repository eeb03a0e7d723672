// What is done about a push's path: it is forwarded as it is, without its empty instance, or refused. The push handler
// asks with what the grouping-key parser has found; plain paths never come here.
//
// A Pushgateway answers an unclean path with a redirect. Clients follow that by GET, and shardd answers a GET on a push's
// path with 200, so they would report a push that nobody has stored.

/// Judges the paths of pushes.
enum PathGuard {
    /// What is done about a path.
    enum Verdict: Equatable {
        case forward
        /// Forward the push with this path in place of its own, and have the shard delete the group of the old path.
        case withoutInstance([UInt8])
        case refuse(PushRefusal)
    }

    /// - Parameter isGuarding: whether what harms a shard is refused, by `pushes.check`.
    static func judge(
        _ path: UnsafeRawBufferPointer,
        _ finding: PathFinding,
        method: Method,
        isGuarding: Bool
    ) -> Verdict {
        switch finding {
        case .unclean:
            return .refuse(unclean(path))
        case .noJob:
            return .refuse(PushRefusal(reason: .path, line: "the path names no job: use /metrics/job/JOB"))
        case .jobOfShardd:
            let line = "job=\"shardd\": shardd keeps this job for its own groups in the shards"
            return .refuse(PushRefusal(reason: .reserved, line: line))
        case .malformedJob where isGuarding:
            let line = "job: its value in the path is not base64, which makes a Pushgateway up to 1.6 hang"
            return .refuse(PushRefusal(reason: .jobNotBase64, line: line))
        // To delete such a group is the way to heal a shard that has it.
        case .notUTF8(let label) where isGuarding && method != .delete:
            let line =
                "\(printable(label)): its value in the path is not UTF-8, which ends all scrapes of a Pushgateway"
            return .refuse(PushRefusal(reason: .keyNotUTF8, line: line))
        case .emptyInstance where isGuarding:
            return .withoutInstance(withoutInstance(path))
        case .nothing, .malformedJob, .notUTF8, .emptyInstance:
            return .forward
        }
    }

    /// The refusal of a path that a Pushgateway would redirect, which need not begin as a push's does; nil for others.
    static func judgeSegments(_ path: UnsafeRawBufferPointer) -> PushRefusal? {
        var decoded = ByteBuffer(capacity: path.count)
        guard path.first == PathByte.slash, percentDecode(path, into: &decoded) else { return nil }
        return hasCleanSegments(decoded.readable) ? nil : unclean(path)
    }

    private static func unclean(_ path: UnsafeRawBufferPointer) -> PushRefusal {
        let clean = cleaned(path)
        let hint = "a value with slashes or dots can be written in base64, NAME@base64/VALUE"
        return PushRefusal(
            reason: .path,
            line: "the path has an empty segment, \".\" or \"..\": the path to use is \(clean) (\(hint))"
        )
    }

    /// The path that Go's HTTP server redirects to, percent-encoded as Go does it: `path.Clean`, keeping a last slash.
    static func cleaned(_ path: UnsafeRawBufferPointer) -> String {
        var decoded = ByteBuffer(capacity: path.count)
        guard percentDecode(path, into: &decoded) else { return "/" }
        var kept: [Slice<UnsafeRawBufferPointer>] = []
        for segment in decoded.readable.split(separator: PathByte.slash) {
            guard isDots(segment) else {
                kept.append(segment)
                continue
            }
            if segment.count == 2, !kept.isEmpty { kept.removeLast() }
        }
        var text = ""
        for segment in kept {
            text += "/"
            for byte in segment { text += percentEncoded(byte) }
        }
        return text.isEmpty || decoded.readable.last == PathByte.slash ? text + "/" : text
    }

    private static func percentEncoded(_ byte: UInt8) -> String {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"):
            return String(UnicodeScalar(byte))
        default:
            if "-_.~$&+,:;=@".utf8.contains(byte) { return String(UnicodeScalar(byte)) }
            let digits = String(byte, radix: 16, uppercase: true)
            return digits.count == 1 ? "%0\(digits)" : "%\(digits)"
        }
    }

    // MARK: The empty instance

    /// The path without its labels named `instance`, all other bytes as they are.
    static func withoutInstance(_ path: UnsafeRawBufferPointer) -> [UInt8] {
        // Job and labels as runs of the raw path: two segments, `metrics` and `job`, come before them.
        let segments = rawSegments(path)
        guard segments.count > 4 else { return Array(path) }
        let pairs = stride(from: 3, to: segments.count - 1, by: 2).map { (segments[$0], segments[$0 + 1]) }
        let names = pairs.map { instanceSpelling(path, $0.0) }
        let values = pairs.indices.map { names[$0] == .none || !isEmptyValue(path, pairs[$0]) }
        // Where the last one in any spelling is empty, all go; else the plain ones, of which the last must be empty.
        let last = names.lastIndex { $0 != .none }
        let areAllDropped = last.map { !values[$0] } ?? false
        var result = Array(path[..<segments[2].upperBound])
        for (index, pair) in pairs.enumerated() {
            if names[index] == .plain || names[index] == .escaped && areAllDropped { continue }
            result += path[(pair.0.lowerBound - separatorLength(path, before: pair.0))..<pair.1.upperBound]
        }
        return result
    }

    private enum InstanceSpelling {
        case none, plain, escaped
    }

    private static func instanceSpelling(_ path: UnsafeRawBufferPointer, _ name: Range<Int>) -> InstanceSpelling {
        var bytes = decodedBytes(path, name)
        if bytes.suffix(7).elementsEqual("@base64".utf8) { bytes.removeLast(7) }
        if bytes.elementsEqual("instance".utf8) { return .plain }
        let isEscaped = bytes.withUnsafeMutableBytes { bytes in
            let name = LabelDecoder(bytes: bytes).unescapeName(0..<bytes.count)
            return name.map { bytes[$0].elementsEqual("instance".utf8) } ?? false
        }
        return isEscaped ? .escaped : .none
    }

    private static func isEmptyValue(_ path: UnsafeRawBufferPointer, _ pair: (Range<Int>, Range<Int>)) -> Bool {
        var value = decodedBytes(path, pair.1)
        guard decodedBytes(path, pair.0).suffix(7).elementsEqual("@base64".utf8) else { return value.isEmpty }
        return value.withUnsafeMutableBytes { bytes in
            LabelDecoder(bytes: bytes).decodeBase64(0..<bytes.count)?.isEmpty ?? false
        }
    }

    /// The runs between the slashes of a path, also percent-encoded slashes, from the first one on.
    private static func rawSegments(_ path: UnsafeRawBufferPointer) -> [Range<Int>] {
        var segments: [Range<Int>] = []
        var start: Int?
        var offset = 0
        while offset < path.count {
            let before = offset
            guard let byte = decodedByte(path, &offset) else { return [] }
            guard byte == PathByte.slash else { continue }
            if let start { segments.append(start..<before) }
            start = offset
        }
        if let start { segments.append(start..<path.count) }
        return segments
    }

    /// How long the slash is that stands before a segment: it may be percent-encoded.
    private static func separatorLength(_ path: UnsafeRawBufferPointer, before segment: Range<Int>) -> Int {
        path[segment.lowerBound - 1] == PathByte.slash ? 1 : 3
    }

    private static func decodedBytes(_ path: UnsafeRawBufferPointer, _ run: Range<Int>) -> [UInt8] {
        var decoded = ByteBuffer(capacity: run.count)
        _ = percentDecode(UnsafeRawBufferPointer(rebasing: path[run]), into: &decoded)
        return Array(decoded.readable)
    }
}

/// Bytes that somebody else chose, as they stand in a line for people; a long run is cut.
func printable(_ bytes: some Collection<UInt8>) -> String {
    var text = ByteBuffer(capacity: 256)
    Array(bytes.prefix(100)).withUnsafeBytes { EscapedText.field.append($0, to: &text) }
    return String(decoding: text.readable, as: UTF8.self) + (bytes.count > 100 ? "…" : "")
}
