/* SPDX-License-Identifier: Apache-2.0
 * http_load HOST PORT KEYS NEW_KEYS NEW_EVERY RATE SECONDS CONNECTIONS MODEL: completions of one token at a fixed rate, each
 * timed from the moment it was due (a late one counts as slow).  KEYS is a file with a key per line, taken in turn;
 * each NEW_EVERYth request takes the next of NEW_KEYS instead (0 = never).  RATE 0: as fast as the connections answer.
 * Prints one JSON object; times in microseconds. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { KEY_BYTES = 64, ANSWER_BYTES = 8192, SAMPLES_MAX = 2000000, CONNECTIONS_MAX = 1024 };

struct keys {
    char (*items)[KEY_BYTES];
    long n, next;
};

struct samples {
    uint32_t *us;
    long      n, n_failed;
};

struct connection {
    int     fd;
    bool    is_new;
    int64_t due_ns; /* 0 = idle */
    char    answer[ANSWER_BYTES];
    size_t  n;
};

static struct keys        known_keys, new_keys;
static struct samples     known, fresh;
static struct connection *connections;
static const char        *model;

static int64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "http_load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void read_keys(const char *path, struct keys *k)
{
    FILE *f = fopen(path, "r");
    char  line[KEY_BYTES];
    long  room = 0;

    if (f == NULL)
        die(path);
    while (fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (k->n == room) {
            room = room == 0 ? 1024 : room * 2;
            k->items = realloc(k->items, (size_t)room * KEY_BYTES);
            if (k->items == NULL)
                die("memory");
        }
        memcpy(k->items[k->n++], line, sizeof(line));
    }
    fclose(f);
}

static void send_request(struct connection *c, long number, int64_t due_ns, long new_every)
{
    struct keys *k = &known_keys;
    char         request[1024], body[256];
    int          n_body, n;

    c->is_new = new_every > 0 && number % new_every == new_every - 1 && new_keys.next < new_keys.n;
    if (c->is_new)
        k = &new_keys;
    n_body = snprintf(body, sizeof(body), "{\"model\":\"%s\",\"prompt\":\"ping\",\"max_tokens\":1,\"seed\":%ld}", model, number);
    n = snprintf(request, sizeof(request),
                 "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n"
                 "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
                 k->items[k->next++ % k->n], n_body, body);
    c->due_ns = due_ns;
    c->n = 0;
    if (write(c->fd, request, (size_t)n) != n) /* smaller than any socket buffer */
        die("write");
}

/* The end of the answer, by its Content-Length; false = more is to come. */
static bool is_whole(struct connection *c)
{
    char *end, *length;

    c->answer[c->n] = '\0';
    end = strstr(c->answer, "\r\n\r\n");
    length = strcasestr(c->answer, "content-length:");
    return end != NULL && length != NULL && c->n >= (size_t)(end - c->answer) + 4 + (size_t)atol(length + 15);
}

static bool take_answer(struct connection *c)
{
    struct samples *s = c->is_new ? &fresh : &known;
    ssize_t         n = read(c->fd, c->answer + c->n, sizeof(c->answer) - 1 - c->n);

    if (n <= 0)
        die("the daemon closed a connection");
    c->n += (size_t)n;
    if (!is_whole(c))
        return false;
    if (strncmp(c->answer, "HTTP/1.1 200", 12) != 0) {
        if (s->n_failed++ == 0)
            fprintf(stderr, "http_load: %.600s\n", c->answer);
    } else if (s->n < SAMPLES_MAX)
        s->us[s->n++] = (uint32_t)((now_ns() - c->due_ns) / 1000);
    c->due_ns = 0;
    return true;
}

static void open_connections(int n, const char *host, int port, int poll_fd)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int                on = 1;

    if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
        die(host);
    connections = calloc((size_t)n, sizeof(*connections));
    for (int i = 0; i < n; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)i};

        connections[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connections[i].fd < 0 || connect(connections[i].fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
            setsockopt(connections[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
            epoll_ctl(poll_fd, EPOLL_CTL_ADD, connections[i].fd, &e) != 0)
            die("connect");
    }
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void print_samples(const char *name, struct samples *s)
{
    if (s->n > 0)
        qsort(s->us, (size_t)s->n, sizeof(*s->us), by_size);
    printf("\"%s\":{\"answered\":%ld,\"failed\":%ld", name, s->n, s->n_failed);
    if (s->n > 0)
        printf(",\"p50_us\":%u,\"p90_us\":%u,\"p99_us\":%u,\"p999_us\":%u,\"max_us\":%u", s->us[s->n / 2],
               s->us[s->n * 9 / 10], s->us[s->n * 99 / 100], s->us[s->n * 999 / 1000], s->us[s->n - 1]);
    printf("}");
}

int main(int argc, char **argv)
{
    int     poll_fd = epoll_create1(EPOLL_CLOEXEC), n_idle, n_connections;
    long    new_every, number = 0;
    double  rate, seconds;
    int     idle[CONNECTIONS_MAX];
    int64_t began, stop;

    if (argc != 10) {
        fprintf(stderr, "usage: http_load HOST PORT KEYS NEW_KEYS NEW_EVERY RATE SECONDS CONNECTIONS MODEL\n");
        return 2;
    }
    read_keys(argv[3], &known_keys);
    read_keys(argv[4], &new_keys);
    new_every = atol(argv[5]);
    rate = atof(argv[6]);
    seconds = atof(argv[7]);
    n_connections = atoi(argv[8]);
    model = argv[9];
    if (n_connections < 1 || n_connections > CONNECTIONS_MAX || known_keys.n == 0)
        die("1 to 1024 connections and a key are needed");
    known.us = calloc(SAMPLES_MAX, sizeof(uint32_t));
    fresh.us = calloc(SAMPLES_MAX, sizeof(uint32_t));
    open_connections(n_connections, argv[1], atoi(argv[2]), poll_fd);
    for (n_idle = 0; n_idle < n_connections; n_idle++)
        idle[n_idle] = n_idle;
    began = now_ns();
    stop = began + (int64_t)(seconds * 1e9);
    while (now_ns() < stop || n_idle < n_connections) {
        struct epoll_event events[64];
        struct timespec    wait = {0, 100000000};
        int64_t            now = now_ns(), due = rate > 0 ? began + (int64_t)((double)number / rate * 1e9) : now;
        int                n;

        while (n_idle > 0 && due <= now && due < stop) {
            send_request(&connections[idle[--n_idle]], number++, due, new_every);
            now = now_ns();
            due = rate > 0 ? began + (int64_t)((double)number / rate * 1e9) : now;
        }
        if (due < stop && n_idle > 0)
            wait.tv_nsec = due <= now ? 0 : due - now < wait.tv_nsec ? due - now : wait.tv_nsec;
        n = epoll_pwait2(poll_fd, events, 64, &wait, NULL); /* to the nanosecond: it must not spin beside the daemon */
        for (int i = 0; i < n; i++)
            if (take_answer(&connections[events[i].data.u32]))
                idle[n_idle++] = (int)events[i].data.u32;
    }
    printf("{\"seconds\":%.3f,\"sent\":%ld,\"per_second\":%.1f,", (double)(now_ns() - began) / 1e9, number,
           (double)(known.n + fresh.n) / ((double)(now_ns() - began) / 1e9));
    print_samples("known", &known);
    printf(",");
    print_samples("new", &fresh);
    printf("}\n");
    return 0;
}
