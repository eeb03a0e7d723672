// libevent as Swift sees it: the public headers, and static inlines for what Swift cannot import.
#ifndef SHARDD_CEVENT_SHIM_H
#define SHARDD_CEVENT_SHIM_H

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
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/// The first of a request's or response's headers; the next one is `next.tqe_next`.
static inline struct evkeyval *shardd_first_header(const struct evkeyvalq *headers) {
  return headers->tqh_first;
}

#endif
