// The Gate's reading of targets that are not in origin form, and of hosts, in the target or the Host header.
import Glibc

extension Gate {
    /// Finds the path of a target that does not begin with a slash (RFC 9112, section 3.2).
    mutating func readTarget(_ bytes: UnsafeRawBufferPointer) -> Refusal? {
        let target = UnsafeRawBufferPointer(rebasing: bytes[head.target.start..<head.target.end])
        if equals(target, "*"), head.method == .options {
            head.target.start = head.target.end
            return nil
        }
        let malformed = Refusal(400, "bad request: malformed request target")
        guard let colon = index(of: 0x3A, in: target) else { return malformed }
        let scheme = UnsafeRawBufferPointer(rebasing: target[..<colon])
        guard equalsIgnoringCase(scheme, "http") || equalsIgnoringCase(scheme, "https") else { return malformed }
        guard target.count > colon + 3, target[colon + 1] == 0x2F, target[colon + 2] == 0x2F else { return malformed }
        let start = colon + 3
        let end = target[start...].firstIndex { $0 == 0x2F || $0 == 0x3F } ?? target.endIndex
        let authority = UnsafeRawBufferPointer(rebasing: target[start..<end])
        // An authority without a host is none (RFC 9110, section 4.2.1).
        guard let first = authority.first, first != 0x3A, isHost(authority) else { return malformed }
        head.authority = (head.target.start + start, head.target.start + end)
        head.target.start += end
        return nil
    }

    /// Whether it is a host and perhaps a port, as RFC 9112, section 3.2 has them; none at all is one too.
    func isHost(_ value: UnsafeRawBufferPointer) -> Bool {
        var end = 0
        if value.first == 0x5B {
            guard let closing = index(of: 0x5D, in: value) else { return false }
            guard isAddress(UnsafeRawBufferPointer(rebasing: value[1..<closing])) else { return false }
            end = closing + 1
        } else {
            while end < value.count, value[end] != 0x3A {
                guard isNamePart(value, at: end) else { return false }
                end += 1
            }
        }
        return end == value.count || value[end] == 0x3A && isPort(UnsafeRawBufferPointer(rebasing: value[(end + 1)...]))
    }

    private func isPort(_ digits: UnsafeRawBufferPointer) -> Bool {
        var port = 0
        for byte in digits {
            guard byte >= 0x30, byte <= 0x39 else { return false }
            port = min(port * 10 + Int(byte - 0x30), 65536)
        }
        return port <= 65535
    }

    /// Whether the byte may be part of a name (reg-name in RFC 3986): letters, digits, -._~!$&'()*+,;= and %XX.
    @inline(__always)
    private func isNamePart(_ bytes: UnsafeRawBufferPointer, at index: Int) -> Bool {
        let byte = bytes[index]
        if byte == 0x25 {
            return index + 2 < bytes.count && hexDigitValue(bytes[index + 1]) != nil
                && hexDigitValue(bytes[index + 2]) != nil
        }
        // One bit for each byte below 128.
        let bits: UInt64 = byte < 64 ? 0x2BFF_7FD2_0000_0000 : 0x47FF_FFFE_87FF_FFFE
        return byte < 128 && bits >> UInt64(byte & 63) & 1 == 1
    }

    /// Whether it is what stands in brackets: an IPv6 address, perhaps with a zone (RFC 6874), or one of the future.
    private func isAddress(_ text: UnsafeRawBufferPointer) -> Bool {
        if let first = text.first, first | 0x20 == 0x76 { return isFutureAddress(text) }
        let percent = index(of: 0x25, in: text)
        if let percent {
            let zone = UnsafeRawBufferPointer(rebasing: text[percent...])
            guard zone.count > 3, zone[1] == 0x32, zone[2] == 0x35 else { return false }
            guard zone.indices.allSatisfy({ isNamePart(zone, at: $0) }) else { return false }
        }
        var storage = in6_addr()
        let address = String(decoding: text[..<(percent ?? text.endIndex)], as: UTF8.self)
        return inet_pton(AF_INET6, address, &storage) == 1
    }

    private func isFutureAddress(_ text: UnsafeRawBufferPointer) -> Bool {
        guard let dot = index(of: 0x2E, in: text), dot > 1, dot + 1 < text.count else { return false }
        let isVersion = text[1..<dot].allSatisfy { hexDigitValue($0) != nil }
        return isVersion
            && ((dot + 1)..<text.count).allSatisfy {
                text[$0] == 0x3A || text[$0] != 0x25 && isNamePart(text, at: $0)
            }
    }
}
