/* SPDX-License-Identifier: Apache-2.0
 * How many connections there may be.  evhttp tells nobody when an idle one closes, so they are counted where they are
 * known for certain: among the open descriptors, when as many were accepted as there may be.  While it is full, a second
 * listener on the same socket answers each newcomer with a refusal that names the limit. */
#include <arpa/inet.h>
#include <dirent.h>
#include <event2/bufferevent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/http/request.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

enum { COUNT_AGAIN_MS = 100, OTHER_DESCRIPTORS = 512 };

struct phx_http_limit {
    struct phx_http       *h;
    struct evconnlistener *refuser; /* on a duplicate of the listening socket; disabled while there is room */
    struct event          *again;
    int32_t                max, n_estimated; /* never below what there is */
    in_port_t              port;
    bool                   is_full;
};

static bool get_port(int fd, in_port_t *port)
{
    struct sockaddr_storage a;
    socklen_t               size = sizeof(a);

    if (getsockname(fd, (struct sockaddr *)&a, &size) != 0 || (a.ss_family != AF_INET && a.ss_family != AF_INET6))
        return false;
    *port = a.ss_family == AF_INET ? ((struct sockaddr_in *)(void *)&a)->sin_port
                                   : ((struct sockaddr_in6 *)(void *)&a)->sin6_port;
    return true;
}

/* Sockets on our port, less the two that listen. */
static int32_t count_connections(const struct phx_http_limit *l)
{
    DIR           *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    int32_t        n = 0;
    in_port_t      port;

    if (dir == NULL) {
        phx_log(PHX_LOG_WARN, "http.connections.count.fail", "reason=%s", "/proc/self/fd cannot be read");
        return 0;
    }
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.' && get_port(atoi(entry->d_name), &port) && port == l->port;
    (void)closedir(dir);
    return n > 2 ? n - 2 : 0;
}

static void set_full(struct phx_http_limit *l, bool is_full)
{
    const struct timeval again = {0, COUNT_AGAIN_MS * 1000};

    if (is_full)
        (void)evtimer_add(l->again, &again); /* fails only without memory, which aborts elsewhere */
    if (l->is_full == is_full)
        return;
    l->is_full = is_full;
    (void)(is_full ? evconnlistener_disable(l->h->listener) : evconnlistener_enable(l->h->listener));
    (void)(is_full ? evconnlistener_enable(l->refuser) : evconnlistener_disable(l->refuser));
    if (is_full)
        phx_log(PHX_LOG_WARN, "http.connections.full", "connections_max=%d", l->max);
}

static void look(struct phx_http_limit *l)
{
    l->n_estimated = count_connections(l);
    set_full(l, l->n_estimated >= l->max);
}

static void on_again(evutil_socket_t fd, short what, void *ctx)
{
    struct phx_http_limit *l = ctx;

    (void)fd;
    (void)what;
    if (!l->h->is_draining)
        look(l);
}

/* TLS clients see a closed connection: a handshake would cost what the limit is to save. */
static void on_refuse(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address, int size, void *ctx)
{
    struct phx_http_limit *l = ctx;
    char                   body[256], answer[512];
    int                    n_body, n;

    (void)listener; /* libevent's callback type */
    (void)address;
    (void)size;
    n_body = snprintf(body, sizeof(body),
                      "{\"error\":{\"message\":\"http.connections_max: %d connections are open; try again later\","
                      "\"type\":\"server_error\",\"param\":null,\"code\":\"BUSY\"}}", l->max);
    n = snprintf(answer, sizeof(answer),
                 "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\n"
                 "Connection: close\r\nContent-Length: %d\r\n\r\n%s", n_body, body);
    if (l->h->tls == NULL)
        (void)send(fd, answer, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT); /* a courtesy */
    (void)shutdown(fd, SHUT_WR);
    (void)close(fd);
}

void phx_http_limit_accepted(struct phx_http_limit *l)
{
    if (++l->n_estimated >= l->max)
        look(l);
}

/* Each connection is a descriptor. */
static void raise_descriptors(int32_t connections_max)
{
    struct rlimit limit;
    rlim_t        want = (rlim_t)connections_max + OTHER_DESCRIPTORS;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < want)
        phx_log(PHX_LOG_WARN, "http.descriptors.few", "have=%llu want=%llu", (unsigned long long)limit.rlim_cur,
                (unsigned long long)want);
}

int phx_http_limit_open(struct phx_http *h, struct phx_http_limit **out, struct phx_err *err)
{
    struct phx_http_limit *l = phx_mem_calloc(1, sizeof(*l));
    int                    fd = dup(evconnlistener_get_fd(h->listener));

    *out = l;
    l->h = h;
    l->max = h->options.connections_max;
    raise_descriptors(l->max);
    l->again = evtimer_new(h->base, on_again, l);
    phx_assert(l->again != NULL);
    if (fd < 0 || !get_port(fd, &l->port))
        return phx_fail(err, PHX_E_IO, "listen: no descriptor is left");
    l->refuser = evconnlistener_new(h->base, on_refuse, l, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED,
                                    -1, fd);
    phx_assert(l->refuser != NULL);
    return 0;
}

void phx_http_limit_drain(struct phx_http_limit *l)
{
    (void)evtimer_del(l->again);
    (void)evconnlistener_disable(l->refuser);
}

void phx_http_limit_close(struct phx_http_limit *l)
{
    if (l == NULL)
        return;
    if (l->refuser != NULL)
        evconnlistener_free(l->refuser);
    event_free(l->again);
    phx_mem_free(l);
}
