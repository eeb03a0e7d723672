// A request's target that is not the client's: a push whose empty instance is left out goes to another path than it came
// with. The push handler makes one, the connection keeps it with its request, pipelines write it.

/// Bytes that stay where they are as long as this lives.
final class RewrittenTarget {
    let bytes: UnsafeRawBufferPointer

    init(_ target: [UInt8]) {
        let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: target.count, alignment: 1)
        copy.copyBytes(from: target)
        bytes = UnsafeRawBufferPointer(copy)
    }

    deinit {
        bytes.deallocate()
    }
}
