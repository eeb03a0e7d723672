// The Gate's quick way: whole lines of a head at once, when they are all there and as plain as nearly all are. What is not
// is left to the state machine, byte by byte: nothing is refused here, and nothing accepted that it would refuse.

extension Gate {
    /// Reads a request line of HTTP/1.1 that begins at `index`; returns its length, or 0 for what is none.
    mutating func readRequestLine(_ bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
        let methodEnd = index + tokenRun(of: bytes, from: index)
        guard methodEnd < bytes.count, bytes[methodEnd] == 0x20 else { return 0 }
        guard let known = Method(UnsafeRawBufferPointer(rebasing: bytes[index..<methodEnd])) else { return 0 }
        let targetEnd = methodEnd + 1 + visibleRun(of: bytes, from: methodEnd + 1)
        let end = targetEnd + Gate.restOfRequestLine.utf8CodeUnitCount
        guard targetEnd > methodEnd + 1, end <= bytes.count else { return 0 }
        guard equals(UnsafeRawBufferPointer(rebasing: bytes[targetEnd..<end]), Gate.restOfRequestLine) else { return 0 }
        method = known
        isHTTP11 = true
        place = .headLine
        return end - index
    }

    /// Reads the header lines that begin at `index`, up to the first that is not plain; returns their length.
    mutating func readHeaders(_ bytes: UnsafeRawBufferPointer, from index: Int) -> Int {
        var start = index
        while true {
            let colon = start + tokenRun(of: bytes, from: start)
            guard colon > start, colon < bytes.count, bytes[colon] == 0x3A else { break }
            let end = colon + 1 + printableRun(of: bytes, from: colon + 1)
            guard end + 2 <= bytes.count, bytes[end] == 0x0D, bytes[end + 1] == 0x0A else { break }
            let name = UnsafeRawBufferPointer(rebasing: bytes[start..<colon])
            guard readFraming(name, UnsafeRawBufferPointer(rebasing: bytes[(colon + 1)..<end])) else { break }
            start = end + 2
        }
        return start - index
    }

    /// Takes in what a header says of framing; false when the state machine must look at it.
    private mutating func readFraming(_ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer) -> Bool {
        switch name.count {
        case 4 where equalsIgnoringCase(name, "host"):
            if hasHost { return false }
            hasHost = true
            return true
        case 14 where equalsIgnoringCase(name, "content-length"):
            guard contentLength < 0, let length = plainNumber(value) else { return false }
            contentLength = length
            return true
        case 6:
            return !equalsIgnoringCase(name, "expect")
        case 17:
            return !equalsIgnoringCase(name, "transfer-encoding")
        default:
            return true
        }
    }

    /// A number of up to nine digits with at most one space before it.
    private func plainNumber(_ value: UnsafeRawBufferPointer) -> Int? {
        let start = value.first == 0x20 ? 1 : 0
        guard value.count > start, value.count - start <= 9 else { return nil }
        var number = 0
        for index in start..<value.count {
            let digit = value[index] &- 0x30
            guard digit <= 9 else { return nil }
            number = number * 10 + Int(digit)
        }
        return number
    }

    private static var restOfRequestLine: StaticString { " HTTP/1.1\r\n" }
}
