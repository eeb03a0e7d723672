// zlib as Swift sees it: what is a macro there, and answers as gzip.
#ifndef SHARDD_CZLIB_SHIM_H
#define SHARDD_CZLIB_SHIM_H

#include <string.h>
#include <zlib.h>

/// Begins to read raw deflate, without a header.
static inline int shardd_inflate_init_raw(z_stream *stream) { return inflateInit2(stream, -MAX_WBITS); }

/// The most that `size` bytes can become.
static inline size_t shardd_gzip_bound(size_t size) { return compressBound(size) + 32; }

/// Writes the bytes in gzip's format (RFC 1952); returns how many bytes that took, or 0 when the room or the memory was too
/// little.
static inline size_t shardd_gzip(const void *bytes, size_t size, void *target, size_t room) {
  z_stream stream;
  memset(&stream, 0, sizeof stream);
  // 16 more than the window's bits ask for gzip's header and trailer.
  if (deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) return 0;
  stream.next_in = (unsigned char *)bytes;
  stream.avail_in = (unsigned)size;
  stream.next_out = (unsigned char *)target;
  stream.avail_out = (unsigned)room;
  int result = deflate(&stream, Z_FINISH);
  size_t count = stream.total_out;
  deflateEnd(&stream);
  return result == Z_STREAM_END ? count : 0;
}

#endif
