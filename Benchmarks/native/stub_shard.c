// A stand-in for many Pushgateways in one process: stub_shard PORT FIRST_ADDRESS COUNT
//
// It listens on COUNT addresses from FIRST_ADDRESS on and answers every request, pipelined or not, with the bytes that a
// Pushgateway sends for a push. A real one would take most of the machine; this one costs the load's core about a
// microsecond a push, so that the proxy between is what is measured. Its answers do not depend on what was asked, except
// for GET /counts: the pushes and bytes of bodies received so far, by which the harness checks that pushes arrived.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { INPUT_BYTES = 256 * 1024, HEAD_BYTES = 16 * 1024, OUTPUT_BYTES = 64 * 1024, ANSWER_BYTES = 256 };

// One connection, or one listening socket. `saved` holds the start of a head that has not arrived whole.
struct connection {
    int descriptor;
    bool is_listener, asks_counts, closes;
    size_t body_left;
    char *saved;
    size_t saved_length;
};

static char input[HEAD_BYTES + INPUT_BYTES];
static char output[OUTPUT_BYTES];
static size_t output_length;
static char answer[ANSWER_BYTES];
static size_t answer_length;
static unsigned long long pushes, body_bytes;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

// The head that net/http writes for an empty 200; the date changes once a second, as there.
static void refresh_answer(void) {
    static time_t made_at;
    time_t now = time(NULL);
    if (now == made_at) return;
    made_at = now;
    char date[64];
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime(&now));
    answer_length = snprintf(answer, sizeof answer, "HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Length: 0\r\n\r\n", date);
}

// Waits where the peer does not read: a stand-in may, and an answer must not be lost.
static bool flush(int descriptor) {
    size_t sent = 0;
    while (sent < output_length) {
        ssize_t count = send(descriptor, output + sent, output_length - sent, MSG_NOSIGNAL);
        if (count > 0) {
            sent += count;
        } else if (count < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = descriptor, .events = POLLOUT};
            poll(&writable, 1, 1000);
        } else {
            output_length = 0;
            return false;
        }
    }
    output_length = 0;
    return true;
}

static bool append(int descriptor, const char *bytes, size_t length) {
    if (output_length + length > OUTPUT_BYTES && !flush(descriptor)) return false;
    memcpy(output + output_length, bytes, length);
    output_length += length;
    return true;
}

static bool answer_request(struct connection *connection) {
    if (!connection->asks_counts) return append(connection->descriptor, answer, answer_length);
    char body[64], text[ANSWER_BYTES];
    int body_length = snprintf(body, sizeof body, "%llu %llu\n", pushes, body_bytes);
    int length = snprintf(text, sizeof text, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", body_length, body);
    return append(connection->descriptor, text, length);
}

static bool take_head(struct connection *connection, char *head, char *end) {
    size_t length = 0;
    for (char *line = memchr(head, '\n', end - head); line && line + 1 < end; line = memchr(line, '\n', end - line)) {
        line++;
        if (strncasecmp(line, "content-length:", 15) == 0) length = strtoul(line + 15, NULL, 10);
        if (strncasecmp(line, "connection: close", 17) == 0) connection->closes = true;
        if (strncasecmp(line, "transfer-encoding:", 18) == 0) {
            fprintf(stderr, "stub_shard: a chunked request: no proxy here should send one\n");
            return false;
        }
    }
    connection->body_left = length;
    connection->asks_counts = strncmp(head, "GET /counts ", 12) == 0;
    if (strncmp(head, "GET ", 4) != 0) {
        pushes++;
        body_bytes += length;
    }
    return true;
}

// Takes what has arrived, heads and bodies in turn, and answers each request once its body is whole.
static bool take_input(struct connection *connection, char *at, char *end) {
    while (at < end) {
        if (connection->body_left == 0) {
            char *head_end = memmem(at, end - at, "\r\n\r\n", 4);
            if (!head_end) break;
            if (!take_head(connection, at, head_end + 2)) return false;
            at = head_end + 4;
        }
        size_t count = (size_t)(end - at) < connection->body_left ? (size_t)(end - at) : connection->body_left;
        at += count;
        connection->body_left -= count;
        if (connection->body_left == 0 && !answer_request(connection)) return false;
    }
    size_t rest = end - at;
    if (rest > HEAD_BYTES) return false;
    if (rest > 0 && !connection->saved) connection->saved = malloc(HEAD_BYTES);
    if (rest > 0) memcpy(connection->saved, at, rest);
    connection->saved_length = rest;
    return flush(connection->descriptor) && !(connection->closes && rest == 0 && connection->body_left == 0);
}

static bool receive(struct connection *connection) {
    size_t saved = connection->saved_length;
    if (saved > 0) memcpy(input, connection->saved, saved);
    ssize_t count = recv(connection->descriptor, input + saved, INPUT_BYTES, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return true;
    if (count <= 0) return false;
    return take_input(connection, input, input + saved + count);
}

static void watch(int epoll, int descriptor, bool is_listener) {
    struct connection *connection = calloc(1, sizeof *connection);
    connection->descriptor = descriptor;
    connection->is_listener = is_listener;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = connection};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) < 0) fail("stub_shard: epoll_ctl");
}

static void listen_on(int epoll, in_addr_t address, int port) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(address)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);  // inherited by what is accepted
    if (bind(listener, (struct sockaddr *)&name, sizeof name) < 0) fail("stub_shard: bind");
    if (listen(listener, 4096) < 0) fail("stub_shard: listen");
    watch(epoll, listener, true);
}

static void accept_all(int epoll, int listener) {
    int descriptor;
    while ((descriptor = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) watch(epoll, descriptor, false);
}

int main(int count, char **arguments) {
    if (count != 4) {
        fprintf(stderr, "usage: stub_shard PORT FIRST_ADDRESS COUNT\n");
        return 64;
    }
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    in_addr_t first = ntohl(inet_addr(arguments[2]));
    for (int index = 0; index < atoi(arguments[3]); index++) listen_on(epoll, first + index, atoi(arguments[1]));
    struct epoll_event events[256];
    for (;;) {
        int ready = epoll_wait(epoll, events, 256, -1);
        refresh_answer();
        for (int index = 0; index < ready; index++) {
            struct connection *connection = events[index].data.ptr;
            if (connection->is_listener) {
                accept_all(epoll, connection->descriptor);
            } else if (!receive(connection)) {
                output_length = 0;
                close(connection->descriptor);
                free(connection->saved);
                free(connection);
            }
        }
    }
}
