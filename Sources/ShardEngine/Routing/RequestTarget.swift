// Splits a request's target into path and query. The push handler and the admin endpoints look at its parts.

/// The parts of a request target in origin form; the bytes belong to the request.
struct RequestTarget {
    /// What comes before the first `?`, as it was sent.
    let path: UnsafeRawBufferPointer
    /// What comes after it; nil without one.
    let query: UnsafeRawBufferPointer?

    init(_ target: UnsafeRawBufferPointer) {
        if let mark = index(of: 0x3F, in: target) {
            path = UnsafeRawBufferPointer(rebasing: target[..<mark])
            query = UnsafeRawBufferPointer(rebasing: target[(mark + 1)...])
        } else {
            path = target
            query = nil
        }
    }

    /// The value of a query parameter, percent-decoded; `+` stands for itself, since it does in a push's path.
    func parameter(_ name: String) -> String? {
        guard let query else { return nil }
        for pair in query.split(separator: 0x26) {
            let parts = pair.split(separator: 0x3D, maxSplits: 1, omittingEmptySubsequences: false)
            guard let key = parts.first, key.elementsEqual(name.utf8) else { continue }
            return parts.count == 2 ? String(decoding: percentDecoded(parts[1]), as: UTF8.self) : ""
        }
        return nil
    }

    private func percentDecoded(_ bytes: Slice<UnsafeRawBufferPointer>) -> [UInt8] {
        var decoded: [UInt8] = []
        var index = bytes.startIndex
        while index < bytes.endIndex {
            if bytes[index] == 0x25, index + 2 < bytes.endIndex, let high = hexDigitValue(bytes[index + 1]),
                let low = hexDigitValue(bytes[index + 2])
            {
                decoded.append(high << 4 | low)
                index += 3
            } else {
                decoded.append(bytes[index])
                index += 1
            }
        }
        return decoded
    }
}
