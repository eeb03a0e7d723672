// Protocol Buffers' wire format: https://protobuf.dev/programming-guides/encoding/
// The reader of families walks messages with it.

/// The rest of a message.
struct WireReader {
    /// How a field is encoded.
    enum FieldType: UInt8 {
        case varint = 0
        case fixed64 = 1
        case bytes = 2
        case groupStart = 3
        case groupEnd = 4
        case fixed32 = 5
    }

    private var next: UnsafeRawPointer?
    /// How many bytes are left.
    private(set) var count: Int

    init(_ bytes: UnsafeRawBufferPointer) {
        next = bytes.baseAddress
        count = bytes.count
    }

    /// A number; nil where it is cut short or longer than ten bytes.
    @inline(__always)
    mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while count > 0, shift < 70, let next {
            let byte = next.load(as: UInt8.self)
            self.next = next + 1
            count &-= 1
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
            shift &+= 7
        }
        return nil
    }

    /// The number and type of the next field; nil where no decoder can go on.
    @inline(__always)
    mutating func tag() -> (field: UInt64, FieldType)? {
        guard let tag = varint(), tag >> 3 > 0, let type = FieldType(rawValue: UInt8(tag & 7)) else { return nil }
        return (tag >> 3, type)
    }

    /// A length and so many bytes; nil where there are fewer.
    @inline(__always)
    mutating func lengthDelimited() -> UnsafeRawBufferPointer? {
        guard let length = varint() else { return nil }
        return take(length)
    }

    /// So many bytes; nil where there are fewer.
    @inline(__always)
    mutating func take(_ length: UInt64) -> UnsafeRawBufferPointer? {
        guard length <= UInt64(count), let start = next else { return nil }
        advance(Int(length))
        return UnsafeRawBufferPointer(start: start, count: Int(length))
    }

    /// Passes over a field of that type; false where it is cut short.
    mutating func skip(_ type: FieldType) -> Bool {
        switch type {
        case .varint: return varint() != nil
        case .fixed64: return skip(bytes: 8)
        case .fixed32: return skip(bytes: 4)
        case .bytes: return lengthDelimited() != nil
        case .groupStart: return skipGroup()
        case .groupEnd: return false
        }
    }

    private mutating func skipGroup() -> Bool {
        var depth = 1
        while depth > 0 {
            // Pushgateway 1.5 does not look at the numbers of fields here; it takes 0, too.
            guard let tag = varint(), let type = FieldType(rawValue: UInt8(tag & 7)) else { return false }
            switch type {
            case .groupStart: depth += 1
            case .groupEnd: depth -= 1
            default: guard skip(type) else { return false }
            }
        }
        return true
    }

    private mutating func skip(bytes: Int) -> Bool {
        guard count >= bytes else { return false }
        advance(bytes)
        return true
    }

    @inline(__always)
    private mutating func advance(_ size: Int) {
        next = next.map { $0 + size }
        count &-= size
    }
}
