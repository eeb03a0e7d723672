// From the parts of a push path to the text of its grouping key, with the memory that this takes.
// The grouping-key parser owns the one there is. Bytes move only where they have to: a plain path with its labels in
// order is its own text.
import Glibc

/// Puts grouping keys together, one after another, in buffers that are kept.
struct GroupingKeyAssembly: ~Copyable {
    private var parts = PushPath()
    /// The path without percent-encoding, within which base64 and escapes of names are undone.
    private var decoded = ByteBuffer(capacity: GroupingKeyAssembly.usualLength)
    /// The text, where it is not a run of bytes of the path.
    private var assembled = ByteBuffer(capacity: GroupingKeyAssembly.usualLength)
    /// The bytes in which the parts of the path that was scanned last lie; nil where a Pushgateway would refuse it.
    private var scanned: UnsafeRawBufferPointer?
    /// Whether that path had percent-encoding in it.
    private var wasEscaped = false
    /// Whether its segments, decoded, are such that no Pushgateway redirects it.
    private var isClean = true

    private static let usualLength = 4096
    /// What a buffer may keep of a path that was longer than usual.
    private static let keptLength = 64 << 10

    init() {}

    /// The path as dynamic-sharding hashes it, Go's `URL.Path`; nil where Go would refuse it.
    mutating func decodedPath(_ path: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard hasEscapes(path) else { return path }
        decoded.reset(keeping: GroupingKeyAssembly.keptLength)
        return percentDecode(path, into: &decoded) ? decoded.readable : nil
    }

    /// The text of the group that a Pushgateway files the push under; nil where it would refuse it.
    mutating func groupingKey(_ raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard let (path, isPlain) = scan(raw) else { return nil }
        return isPlain ? plainKey(path) : sortedKey(path)
    }

    /// The grouping labels, name and value, with those whose value is empty; nil where a Pushgateway would refuse the push.
    mutating func labels(_ raw: UnsafeRawBufferPointer) -> [[UInt8]: [UInt8]]? {
        guard let (path, _) = scan(raw) else { return nil }
        var labels: [[UInt8]: [UInt8]] = [:]
        for index in 0..<parts.labels.count {
            labels[Array(path[parts.labels[index].name])] = Array(path[parts.labels[index].value])
        }
        labels[Array("job".utf8)] = Array(path[parts.job])
        return labels
    }

    /// Calls `body` with the name and the value of each grouping label, `job` first, with those whose value is empty.
    ///
    /// - Returns: false where a Pushgateway would refuse the push.
    mutating func forEachLabel(
        _ raw: UnsafeRawBufferPointer,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> Void
    ) -> Bool {
        guard let (path, _) = scan(raw) else { return false }
        parts.labels.sortByName(in: path)
        let job: StaticString = "job"
        body(
            UnsafeRawBufferPointer(start: job.utf8Start, count: job.utf8CodeUnitCount),
            UnsafeRawBufferPointer(rebasing: path[parts.job])
        )
        for index in 0..<parts.labels.count {
            let label = parts.labels[index]
            if PushPath.isJob(path, label.name) { continue }
            // Of a name that is there twice the last value counts.
            if index + 1 < parts.labels.count, compareBytes(path, label.name, parts.labels[index + 1].name) == 0 {
                continue
            }
            body(
                UnsafeRawBufferPointer(rebasing: path[label.name]),
                UnsafeRawBufferPointer(rebasing: path[label.value])
            )
        }
        return true
    }

    /// The names and values of the group's labels, each behind its length and in the order of the names, so that no two groups
    /// have the same; nil where a Pushgateway would refuse the push. An empty instance, which shardd leaves out, is none.
    mutating func exactKey(_ raw: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard let (path, _) = scan(raw) else { return nil }
        parts.labels.sortByName(in: path)
        assembled.reset(keeping: GroupingKeyAssembly.keptLength)
        appendCounted(path, parts.job)
        for index in 0..<parts.labels.count {
            let label = parts.labels[index]
            if PushPath.isJob(path, label.name) { continue }
            if index + 1 < parts.labels.count, compareBytes(path, label.name, parts.labels[index + 1].name) == 0 {
                continue
            }
            let name = UnsafeRawBufferPointer(rebasing: path[label.name])
            if label.value.isEmpty, equals(name, "instance") { continue }
            appendCounted(path, label.name)
            appendCounted(path, label.value)
        }
        return assembled.readable
    }

    private mutating func appendCounted(_ path: UnsafeRawBufferPointer, _ run: Range<Int>) {
        withUnsafeBytes(of: UInt32(run.count).littleEndian) { assembled.append($0) }
        assembled.append(UnsafeRawBufferPointer(rebasing: path[run]))
    }

    /// Finds the parts, decoded.
    ///
    /// - Returns: the bytes in which they lie, and whether they were not encoded; nil where a Pushgateway would refuse it.
    @inline(__always)
    private mutating func scan(_ raw: UnsafeRawBufferPointer) -> (path: UnsafeRawBufferPointer, isPlain: Bool)? {
        wasEscaped = false
        isClean = true
        let found = findParts(raw)
        scanned = found?.path
        return found
    }

    @inline(__always)
    private mutating func findParts(_ raw: UnsafeRawBufferPointer) -> (path: UnsafeRawBufferPointer, isPlain: Bool)? {
        switch parts.scan(raw, isRaw: true) {
        case .malformed: return nil
        case .scanned:
            guard parts.isEncoded else { return (raw, true) }
            decoded.reset(keeping: GroupingKeyAssembly.keptLength)
            decoded.append(raw)
        case .escaped:
            wasEscaped = true
            decoded.reset(keeping: GroupingKeyAssembly.keptLength)
            guard percentDecode(raw, into: &decoded) else { return nil }
            isClean = hasCleanSegments(decoded.readable)
            guard isTaken(raw: raw, decoded: decoded.readable),
                parts.scan(decoded.readable, isRaw: false) == .scanned
            else { return nil }
            guard parts.isEncoded else { return (decoded.readable, true) }
        }
        // The buffer is this assembly's own, and nothing else looks at it meanwhile.
        let bytes = UnsafeMutableRawBufferPointer(mutating: decoded.readable)
        return parts.decode(in: bytes) ? (decoded.readable, false) : nil
    }

    /// The text from parts that need no decoding any more: the path itself where the labels are in order.
    private mutating func plainKey(_ path: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        guard parts.areLabelsInOrder else { return sortedKey(path) }
        return UnsafeRawBufferPointer(rebasing: path[..<parts.end])
    }

    /// The text put together from the decoded parts: names in order, of each the last, none empty, `job` only in front.
    private mutating func sortedKey(_ path: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
        parts.labels.sortByName(in: path)
        assembled.reset(keeping: GroupingKeyAssembly.keptLength)
        // No part is longer than it was in the path; only the marker of a base64 job goes.
        var writer = RunWriter(source: path, target: assembled.reserve(path.count))
        writer.append(PushPath.prefix)
        writer.append(parts.job)
        for index in 0..<parts.labels.count {
            let label = parts.labels[index]
            if label.value.isEmpty || PushPath.isJob(path, label.name) { continue }
            if index + 1 < parts.labels.count, compareBytes(path, label.name, parts.labels[index + 1].name) == 0 {
                continue
            }
            if label.name.upperBound + 1 == label.value.lowerBound {
                writer.append(label.name.lowerBound..<label.value.upperBound)
            } else {
                writer.append(label.name)
                writer.append(label.value)
            }
        }
        assembled.commit(writer.length)
        return assembled.readable
    }
}

// MARK: - What a guard has to know

extension GroupingKeyAssembly {
    /// Whether the path that was scanned last may have something in it that `finding` tells; false for plain paths.
    @inline(__always)
    var isNotable: Bool {
        guard let scanned else { return true }
        return wasEscaped || parts.isEncoded || parts.hasEmptyValue || PushPath.isShardd(scanned, parts.job)
            || hasBytesBeyondASCII(scanned)
    }

    /// What a guard has to know of the path that was scanned last, which is this one; the first that holds.
    mutating func finding(_ raw: UnsafeRawBufferPointer) -> PathFinding {
        guard let path = scanned else { return findingOfRefused(raw) }
        if !isClean { return .unclean }
        if PushPath.isShardd(path, parts.job) { return .jobOfShardd }
        if !isUTF8(UnsafeRawBufferPointer(rebasing: path[parts.job])) { return .notUTF8(label: Array("job".utf8)) }
        // Sorting keeps labels of one name in the order of the path: of each name the last one counts.
        parts.labels.sortByName(in: path)
        // A Pushgateway that does not know UTF-8 names takes `U__instance` for another label than `instance`.
        var isLastInstanceEmpty = false
        var isPlainInstanceEmpty = false
        for index in 0..<parts.labels.count {
            let label = parts.labels[index]
            if equals(UnsafeRawBufferPointer(rebasing: path[label.name]), "instance") {
                isLastInstanceEmpty = label.value.isEmpty
                let isPlain = path[label.name.lowerBound - 1] == PathByte.slash
                if isPlain { isPlainInstanceEmpty = label.value.isEmpty }
            }
            let isLast =
                index + 1 == parts.labels.count || compareBytes(path, label.name, parts.labels[index + 1].name) != 0
            if isLast, !PushPath.isJob(path, label.name),
                !isUTF8(UnsafeRawBufferPointer(rebasing: path[label.value]))
            {
                return .notUTF8(label: Array(path[label.name]))
            }
        }
        return isLastInstanceEmpty || isPlainInstanceEmpty ? .emptyInstance : .nothing
    }

    /// What is wrong with a path that a Pushgateway would not store anything for, if it is more than the shard's own 400.
    private mutating func findingOfRefused(_ raw: UnsafeRawBufferPointer) -> PathFinding {
        decoded.reset(keeping: GroupingKeyAssembly.keptLength)
        guard percentDecode(raw, into: &decoded) else { return .nothing }
        let path = decoded.readable
        guard hasCleanSegments(path) else { return .unclean }
        let base64 = "/metrics/job@base64/" as StaticString
        guard begins(path, at: 0, with: base64) else {
            return equals(path, "/metrics/job/") ? .noJob : .nothing
        }
        let start = base64.utf8CodeUnitCount
        let end = index(of: PathByte.slash, in: path, from: start) ?? path.count
        let decoder = LabelDecoder(bytes: UnsafeMutableRawBufferPointer(mutating: path))
        return decoder.decodeBase64(start..<end) == nil ? .malformedJob : .nothing
    }
}

/// What a guard has to know of a push's path beside its grouping key.
enum PathFinding: Equatable {
    case nothing
    /// A Pushgateway answers it with a redirect: it has an empty segment that is not the last, or `.` or `..`.
    case unclean
    /// A Pushgateway answers it with a redirect, too: it names no job.
    case noJob
    /// Its job is no base64, though it is said to be.
    case malformedJob
    /// Its job is the one of shardd's own groups.
    case jobOfShardd
    /// A value of its key is not UTF-8: the label's.
    case notUTF8(label: [UInt8])
    /// Its key has an `instance` that is empty.
    case emptyInstance
}

/// Writes runs of one buffer to another that has room for them.
private struct RunWriter {
    let source: UnsafeRawBufferPointer
    let target: UnsafeMutableRawPointer
    private(set) var length = 0

    init(source: UnsafeRawBufferPointer, target: UnsafeMutableRawPointer) {
        self.source = source
        self.target = target
    }

    mutating func append(_ text: StaticString) {
        memcpy(target + length, text.utf8Start, text.utf8CodeUnitCount)
        length += text.utf8CodeUnitCount
    }

    /// A slash and a run of the source's bytes.
    @inline(__always)
    mutating func append(_ run: Range<Int>) {
        target.storeBytes(of: PathByte.slash, toByteOffset: length, as: UInt8.self)
        length &+= 1
        guard let start = source.baseAddress else { return }
        memcpy(target + length, start + run.lowerBound, run.count)
        length &+= run.count
    }
}
