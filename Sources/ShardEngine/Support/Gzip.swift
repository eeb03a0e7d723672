// gzip, for answers to clients that ask for it.
import CZlib

/// The bytes in gzip's format; nil when there is no memory for it.
func gzipped(_ bytes: [UInt8]) -> [UInt8]? {
    let room = shardd_gzip_bound(bytes.count)
    let packed = [UInt8](unsafeUninitializedCapacity: room) { target, count in
        count = shardd_gzip(bytes, bytes.count, target.baseAddress, room)
    }
    return packed.isEmpty ? nil : packed
}
