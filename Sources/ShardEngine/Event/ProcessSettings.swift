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

/// Gives back the pages of code that starting took: the parsers of arguments and YAML, the runtime's tables. Those that
/// serving needs come back, from the system's cache, as they are used.
func giveBackCodeOfStart() {
    guard let maps = try? readFile("/proc/self/maps", limit: 1 << 20) else { return }
    for line in maps.split(separator: 0x0A) {
        // 5581a0000000-5581a1599000 r-xp 00000000 fe:00 1234    /usr/bin/shardd
        let fields = line.split(separator: 0x20)
        guard fields.count == 6, fields[1].elementsEqual("r-xp".utf8), fields[5].first == 0x2F else { continue }
        let bounds = fields[0].split(separator: 0x2D).compactMap { digits in
            UInt(String(decoding: digits, as: UTF8.self), radix: 16)
        }
        guard bounds.count == 2 else { continue }
        madvise(UnsafeMutableRawPointer(bitPattern: bounds[0]), Int(bounds[1] - bounds[0]), Int32(MADV_DONTNEED))
    }
}
