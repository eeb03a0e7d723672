// Finds the job and the labels in the path of a push, without decoding or copying anything.
// The assembly of grouping keys owns one; it scans a raw path with it, and where that has escapes a decoded copy.
import Glibc

/// The parts of a push path, as offsets into the bytes that were scanned last.
struct PushPath: ~Copyable {
    /// What a scan came to.
    enum Outcome {
        /// The parts are known; labels and job may still be encoded.
        case scanned
        /// A `%` came: the path must be decoded before anything can be said.
        case escaped
        /// A Pushgateway stores nothing for it.
        case malformed
    }

    private(set) var job = 0..<0
    private var isJobBase64 = false
    /// Whether a label has a name or a value that is not to be taken as it stands.
    private var hasEncodedLabels = false
    /// Whether a label's value is empty as it stands in the path.
    private(set) var hasEmptyValue = false
    /// Whether the labels stand in the path as the grouping key has them: in ascending order of their names, no name
    /// twice, no `job` among them, no value empty.
    private(set) var areLabelsInOrder = true
    var labels = LabelSpans()

    /// Where the last label ends, or without labels the job: what follows is at most a slash.
    private(set) var end = 0

    /// Whether the job or a label needs `decode(in:)`.
    var isEncoded: Bool { isJobBase64 || hasEncodedLabels }

    /// What every push path begins with, once decoded; `/` or `@base64/` follows.
    static let prefix: StaticString = "/metrics/job"
    static let base64Marker: StaticString = "@base64"

    init() {}

    /// Scans a path that is raw, and so has to be clean and may be escaped, or a decoded one, in which anything goes.
    mutating func scan(_ path: UnsafeRawBufferPointer, isRaw: Bool) -> Outcome {
        labels.removeAll()
        hasEncodedLabels = false
        hasEmptyValue = false
        areLabelsInOrder = true
        guard let (jobStart, isBase64) = jobStart(path) else {
            return isRaw && hasEscapes(path) ? .escaped : .malformed
        }
        isJobBase64 = isBase64
        let jobEnd = segmentEnd(path, from: jobStart, isRaw: isRaw)
        job = jobStart..<jobEnd
        end = jobEnd
        if jobEnd < path.count, path[jobEnd] != PathByte.slash {
            return path[jobEnd] == PathByte.percent ? .escaped : .malformed
        }
        if jobEnd == jobStart || isRaw && isDots(path[job]) { return .malformed }
        if jobEnd + 1 >= path.count { return .scanned }
        return scanLabels(path, from: jobEnd + 1, isRaw: isRaw)
    }

    /// Undoes base64 and escapes of names within the bytes that were scanned, which are the caller's to change.
    ///
    /// - Returns: false where a Pushgateway would answer 400.
    mutating func decode(in bytes: UnsafeMutableRawBufferPointer) -> Bool {
        let decoder = LabelDecoder(bytes: bytes)
        if isJobBase64 {
            guard let decoded = decoder.decodeBase64(job), !decoded.isEmpty else { return false }
            job = decoded
        }
        guard hasEncodedLabels else { return true }
        for index in 0..<labels.count {
            guard let decoded = decoder.decode(labels[index]) else { return false }
            labels[index] = decoded
        }
        return true
    }

    /// Scans names and values from the first byte of the first name on; there must be as many of each.
    private mutating func scanLabels(_ path: UnsafeRawBufferPointer, from start: Int, isRaw: Bool) -> Outcome {
        var offset = start
        var previous = 0..<0
        while true {
            let nameStart = offset
            while offset < path.count, PathByte.isNameByte(pathByteClass(path[offset])) { offset &+= 1 }
            var isPlain = true
            if offset < path.count, path[offset] != PathByte.slash {
                isPlain = false
                offset = segmentEnd(path, from: offset, isRaw: isRaw)
            }
            guard offset < path.count else { return .malformed }
            guard path[offset] == PathByte.slash else {
                return path[offset] == PathByte.percent ? .escaped : .malformed
            }
            let name = nameStart..<offset
            guard isTakenName(path, name, isRaw: isRaw) else { return .malformed }

            let valueStart = offset &+ 1
            offset = segmentEnd(path, from: valueStart, isRaw: isRaw)
            let isLast = offset == path.count
            if !isLast, path[offset] != PathByte.slash {
                return path[offset] == PathByte.percent ? .escaped : .malformed
            }
            let value = valueStart..<offset
            if isRaw, value.isEmpty && !isLast || isDots(path[value]) { return .malformed }

            labels.append(LabelSpan(name: name, value: value))
            if !isPlain || isEscapedName(path, name) { hasEncodedLabels = true }
            if value.isEmpty {
                hasEmptyValue = true
                areLabelsInOrder = false
            } else if PushPath.isJob(path, name) || !isAfter(path, name, previous) {
                areLabelsInOrder = false
            }
            previous = name
            if isLast { break }
            offset &+= 1
        }
        end = path.count
        return .scanned
    }

    /// Where the job begins, and whether it is base64; nil where the path is no push's, or is escaped before that.
    private func jobStart(_ path: UnsafeRawBufferPointer) -> (Int, isBase64: Bool)? {
        let prefixLength = PushPath.prefix.utf8CodeUnitCount
        guard path.count > prefixLength, begins(path, at: 0, with: PushPath.prefix) else { return nil }
        if path[prefixLength] == PathByte.slash { return (prefixLength + 1, false) }
        let markerEnd = prefixLength + PushPath.base64Marker.utf8CodeUnitCount
        guard path.count > markerEnd, begins(path, at: prefixLength, with: PushPath.base64Marker),
            path[markerEnd] == PathByte.slash
        else { return nil }
        return (markerEnd + 1, true)
    }

    /// Where the next slash is, or of a raw path also the next byte that is escaped or not allowed, or the end.
    @inline(__always)
    private func segmentEnd(_ path: UnsafeRawBufferPointer, from start: Int, isRaw: Bool) -> Int {
        var offset = start
        while offset < path.count {
            if PathByte.mayEndSegment(pathByteClass(path[offset])), isRaw || path[offset] == PathByte.slash { break }
            offset &+= 1
        }
        return offset
    }

    /// Refuses what every Pushgateway refuses as a name, whatever decoding makes of it.
    @inline(__always)
    private func isTakenName(_ path: UnsafeRawBufferPointer, _ name: Range<Int>, isRaw: Bool) -> Bool {
        guard !name.isEmpty else { return false }
        if path[name.lowerBound] == UInt8(ascii: "_") {
            return name.count < 2 || path[name.lowerBound + 1] != UInt8(ascii: "_")
        }
        return !(isRaw && isDots(path[name]))
    }

    @inline(__always)
    private func isEscapedName(_ path: UnsafeRawBufferPointer, _ name: Range<Int>) -> Bool {
        path[name.lowerBound] == UInt8(ascii: "U") && name.count >= 3 && path[name.lowerBound + 1] == UInt8(ascii: "_")
    }

    @inline(__always)
    static func isJob(_ path: UnsafeRawBufferPointer, _ name: Range<Int>) -> Bool {
        name.count == 3 && path[name.lowerBound] == UInt8(ascii: "j") && path[name.lowerBound + 1] == UInt8(ascii: "o")
            && path[name.lowerBound + 2] == UInt8(ascii: "b")
    }

    /// Whether it is `shardd`, the job of the groups that shardd itself keeps in shards.
    @inline(__always)
    static func isShardd(_ path: UnsafeRawBufferPointer, _ job: Range<Int>) -> Bool {
        job.count == 6 && equals(UnsafeRawBufferPointer(rebasing: path[job]), "shardd")
    }

    @inline(__always)
    private func isAfter(_ path: UnsafeRawBufferPointer, _ name: Range<Int>, _ previous: Range<Int>) -> Bool {
        guard !previous.isEmpty else { return true }
        let first = path[name.lowerBound]
        let previousFirst = path[previous.lowerBound]
        return first == previousFirst ? compareBytes(path, previous, name) < 0 : first > previousFirst
    }
}

/// Whether the text stands at an offset that is within the bytes.
@inline(__always)
func begins(_ bytes: UnsafeRawBufferPointer, at offset: Int, with text: StaticString) -> Bool {
    let length = text.utf8CodeUnitCount
    guard bytes.count - offset >= length, let start = bytes.baseAddress else { return false }
    return memcmp(start + offset, text.utf8Start, length) == 0
}
