// libevent as Swift sees it: the public headers, and static inlines for what Swift cannot import.
#ifndef SHARDD_CEVENT_SHIM_H
#define SHARDD_CEVENT_SHIM_H

// Before libevent's own headers: event-config.h defines _GNU_SOURCE, which would give fd_set other member names than
// Swift's Glibc module has.
#include <sys/select.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>
#include <event2/util.h>
#include <malloc.h>
#include <poll.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

/// What poll(2) says of a socket whose other side has closed it, or will send no more.
enum { shardd_poll_end = 0x2000 /* POLLRDHUP, of _GNU_SOURCE alone */ | POLLHUP | POLLERR };

/// A descriptor that other threads can make readable; -1 when there is none left.
static inline int shardd_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

/// Whether the calling thread sleeps for as long as it asks for, or up to 50 µs longer, which is the default.
static inline void shardd_sleep_precisely(int is_precise) {
  prctl(PR_SET_TIMERSLACK, is_precise ? 1UL : 0UL);
}

/// How many bytes a socket has that have not been read.
static inline int shardd_unread(int descriptor) {
  int count = 0;
  return ioctl(descriptor, FIONREAD, &count) == 0 ? count : 0;
}

/// The first of a request's or response's headers; the next one is `next.tqe_next`.
static inline struct evkeyval *shardd_first_header(const struct evkeyvalq *headers) {
  return headers->tqh_first;
}

/// Tells the server, in the handshake, which host is meant (a macro in OpenSSL).
static inline int shardd_set_server_name(SSL *ssl, const char *host) {
  return (int)SSL_set_tlsext_host_name(ssl, host);
}

// libevent's allocations, from lists of free blocks. evhttp makes about fifty small ones for each request, all of which it
// frees at its end: too many at a time for malloc's own cache. Each thread has its own lists; a block that another thread
// frees goes over to that one's. Of each size a mebibyte is kept. A block's size class stands in front of it.

enum {
  SHARDD_BLOCK_HEADER = 16,
  SHARDD_BLOCK_STEP = 32,
  SHARDD_BLOCK_CLASSES = 146,
  SHARDD_BYTES_KEPT = 1 << 20
};

struct shardd_free_list {
  void *first;
  size_t count;
};

static inline struct shardd_free_list *shardd_free_list_of(size_t class) {
  static __thread struct shardd_free_list lists[SHARDD_BLOCK_CLASSES];
  return &lists[class];
}

/// The size of a block with its header, in steps.
static inline size_t shardd_block_class(size_t size) {
  return (size + SHARDD_BLOCK_HEADER + SHARDD_BLOCK_STEP - 1) / SHARDD_BLOCK_STEP;
}

static inline void *shardd_allocate(size_t size) {
  size_t class = shardd_block_class(size);
  void *block;
  if (class < SHARDD_BLOCK_CLASSES) {
    struct shardd_free_list *list = shardd_free_list_of(class);
    block = list->first;
    if (block) {
      list->first = *(void **)block;
      list->count--;
      return block;
    }
    block = malloc(class * SHARDD_BLOCK_STEP);
  } else {
    class = SHARDD_BLOCK_CLASSES;
    block = malloc(size + SHARDD_BLOCK_HEADER);
  }
  if (!block) return NULL;
  *(size_t *)block = class;
  return (char *)block + SHARDD_BLOCK_HEADER;
}

static inline void shardd_deallocate(void *block) {
  if (!block) return;
  size_t class = *(size_t *)((char *)block - SHARDD_BLOCK_HEADER);
  if (class < SHARDD_BLOCK_CLASSES) {
    struct shardd_free_list *list = shardd_free_list_of(class);
    if (list->count * class < SHARDD_BYTES_KEPT / SHARDD_BLOCK_STEP) {
      *(void **)block = list->first;
      list->first = block;
      list->count++;
      return;
    }
  }
  free((char *)block - SHARDD_BLOCK_HEADER);
}

static inline void *shardd_reallocate(void *block, size_t size) {
  if (!block) return shardd_allocate(size);
  size_t class = *(size_t *)((char *)block - SHARDD_BLOCK_HEADER);
  if (class < SHARDD_BLOCK_CLASSES) {
    size_t room = class * SHARDD_BLOCK_STEP - SHARDD_BLOCK_HEADER;
    if (size <= room) return block;
    void *larger = shardd_allocate(size);
    if (!larger) return NULL;
    memcpy(larger, block, room);
    shardd_deallocate(block);
    return larger;
  }
  char *moved = (char *)realloc((char *)block - SHARDD_BLOCK_HEADER, size + SHARDD_BLOCK_HEADER);
  return moved ? moved + SHARDD_BLOCK_HEADER : NULL;
}

/// Has libevent allocate from the lists above; before it allocates anything.
static inline void shardd_use_free_lists(void) {
  event_set_mem_functions(shardd_allocate, shardd_reallocate, shardd_deallocate);
}

#endif
