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
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/eventfd.h>

/// A descriptor that other threads can make readable; -1 when there is none left.
static inline int shardd_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

/// The first of a request's or response's headers; the next one is `next.tqe_next`.
static inline struct evkeyval *shardd_first_header(const struct evkeyvalq *headers) {
  return headers->tqh_first;
}

/// Tells the server, in the handshake, which host is meant (a macro in OpenSSL).
static inline int shardd_set_server_name(SSL *ssl, const char *host) {
  return (int)SSL_set_tlsext_host_name(ssl, host);
}

#endif
