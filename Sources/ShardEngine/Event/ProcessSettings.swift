// What the process asks of the system before it serves. The server calls it once, at the start.
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

/// Keeps memory that large bodies need, instead of giving it back to the system and asking again for each.
func keepFreedMemory() {
    mallopt(M_TRIM_THRESHOLD, 64 << 20)
    mallopt(M_MMAP_THRESHOLD, 8 << 20)
    mallopt(M_TOP_PAD, 1 << 20)
}
