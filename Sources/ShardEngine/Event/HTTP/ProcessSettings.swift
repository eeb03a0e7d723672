// What the process asks of the system. The server calls it at the start, and once it serves.
import CEvent
import Glibc
import Logging
import Synchronization

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

/// Sees to it that descriptors 0 to 2 are open: where standard error was closed, a client's socket could be given its number,
/// and would be sent the log.
func keepStandardDescriptors() {
    while true {
        let descriptor = open("/dev/null", O_RDWR)
        guard descriptor >= 0, descriptor <= STDERR_FILENO else {
            if descriptor >= 0 { close(descriptor) }
            return
        }
    }
}

/// Has writes fail where they would otherwise end the process: to a closed connection or pipe, or to a file that may not
/// become larger.
func ignoreWriteSignals() {
    signal(SIGPIPE, SIG_IGN)
    signal(SIGXFSZ, SIG_IGN)
}

/// Has libevent hand its rare warnings to the log, instead of writing them to standard error itself, which may block.
func passOnLibeventMessages(to logger: Logger) {
    libeventLogger.withLock { $0 = logger }
    event_set_log_callback { _, message in
        guard let message else { return }
        let text = String(cString: message)
        libeventLogger.withLock { $0 }?.warning("libevent warns", metadata: ["message": "\(text)"])
    }
}

/// libevent hands its callback no context.
private let libeventLogger = Mutex<Logger?>(nil)
