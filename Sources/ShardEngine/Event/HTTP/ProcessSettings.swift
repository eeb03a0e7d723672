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
