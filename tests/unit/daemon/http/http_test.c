/* SPDX-License-Identifier: Apache-2.0
 * The HTTP server against raw sockets: a client thread writes bytes, the loop runs in the test. */
#include <arpa/inet.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/http/http.h"
#include "rpc/base/mem.h"

struct server {
    struct event_base *base;
    struct phx_http   *http;
    int                port;
    int                n_requests, n_gone;
    int                last_write;
    bool               is_written;
    char               body[256];
};

struct client {
    struct server *server;
    const char    *request;
    char           answer[65536];
    bool           leaves_at_once; /* without reading */
};

static void on_gone(void *ctx)
{
    struct server *s = ctx;

    s->n_gone++;
    (void)event_base_loopbreak(s->base); /* cannot fail on a running loop */
}

static void on_flood_gone(void *ctx)
{
    on_gone(ctx);
}

static void handle(void *ctx, struct phx_http_request *r)
{
    struct server *s = ctx;
    const char    *body;
    size_t         size;

    s->n_requests++;
    body = phx_http_body(r, &size);
    if (strcmp(phx_http_path(r), "/echo") == 0) {
        (void)snprintf(s->body, sizeof(s->body), "%.*s", (int)size, body);
        phx_http_reply(r, 200, "text/plain", body, size);
    } else if (strcmp(phx_http_path(r), "/stream") == 0) {
        phx_http_stream_start(r, 200, "text/event-stream");
        assert_int_equal(phx_http_stream_write(r, "data: a\n\n", 9), 0);
        assert_int_equal(phx_http_stream_write(r, "data: b\n\n", 9), 0);
        phx_http_stream_end(r, NULL, 0);
    } else if (strcmp(phx_http_path(r), "/park") == 0) {
        phx_http_on_gone(r, on_gone, s);
    } else if (strcmp(phx_http_path(r), "/flood") == 0) {
        static const char block[65536] = {0};

        phx_http_on_gone(r, on_flood_gone, s);
        phx_http_stream_start(r, 200, "application/octet-stream");
        for (int i = 0; i < 64 && s->last_write == 0; i++)
            s->last_write = phx_http_stream_write(r, block, sizeof(block));
    } else {
        phx_http_reply(r, 404, "text/plain", "no", 2);
    }
}

static int start(struct server *s, const char *listen_on, struct phx_err *err)
{
    const struct phx_http_options options = {
        .listen = listen_on,
        .body_max_bytes = 1000,
        .header_max_bytes = 4096,
        .pending_max_bytes = 100000,
        .requests_max = 4,
        .connections_max = 100,
        .idle_timeout_s = 10,
    };
    int rc;

    memset(s, 0, sizeof(*s));
    s->base = event_base_new();
    rc = phx_http_open(s->base, &options, handle, s, &s->http, err);
    if (rc == 0)
        s->port = atoi(strrchr(phx_http_url(s->http), ':') + 1);
    return rc;
}

static void stop(struct server *s)
{
    phx_http_close(s->http);
    event_base_free(s->base);
}

static int dial(const struct server *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)s->port)};
    int                fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ? fd : -1;
}

static void *run_client(void *ctx)
{
    struct client *c = ctx;
    int            fd = dial(c->server);
    size_t         used = 0;
    ssize_t        n = 0;

    if (fd >= 0 && write(fd, c->request, strlen(c->request)) > 0 && !c->leaves_at_once)
        while (used < sizeof(c->answer) - 1 &&
               (n = read(fd, c->answer + used, sizeof(c->answer) - 1 - used)) > 0)
            used += (size_t)n;
    c->answer[used] = '\0';
    if (c->leaves_at_once)
        usleep(50000);
    close(fd);
    if (!c->leaves_at_once)
        event_base_loopbreak(c->server->base);
    return NULL;
}

/* Runs one client to its end while the loop serves it. */
static void exchange(struct server *s, struct client *c)
{
    const struct timeval limit = {10, 0};
    pthread_t            thread;

    c->server = s;
    assert_int_equal(pthread_create(&thread, NULL, run_client, c), 0);
    assert_int_equal(event_base_loopexit(s->base, &limit), 0);
    assert_true(event_base_loop(s->base, EVLOOP_NO_EXIT_ON_EMPTY) >= 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

static void check_answer(const char *request, const char *starts, const char *holds)
{
    struct server  s;
    struct client *c = phx_mem_calloc(1, sizeof(*c));

    c->request = request;
    assert_int_equal(start(&s, "127.0.0.1:0", NULL), 0);
    exchange(&s, c);
    assert_memory_equal(c->answer, starts, strlen(starts));
    if (holds != NULL)
        assert_non_null(strstr(c->answer, holds));
    stop(&s);
    phx_mem_free(c);
}

static void answers_and_carries_the_body(void **state)
{
    (void)state;
    check_answer("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
                 "HTTP/1.1 200 OK\r\n", "\r\n\r\nhello");
}

static void serves_two_requests_on_one_connection(void **state)
{
    (void)state;
    check_answer("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\none"
                 "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntwo",
                 "HTTP/1.1 200 OK\r\n", "\r\n\r\ntwo");
}

static void streams_in_chunks(void **state)
{
    (void)state;
    check_answer("GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
                 "HTTP/1.1 200 OK\r\n", "data: b\n\n");
}

static void refuses_doubtful_framing(void **state)
{
    (void)state;
    check_answer("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\none",
                 "HTTP/1.1 400 ", "more than one Content-Length");
    check_answer("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\none", "HTTP/1.1 400 ",
                 NULL);
    check_answer("GET /echo HTTP/1.1\r\n\r\n", "HTTP/1.1 400 ", "Host");
    check_answer("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nContent-Length: "
                 "0\r\n\r\n",
                 "HTTP/1.1 400 ", NULL);
}

static void refuses_a_body_over_the_limit(void **state)
{
    (void)state;
    check_answer("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", "HTTP/1.1 413 ",
                 NULL);
}

static void takes_a_body_at_the_limit(void **state)
{
    char request[1200];
    int  n = snprintf(request, sizeof(request),
                      "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                       "Connection: close\r\n\r\n");

    (void)state;
    memset(request + n, 'x', 1000);
    request[n + 1000] = '\0';
    check_answer(request, "HTTP/1.1 200 OK\r\n", "xxxxxxxx");
}

static void tells_when_a_client_leaves_before_its_answer(void **state)
{
    struct server  s;
    struct client *c = phx_mem_calloc(1, sizeof(*c));

    (void)state;
    c->request = "GET /park HTTP/1.1\r\nHost: x\r\n\r\n";
    c->leaves_at_once = true;
    assert_int_equal(start(&s, "127.0.0.1:0", NULL), 0);
    exchange(&s, c);
    assert_int_equal(s.n_requests, 1);
    assert_int_equal(s.n_gone, 1);
    assert_int_equal(phx_http_open_requests(s.http), 0);
    stop(&s);
    phx_mem_free(c);
}

static void drops_a_client_that_does_not_read(void **state)
{
    struct server  s;
    struct client *c = phx_mem_calloc(1, sizeof(*c));

    (void)state;
    c->request = "GET /flood HTTP/1.1\r\nHost: x\r\n\r\n";
    c->leaves_at_once = true;
    assert_int_equal(start(&s, "127.0.0.1:0", NULL), 0);
    exchange(&s, c);
    assert_int_equal(s.last_write, PHX_E_LIMIT);
    assert_int_equal(s.n_gone, 1);
    assert_int_equal(phx_http_open_requests(s.http), 0);
    stop(&s);
    phx_mem_free(c);
}

static void says_when_the_port_is_in_use(void **state)
{
    struct server  a, b;
    struct phx_err err = {0};
    char           address[64];

    (void)state;
    assert_int_equal(start(&a, "127.0.0.1:0", NULL), 0);
    (void)snprintf(address, sizeof(address), "127.0.0.1:%d", a.port);
    assert_int_equal(start(&b, address, &err), PHX_E_IO);
    assert_non_null(strstr(err.text, "in use"));
    event_base_free(b.base);
    stop(&a);
}

static void refuses_an_open_address_without_tls(void **state)
{
    struct server  s;
    struct phx_err err = {0};

    (void)state;
    assert_int_equal(start(&s, "0.0.0.0:0", &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "TLS"));
    event_base_free(s.base);
    assert_int_equal(start(&s, "127.0.0.1", &err), PHX_E_INVALID);
    event_base_free(s.base);
    assert_int_equal(start(&s, "127.0.0.1:99999999", &err), PHX_E_INVALID);
    event_base_free(s.base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_and_carries_the_body),
        cmocka_unit_test(serves_two_requests_on_one_connection),
        cmocka_unit_test(streams_in_chunks),
        cmocka_unit_test(refuses_doubtful_framing),
        cmocka_unit_test(refuses_a_body_over_the_limit),
        cmocka_unit_test(takes_a_body_at_the_limit),
        cmocka_unit_test(tells_when_a_client_leaves_before_its_answer),
        cmocka_unit_test(drops_a_client_that_does_not_read),
        cmocka_unit_test(says_when_the_port_is_in_use),
        cmocka_unit_test(refuses_an_open_address_without_tls),
    };

    if (evthread_use_pthreads() != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
