// Which families of a shard have native histograms, read from its exposition in protocol buffers: Pushgateway 1.5.1 lists
// one that has ordinary buckets, too, as if it had those alone. The format is io.prometheus.client.MetricFamily, delimited:
// https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto

/// What a shard holds that its listing may not tell.
enum NativeHistograms {
    /// What to ask a shard for.
    static let contentType = "application/vnd.google.protobuf"
    static let accept = "\(contentType);proto=io.prometheus.client.MetricFamily;encoding=delimited"

    /// The names of the families that have any; nil when the body is not what it should be.
    static func names(in exposition: UnsafeRawBufferPointer) -> Set<String>? {
        var names: Set<String> = []
        var reader = MessageReader(exposition[...])
        while !reader.isAtEnd {
            guard let family = reader.lengthDelimited(), read(family, &names) else { return nil }
        }
        return names
    }

    /// Returns whether the family is whole.
    private static func read(_ family: Slice<UnsafeRawBufferPointer>, _ names: inout Set<String>) -> Bool {
        var name = ""
        var isNative = false
        let isRead = MessageReader.fields(of: family) { field, value in
            guard let value else { return true }
            if field == 1 { name = String(decoding: value, as: UTF8.self) }
            guard field == 4 else { return true }
            return MessageReader.fields(of: value) { field, value in
                guard field == 7, let value else { return true }
                // From the schema to the buckets' counts.
                return MessageReader.fields(of: value) { field, _ in
                    isNative = isNative || (5...14).contains(field)
                    return true
                }
            }
        }
        if isNative { names.insert(name) }
        return isRead
    }
}

/// Reads protocol buffers, one message at a time: https://protobuf.dev/programming-guides/encoding/
private struct MessageReader {
    private var left: Slice<UnsafeRawBufferPointer>

    init(_ bytes: Slice<UnsafeRawBufferPointer>) {
        left = bytes
    }

    var isAtEnd: Bool { left.isEmpty }

    /// Calls `visit` with each field's number, and its bytes where it has a length of its own.
    ///
    /// - Returns: whether the message is whole, and each `visit` has returned true.
    static func fields(
        of message: Slice<UnsafeRawBufferPointer>,
        _ visit: (UInt64, Slice<UnsafeRawBufferPointer>?) -> Bool
    ) -> Bool {
        var reader = MessageReader(message)
        while !reader.isAtEnd {
            guard let key = reader.varint() else { return false }
            var value: Slice<UnsafeRawBufferPointer>?
            switch key & 7 {
            case 0: guard reader.varint() != nil else { return false }
            case 1: guard reader.take(8) != nil else { return false }
            case 2:
                value = reader.lengthDelimited()
                guard value != nil else { return false }
            case 5: guard reader.take(4) != nil else { return false }
            default: return false
            }
            guard visit(key >> 3, value) else { return false }
        }
        return true
    }

    mutating func lengthDelimited() -> Slice<UnsafeRawBufferPointer>? {
        varint().flatMap { Int(exactly: $0) }.flatMap { take($0) }
    }

    private mutating func take(_ count: Int) -> Slice<UnsafeRawBufferPointer>? {
        guard count <= left.count else { return nil }
        defer { left = left.dropFirst(count) }
        return left.prefix(count)
    }

    private mutating func varint() -> UInt64? {
        var value: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 70, by: 7) {
            guard let byte = left.popFirst() else { return nil }
            value |= UInt64(byte & 0x7F) << shift
            if byte < 0x80 { return value }
        }
        return nil
    }
}
