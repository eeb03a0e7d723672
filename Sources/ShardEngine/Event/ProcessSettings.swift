// What the process asks of the system. The server calls it at the start, and once it serves.
import CEvent
import Glibc

/// Raises the limit of open descriptors as far as the process may; returns it.
func raiseDescriptorLimit() -> Int {
    let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var limit = rlimit()
    guard getrlimit(resource, &limit) == 0 else { return 1024 }
    var raised = limit
    raised.rlim_cur = limit.rlim_max
    if setrlimit(resource, &raised) == 0 { limit = raised }
    return Int(clamping: min(limit.rlim_cur, 1 << 30))
}

/// Keeps freed memory at hand, for the next request and its body, instead of giving it back and asking again each time.
/// To be called before anything of libevent's is made.
func keepFreedMemory() {
    shardd_use_free_lists()
    mallopt(M_TRIM_THRESHOLD, 64 << 20)
    mallopt(M_MMAP_THRESHOLD, 8 << 20)
    mallopt(M_TOP_PAD, 1 << 20)
}

/// Gives back the pages of files that starting took: the parsers of arguments and YAML, the runtime's tables, the names that
/// libraries are linked by. Those that serving needs come back, from the system's cache, as they are used.
func giveBackPagesOfStart() {
    guard let mappings = try? readFile("/proc/self/smaps", limit: 1 << 20) else { return }
    var mapping: UnsafeMutableRawBufferPointer?
    for line in mappings.split(separator: 0x0A) {
        // 5581a0000000-5581a1599000 r-xp 00000000 fe:00 1234    /usr/bin/shardd
        // and then a line for each thing that is known of it, of which two tell of pages that differ from the file's, as
        // those do in which addresses have been filled in:
        // Anonymous:             0 kB
        // Swap:                  0 kB
        let fields = line.split(separator: 0x20)
        guard fields.count == 3 else {
            if fields.count > 4, fields[0].contains(0x2D) { mapping = readOnlyMapping(fields) }
            continue
        }
        let isZero = fields[1].elementsEqual("0".utf8)
        if fields[0].elementsEqual("Anonymous:".utf8), !isZero { mapping = nil }
        if fields[0].elementsEqual("Swap:".utf8), isZero, let mapping {
            madvise(mapping.baseAddress, mapping.count, Int32(MADV_DONTNEED))
        }
    }
}

/// What a line of /proc/self/smaps that begins a mapping is about, if that is of a file and cannot be written to.
private func readOnlyMapping(_ fields: [ArraySlice<UInt8>]) -> UnsafeMutableRawBufferPointer? {
    guard fields.count == 6, fields[5].first == 0x2F else { return nil }
    guard fields[1].elementsEqual("r-xp".utf8) || fields[1].elementsEqual("r--p".utf8) else { return nil }
    let bounds = fields[0].split(separator: 0x2D).compactMap { UInt(String(decoding: $0, as: UTF8.self), radix: 16) }
    guard bounds.count == 2 else { return nil }
    return UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(bitPattern: bounds[0]),
        count: Int(bounds[1] - bounds[0])
    )
}
