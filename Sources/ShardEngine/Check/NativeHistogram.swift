// The native part of a histogram in a body of messages. Pushgateway 1.11 takes one whose buckets are not all there, and then
// cannot list what it holds any more: its answer to `/api/v1/metrics` ends in a panic. Older ones do not know that part.

/// What a Histogram message says of its native buckets; the numbers are the fields' numbers in metrics.proto.
struct NativeHistogram {
    private struct Side {
        /// How many buckets the spans say there are.
        var spanned: UInt64 = 0
        var deltas: UInt64 = 0
        var counts: UInt64 = 0

        func isWhole(isFloat: Bool) -> Bool { spanned <= (isFloat ? counts : deltas) }
    }

    private var schema: Int64 = 0
    private var isFloat = false
    private var negative = Side()
    private var positive = Side()

    /// Whether a Pushgateway can list it; also true where no decoder can go on, as then none takes it.
    static func canBeListed(_ message: UnsafeRawBufferPointer) -> Bool {
        var histogram = NativeHistogram()
        var wire = WireReader(message)
        while wire.count > 0 {
            guard let (field, type) = wire.tag() else { return true }
            guard histogram.take(field, type, &wire) else { return true }
        }
        let hasSpans = histogram.negative.spanned > 0 || histogram.positive.spanned > 0
        return (!hasSpans || (-4...8).contains(histogram.schema))
            && histogram.negative.isWhole(isFloat: histogram.isFloat)
            && histogram.positive.isWhole(isFloat: histogram.isFloat)
    }

    /// - Returns: false where no decoder can go on.
    private mutating func take(_ field: UInt64, _ type: WireReader.FieldType, _ wire: inout WireReader) -> Bool {
        switch (field, type) {
        case (5, .varint):
            guard let number = wire.varint() else { return false }
            schema = Int64(Int32(truncatingIfNeeded: number >> 1)) ^ -Int64(number & 1)
        case (4, .fixed64), (8, .fixed64):
            guard let bits = wire.take(8) else { return false }
            isFloat = isFloat || Double(bitPattern: bits.loadUnaligned(as: UInt64.self)) > 0
        case (9, .bytes): return NativeHistogram.addSpan(&wire, to: &negative)
        case (12, .bytes): return NativeHistogram.addSpan(&wire, to: &positive)
        case (10, _): return NativeHistogram.addDeltas(type, &wire, to: &negative)
        case (13, _): return NativeHistogram.addDeltas(type, &wire, to: &positive)
        case (11, _): return NativeHistogram.addCounts(type, &wire, to: &negative)
        case (14, _): return NativeHistogram.addCounts(type, &wire, to: &positive)
        default: return wire.skip(type)
        }
        return true
    }

    private static func addSpan(_ wire: inout WireReader, to side: inout Side) -> Bool {
        guard let message = wire.lengthDelimited() else { return false }
        var span = WireReader(message)
        var length: UInt64 = 0
        while span.count > 0 {
            guard let (field, type) = span.tag() else { return false }
            if field == 2, type == .varint {
                guard let number = span.varint() else { return false }
                length = number & 0xFFFF_FFFF
            } else {
                guard span.skip(type) else { return false }
            }
        }
        side.spanned += length
        return true
    }

    private static func addDeltas(_ type: WireReader.FieldType, _ wire: inout WireReader, to side: inout Side) -> Bool {
        guard type == .bytes else {
            if type == .varint { side.deltas += 1 }
            return wire.skip(type)
        }
        guard let packed = wire.lengthDelimited() else { return false }
        // Each number ends with a byte below 128.
        side.deltas += UInt64(packed.count { $0 < 0x80 })
        return true
    }

    private static func addCounts(_ type: WireReader.FieldType, _ wire: inout WireReader, to side: inout Side) -> Bool {
        guard type == .bytes else {
            if type == .fixed64 { side.counts += 1 }
            return wire.skip(type)
        }
        guard let packed = wire.lengthDelimited() else { return false }
        side.counts += UInt64(packed.count / 8)
        return true
    }
}
