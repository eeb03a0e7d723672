// Which format a Pushgateway reads a body in, by its Content-Type. The guard asks for every push.
//
// Pushgateway takes a body for protobuf if Go's `mime.ParseMediaType` finds the right media type and the parameters
// `proto` and `encoding` with the right values, and for text otherwise.

/// The format of a push's body.
enum BodyFormat: Equatable {
    case text
    case protobuf
    /// Some versions of Pushgateway read it as protobuf and others as text, or this reader cannot tell.
    case either

    @inline(__always)
    init(contentType: UnsafeRawBufferPointer?) {
        guard let contentType, BodyFormat.mayBeProtobuf(contentType) else {
            self = .text
            return
        }
        self = BodyFormat.read(contentType)
    }

    private static let mediaType: StaticString = "application/vnd.google.protobuf"

    /// Few other types are as long, and fewer have a `p` there.
    @inline(__always)
    private static func mayBeProtobuf(_ type: UnsafeRawBufferPointer) -> Bool {
        type.count >= mediaType.utf8CodeUnitCount && asciiLowercase(type[0]) != UInt8(ascii: "t")
    }

    private static func read(_ contentType: UnsafeRawBufferPointer) -> BodyFormat {
        var rest = contentType[...]
        let type = trimmed(rest.prefix { $0 != UInt8(ascii: ";") })
        guard equalsIgnoringCase(UnsafeRawBufferPointer(rebasing: type), mediaType) else {
            // Go trims more than ASCII's blanks, and has more small letters.
            return contentType.contains { $0 >= 0x80 } ? .either : .text
        }
        rest = rest.drop { $0 != UInt8(ascii: ";") }
        var hasProto: Bool?
        var hasEncoding: Bool?
        var otherName: UnsafeRawBufferPointer?
        while let first = rest.first {
            guard first == UInt8(ascii: ";") else { return .either }
            rest = trimmed(rest.dropFirst())
            if rest.isEmpty { break }
            guard let (name, value) = parameter(&rest) else { return .either }
            if equalsIgnoringCase(name, "proto"), hasProto == nil {
                hasProto = equals(value, "io.prometheus.client.MetricFamily")
            } else if equalsIgnoringCase(name, "encoding"), hasEncoding == nil {
                hasEncoding = equals(value, "delimited")
            } else if otherName == nil, !equalsIgnoringCase(name, "proto"), !equalsIgnoringCase(name, "encoding") {
                // One of any other name, such as `escaping`; what more there are may be there twice.
                otherName = name
            } else {
                return .either
            }
        }
        return hasProto == true && hasEncoding == true ? .protobuf : .text
    }

    /// Takes one parameter, plain or in quotes; nil for anything out of the ordinary.
    private static func parameter(
        _ rest: inout Slice<UnsafeRawBufferPointer>
    ) -> (name: UnsafeRawBufferPointer, value: UnsafeRawBufferPointer)? {
        let name = rest.prefix { isTokenByte($0) && $0 != UInt8(ascii: "*") }
        rest = trimmed(rest.dropFirst(name.count))
        guard !name.isEmpty, rest.first == UInt8(ascii: "=") else { return nil }
        rest = trimmed(rest.dropFirst())
        let value: Slice<UnsafeRawBufferPointer>
        if rest.first == UInt8(ascii: "\"") {
            value = rest.dropFirst().prefix { $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\") }
            rest = rest.dropFirst(value.count + 1)
            guard rest.first == UInt8(ascii: "\"") else { return nil }
            rest = rest.dropFirst()
        } else {
            value = rest.prefix { isTokenByte($0) }
            rest = rest.dropFirst(value.count)
        }
        rest = trimmed(rest)
        return value.isEmpty ? nil : (UnsafeRawBufferPointer(rebasing: name), UnsafeRawBufferPointer(rebasing: value))
    }

    private static func trimmed(_ bytes: Slice<UnsafeRawBufferPointer>) -> Slice<UnsafeRawBufferPointer> {
        func isBlank(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x09 }
        var bytes = bytes.drop(while: isBlank)
        while let last = bytes.last, isBlank(last) { bytes = bytes.dropLast() }
        return bytes
    }
}
