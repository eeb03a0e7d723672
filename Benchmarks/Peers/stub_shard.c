// A shard that costs next to nothing: answers every push with 200, on COUNT loopback addresses (127.0.0.1 and up).
// gcc -O2 -o stub_shard stub_shard.c; ./stub_shard PORT COUNT
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER = 1 << 18, EVENTS = 256 };

// A connection, or a listening socket when `is_listener`.
struct peer {
  int descriptor;
  int is_listener;
  char *bytes;
  size_t count;
  // Bytes of the present body that have not come.
  size_t missing;
};

static const char answer[] = "HTTP/1.1 200 OK\r\nDate: Tue, 24 Nov 2026 08:00:00 GMT\r\nContent-Length: 0\r\n\r\n";
static int poller;

static void watch(int descriptor, int is_listener) {
  struct peer *peer = calloc(1, sizeof *peer);
  peer->descriptor = descriptor;
  peer->is_listener = is_listener;
  if (!is_listener) peer->bytes = malloc(BUFFER + 1);
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
  epoll_ctl(poller, EPOLL_CTL_ADD, descriptor, &event);
}

static int listen_on(int number, int port) {
  int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + number);
  if (bind(descriptor, (struct sockaddr *)&address, sizeof address) || listen(descriptor, 4096)) return -1;
  return descriptor;
}

static void accept_all(struct peer *listener) {
  int descriptor, on = 1;
  while ((descriptor = accept4(listener->descriptor, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(descriptor, 0);
  }
}

// Counts the requests that are whole in the bytes, and keeps what is left of them.
static int take_requests(struct peer *peer) {
  size_t offset = 0;
  int requests = 0;
  for (;;) {
    if (peer->missing) {
      size_t part = peer->count - offset < peer->missing ? peer->count - offset : peer->missing;
      offset += part;
      peer->missing -= part;
      if (peer->missing) break;
      requests++;
      continue;
    }
    char *head = peer->bytes + offset;
    char *end = memmem(head, peer->count - offset, "\r\n\r\n", 4);
    if (!end) break;
    *end = 0;
    char *length = strcasestr(head, "\r\ncontent-length:");
    peer->missing = length ? strtoul(length + 17, NULL, 10) : 0;
    offset = end + 4 - peer->bytes;
    if (!peer->missing) requests++;
  }
  memmove(peer->bytes, peer->bytes + offset, peer->count - offset);
  peer->count -= offset;
  return requests;
}

static void serve(struct peer *peer) {
  static char answers[1 << 20];
  ssize_t count = recv(peer->descriptor, peer->bytes + peer->count, BUFFER - peer->count, 0);
  if (count < 0 && errno == EAGAIN) return;
  if (count <= 0) {
    close(peer->descriptor);
    free(peer->bytes);
    free(peer);
    return;
  }
  peer->count += count;
  size_t size = 0;
  for (int requests = take_requests(peer); requests > 0; requests--) {
    memcpy(answers + size, answer, sizeof answer - 1);
    size += sizeof answer - 1;
  }
  if (size) send(peer->descriptor, answers, size, MSG_NOSIGNAL);
}

int main(int count, char **arguments) {
  if (count != 3) return 64;
  poller = epoll_create1(0);
  for (int number = 0; number < atoi(arguments[2]); number++) {
    int descriptor = listen_on(number, atoi(arguments[1]));
    if (descriptor < 0) {
      perror("stub_shard");
      return 1;
    }
    watch(descriptor, 1);
  }
  for (;;) {
    struct epoll_event events[EVENTS];
    int ready = epoll_wait(poller, events, EVENTS, -1);
    for (int index = 0; index < ready; index++) {
      struct peer *peer = events[index].data.ptr;
      if (peer->is_listener) accept_all(peer); else serve(peer);
    }
  }
}
