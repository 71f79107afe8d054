/* Both ends of measured traffic, where a C compiler is at hand: Python's own work would hide what a network costs.
 *
 *   peer serve                                           echo on 7000, a source on 7001
 *   peer measure HOST PORT7000 PORT7001 SECONDS          one JSON row, as probe.py's
 */
#define _GNU_SOURCE
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 8, MOST = 4000000 };
static char block[1 << 20];
static double times[MOST];
static const int on = 1;

static void fail(const char *what) { perror(what); exit(1); }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static int listener(int port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(s, (void *)&at, sizeof at) || listen(s, 1024)) fail("listen");
    return s;
}

static void watch(int poll, int fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e)) fail("epoll_ctl");
}

static void echo(int port)
{
    int door = listener(port), poll = epoll_create1(0);
    struct epoll_event ready[64];
    for (watch(poll, door);;) {
        int count = epoll_wait(poll, ready, 64, -1);
        for (int i = 0; i < count; i++) {
            int fd = ready[i].data.fd;
            if (fd == door) {
                int peer = accept(door, NULL, NULL);
                if (peer < 0) continue;
                setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                watch(poll, peer);
            } else {
                ssize_t size = read(fd, block, sizeof block);
                if (size <= 0 || write(fd, block, size) != size) close(fd);
            }
        }
    }
}

static void source(int port)
{
    int door = listener(port);
    for (;;) {
        int peer = accept(door, NULL, NULL);
        if (peer >= 0 && fork() == 0) {
            while (send(peer, block, 1 << 18, MSG_NOSIGNAL) > 0) { }
            _exit(0);
        }
        close(peer);
        while (waitpid(-1, NULL, WNOHANG) > 0) { }
    }
}

static struct sockaddr_in address;

static int connected(int port)
{
    address.sin_port = htons(port);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(s, (void *)&address, sizeof address)) fail("connect");
    return s;
}

static double connections(int port, double seconds)
{
    int pipes[2];
    long sum = 0, done = 0;
    if (pipe(pipes)) fail("pipe");
    for (int i = 0; i < CLIENTS; i++)
        if (fork() == 0) {
            char byte = 'x';
            for (double end = now() + seconds; now() < end; done++) {
                int s = connected(port);
                if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1) fail("echo");
                close(s);
            }
            _exit(write(pipes[1], &done, sizeof done) != sizeof done);
        }
    close(pipes[1]);
    int answers = 0;
    for (; read(pipes[0], &done, sizeof done) == sizeof done; answers++) sum += done;
    while (wait(NULL) > 0) { }
    if (answers != CLIENTS) exit(1);
    return sum / seconds;
}

static double throughput(int port, double seconds)
{
    double total = 0, began = now(), end = began + seconds;
    int s = connected(port);
    while (now() < end) {
        ssize_t size = read(s, block, sizeof block);
        if (size <= 0) fail("read");
        total += size;
    }
    close(s);
    return total / (now() - began) / 1e6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double round_trip(int port, double seconds)
{
    int count = 0, s = connected(port);
    char byte = 'x';
    setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    for (double end = now() + seconds; now() < end && count < MOST;) {
        double began = now();
        if (write(s, &byte, 1) != 1 || read(s, &byte, 1) != 1) fail("echo");
        times[count++] = now() - began;
    }
    qsort(times, count, sizeof *times, ascending);
    return times[count / 2] * 1e6;
}

static void find(const char *host)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, NULL, &hints, &found)) { fprintf(stderr, "%s: unknown\n", host); exit(1); }
    memcpy(&address, found->ai_addr, sizeof address);
}

int main(int count, char **words)
{
    if (count == 2 && !strcmp(words[1], "serve")) {
        if (fork() == 0) source(7001);
        echo(7000);
    }
    if (count != 6 || strcmp(words[1], "measure")) return 2;
    find(words[2]);
    int echoes = atoi(words[3]), stream = atoi(words[4]);
    double seconds = atof(words[5]);
    double rate = connections(echoes, seconds), bytes = throughput(stream, seconds), trip = round_trip(echoes, seconds);
    printf("{\"connections/s\": %.1f, \"MB/s\": %.1f, \"round trip us\": %.2f}\n", rate, bytes, trip);
    return 0;
}
