// The hash that places points and grouping keys on the ring.
// Ring construction hashes points with it, the grouping-key parser hashes keys; nothing else does.

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
