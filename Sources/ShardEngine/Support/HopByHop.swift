// Which headers belong to one connection and must not be passed on. Requests and responses are filtered by it.

/// Whether a header is about the connection that it came on (RFC 9110, section 7.6.1), or about the framing, which is
/// made anew.
@inline(__always)
func isHopByHop(_ name: UnsafeRawBufferPointer) -> Bool {
    switch name.count {
    case 2: equalsIgnoringCase(name, "te")
    case 6: equalsIgnoringCase(name, "expect")
    case 7: equalsIgnoringCase(name, "trailer") || equalsIgnoringCase(name, "upgrade")
    case 10: equalsIgnoringCase(name, "connection") || equalsIgnoringCase(name, "keep-alive")
    case 14: equalsIgnoringCase(name, "content-length")
    case 16: equalsIgnoringCase(name, "proxy-connection")
    case 17: equalsIgnoringCase(name, "transfer-encoding")
    case 18: equalsIgnoringCase(name, "proxy-authenticate")
    case 19: equalsIgnoringCase(name, "proxy-authorization")
    default: false
    }
}

/// A header's name, of which case does not count; the bytes belong to the message. For sets of names, so that looking for many
/// among many takes no longer than reading them.
struct HeaderName: Hashable {
    private let bytes: UnsafeRawBufferPointer

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    static func == (left: HeaderName, right: HeaderName) -> Bool {
        guard left.bytes.count == right.bytes.count else { return false }
        for index in left.bytes.indices where asciiLowercase(left.bytes[index]) != asciiLowercase(right.bytes[index]) {
            return false
        }
        return true
    }

    func hash(into hasher: inout Hasher) {
        for byte in bytes { hasher.combine(asciiLowercase(byte)) }
    }
}
