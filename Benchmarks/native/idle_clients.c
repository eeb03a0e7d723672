// Clients that are connected and silent: idle_clients HOST PORT COUNT
//
// Each pushes once and keeps its connection, as clients between two pushes do. Prints "ready" when all have their answer;
// then, for every line read, how many of the connections are still open. Ends with its input.
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char push[] =
    "POST /metrics/job/idle HTTP/1.1\r\nHost: idle\r\nContent-Type: text/plain; version=0.0.4\r\n"
    "Content-Length: 9\r\n\r\nclients 1";

static void fail(const char *what) {
    fprintf(stderr, "idle_clients: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int connect_and_push(const struct sockaddr_in *server) {
    char answer[4096];
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor < 0) fail("socket");
    if (connect(descriptor, (const struct sockaddr *)server, sizeof *server) < 0) fail("connect");
    if (send(descriptor, push, sizeof push - 1, MSG_NOSIGNAL) != sizeof push - 1) fail("send");
    if (recv(descriptor, answer, sizeof answer, 0) < 12) fail("recv");
    if (strncmp(answer, "HTTP/1.1 200", 12) != 0) fail("an answer that is no 200");
    return descriptor;
}

static int is_open(int descriptor) {
    char byte;
    return recv(descriptor, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

int main(int argument_count, char **arguments) {
    if (argument_count != 4) {
        fprintf(stderr, "usage: idle_clients HOST PORT COUNT\n");
        return 64;
    }
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[2]))};
    server.sin_addr.s_addr = inet_addr(arguments[1]);
    int count = atoi(arguments[3]);
    int *descriptors = calloc(count, sizeof *descriptors);
    for (int index = 0; index < count; index++) descriptors[index] = connect_and_push(&server);
    puts("ready");
    fflush(stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin)) {
        int open = 0;
        for (int index = 0; index < count; index++) open += is_open(descriptors[index]);
        printf("%d\n", open);
        fflush(stdout);
    }
    return 0;
}
