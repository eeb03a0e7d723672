// The hashes of grouping keys: the one that places points and keys on the ring, and a wider one that tells keys apart.
// Ring construction hashes points with the first, the grouping-key parser hashes keys with both; nothing else does.

/// MurmurHash3, the x86 32-bit variant, with seed 0, as dynamic-sharding uses it.
///
/// Follows Austin Appleby's public-domain MurmurHash3_x86_32: blocks of four bytes, little-endian.
@inline(__always)
func murmur3(_ bytes: UnsafeRawBufferPointer) -> UInt32 {
    var hash: UInt32 = 0
    guard let start = bytes.baseAddress else { return hash }
    let blocksEnd = bytes.count & ~3
    var offset = 0
    while offset < blocksEnd {
        let block = UInt32(littleEndian: start.loadUnaligned(fromByteOffset: offset, as: UInt32.self))
        hash ^= scrambled(block)
        hash = (hash << 13) | (hash >> 19)
        hash = hash &* 5 &+ 0xe654_6b64
        offset &+= 4
    }
    var tail: UInt32 = 0
    var rest = bytes.count & 3
    while rest > 0 {
        rest &-= 1
        tail = (tail << 8) | UInt32(start.load(fromByteOffset: blocksEnd &+ rest, as: UInt8.self))
    }
    hash ^= scrambled(tail)
    hash ^= UInt32(truncatingIfNeeded: bytes.count)
    hash = (hash ^ (hash >> 16)) &* 0x85eb_ca6b
    hash = (hash ^ (hash >> 13)) &* 0xc2b2_ae35
    return hash ^ (hash >> 16)
}

/// One block as it is mixed into the hash; nought stays nought, so that an empty tail mixes in nothing.
@inline(__always)
private func scrambled(_ block: UInt32) -> UInt32 {
    let product = block &* 0xcc9e_2d51
    return ((product << 15) | (product >> 17)) &* 0x1b87_3593
}

/// The first half of MurmurHash3_x64_128, with seed 0: blocks of sixteen bytes, little-endian.
func wideMurmur3(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    var first: UInt64 = 0
    var second: UInt64 = 0
    var offset = 0
    while bytes.count - offset >= 16 {
        first = rotated(first ^ scrambledFirst(word(bytes, offset)), 27) &+ second
        first = first &* 5 &+ 0x52dc_e729
        second = rotated(second ^ scrambledSecond(word(bytes, offset + 8)), 31) &+ first
        second = second &* 5 &+ 0x3849_5ab5
        offset += 16
    }
    second ^= scrambledSecond(word(bytes, offset + 8))
    first ^= scrambledFirst(word(bytes, offset))
    first ^= UInt64(bytes.count)
    second ^= UInt64(bytes.count)
    first = first &+ second
    second = second &+ first
    return avalanched(first) &+ avalanched(second)
}

/// Up to eight bytes, as many as there are from an offset on, as a number.
@inline(__always)
private func word(_ bytes: UnsafeRawBufferPointer, _ offset: Int) -> UInt64 {
    guard let base = bytes.baseAddress, offset < bytes.count else { return 0 }
    if bytes.count - offset >= 8 {
        return UInt64(littleEndian: base.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
    var number: UInt64 = 0
    var index = bytes.count
    while index > offset {
        index -= 1
        number = number << 8 | UInt64(base.load(fromByteOffset: index, as: UInt8.self))
    }
    return number
}

private func rotated(_ value: UInt64, _ distance: UInt64) -> UInt64 {
    value << distance | value >> (64 - distance)
}

private func scrambledFirst(_ word: UInt64) -> UInt64 {
    rotated(word &* 0x87c3_7b91_1142_53d5, 31) &* 0x4cf5_ad43_2745_937f
}

private func scrambledSecond(_ word: UInt64) -> UInt64 {
    rotated(word &* 0x4cf5_ad43_2745_937f, 33) &* 0x87c3_7b91_1142_53d5
}

private func avalanched(_ value: UInt64) -> UInt64 {
    var value = (value ^ (value >> 33)) &* 0xff51_afd7_ed55_8ccd
    value = (value ^ (value >> 33)) &* 0xc4ce_b9fe_1a85_ec53
    return value ^ (value >> 33)
}
