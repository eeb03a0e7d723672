// Preloaded into shardd, counts what a push costs that no clock is needed for: allocations, and calls into the kernel.
//
// The counts live in the file that COUNT_CALLS_FILE names, mapped and shared, so that the gate reads them while shardd
// runs. One array of 64-bit counters, in the order of `enum counter`, which harness/lockstep.py knows too.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum counter { ALLOCATIONS, FREES, SYSTEM_CALLS, COUNTERS };

static _Atomic uint64_t early[COUNTERS];
static _Atomic uint64_t *counts = early;

__attribute__((constructor)) static void map_file(void) {
    const char *name = getenv("COUNT_CALLS_FILE");
    int descriptor = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (descriptor < 0) return;
    void *mapped = mmap(NULL, sizeof early, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (mapped != MAP_FAILED) counts = mapped;
    close(descriptor);
}

static void count(enum counter counter) { atomic_fetch_add_explicit(&counts[counter], 1, memory_order_relaxed); }

// glibc's own names for its allocator: no dlsym, which allocates itself.
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

void *malloc(size_t size) {
    count(ALLOCATIONS);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    count(ALLOCATIONS);
    return __libc_calloc(number, size);
}

// In place or not, it is a call into the allocator; of blocks, as many as before.
void *realloc(void *block, size_t size) {
    count(ALLOCATIONS);
    if (block) count(FREES);
    return __libc_realloc(block, size);
}

void *memalign(size_t alignment, size_t size) {
    count(ALLOCATIONS);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **block, size_t alignment, size_t size) {
    *block = memalign(alignment, size);
    return *block ? 0 : ENOMEM;
}

void free(void *block) {
    if (block) count(FREES);
    __libc_free(block);
}

// The calls of an event loop that serves sockets. What is not here, such as clock_gettime, does not enter the kernel, or
// does not happen for a push.
#define COUNTED(result, name, parameters, ...)                     \
    result name parameters {                                       \
        static result(*next) parameters;                           \
        if (!next) next = (result(*) parameters)dlsym(RTLD_NEXT, #name); \
        count(SYSTEM_CALLS);                                       \
        return next(__VA_ARGS__);                                  \
    }

COUNTED(ssize_t, read, (int d, void *b, size_t n), d, b, n)
COUNTED(ssize_t, write, (int d, const void *b, size_t n), d, b, n)
COUNTED(ssize_t, readv, (int d, const struct iovec *v, int n), d, v, n)
COUNTED(ssize_t, writev, (int d, const struct iovec *v, int n), d, v, n)
COUNTED(ssize_t, recv, (int d, void *b, size_t n, int f), d, b, n, f)
COUNTED(ssize_t, send, (int d, const void *b, size_t n, int f), d, b, n, f)
COUNTED(ssize_t, recvfrom, (int d, void *b, size_t n, int f, struct sockaddr *a, socklen_t *l), d, b, n, f, a, l)
COUNTED(ssize_t, sendto, (int d, const void *b, size_t n, int f, const struct sockaddr *a, socklen_t l), d, b, n, f, a, l)
COUNTED(ssize_t, recvmsg, (int d, struct msghdr *m, int f), d, m, f)
COUNTED(ssize_t, sendmsg, (int d, const struct msghdr *m, int f), d, m, f)
COUNTED(int, epoll_wait, (int e, struct epoll_event *v, int n, int t), e, v, n, t)
COUNTED(int, epoll_ctl, (int e, int o, int d, struct epoll_event *v), e, o, d, v)
COUNTED(int, accept, (int d, struct sockaddr *a, socklen_t *l), d, a, l)
COUNTED(int, accept4, (int d, struct sockaddr *a, socklen_t *l, int f), d, a, l, f)
COUNTED(int, shutdown, (int d, int h), d, h)
COUNTED(int, close, (int d), d)
COUNTED(int, setsockopt, (int d, int l, int o, const void *v, socklen_t n), d, l, o, v, n)
COUNTED(int, getsockopt, (int d, int l, int o, void *v, socklen_t *n), d, l, o, v, n)
COUNTED(int, getsockname, (int d, struct sockaddr *a, socklen_t *l), d, a, l)
COUNTED(int, getpeername, (int d, struct sockaddr *a, socklen_t *l), d, a, l)

int ioctl(int descriptor, unsigned long request, ...) {
    static int (*next)(int, unsigned long, void *);
    if (!next) next = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    __builtin_va_list arguments;
    __builtin_va_start(arguments, request);
    void *argument = __builtin_va_arg(arguments, void *);
    __builtin_va_end(arguments);
    count(SYSTEM_CALLS);
    return next(descriptor, request, argument);
}
