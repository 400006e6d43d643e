/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/http/request.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "rpc/base/id.h"
#include "rpc/base/mem.h"

enum { BLOCKED_BYTES = 16384 }; /* unread beyond the kernel's own buffer */

static const struct {
    enum evhttp_cmd_type type;
    const char          *name;
} methods[] = {
    {EVHTTP_REQ_GET, "GET"},       {EVHTTP_REQ_POST, "POST"},     {EVHTTP_REQ_HEAD, "HEAD"},
    {EVHTTP_REQ_PUT, "PUT"},       {EVHTTP_REQ_DELETE, "DELETE"}, {EVHTTP_REQ_OPTIONS, "OPTIONS"},
    {EVHTTP_REQ_PATCH, "PATCH"},   {EVHTTP_REQ_TRACE, "TRACE"},   {EVHTTP_REQ_CONNECT, "CONNECT"},
};

static const struct {
    int         status;
    const char *text;
} reasons[] = {
    {200, "OK"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {409, "Conflict"},
    {413, "Content Too Large"},
    {429, "Too Many Requests"},
    {500, "Internal Server Error"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
};

static const char *reason_of(int status)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return status < 400 ? "OK" : "Error";
}

static void destroy(struct phx_http_request *r)
{
    r->server->n_requests--;
    phx_mem_free(r->path);
    phx_mem_free(r);
}

/* The connection is closing under an unfinished request: evhttp has detached it and leaves it to us, and
 * frees it when we "answer" it. */
static void on_connection_closed(struct evhttp_connection *connection, void *ctx)
{
    struct phx_http_request *r = ctx;
    struct evhttp_request   *evreq = r->evreq;

    (void)connection; /* evhttp's callback type */
    if (r->gone != NULL)
        r->gone(r->gone_ctx);
    if (evreq->evcon == NULL) {
        if (r->is_streaming)
            evhttp_send_reply_end(evreq);
        else
            evhttp_send_reply(evreq, 500, NULL, NULL);
    }
    destroy(r);
}

/* evhttp stops reading while a request waits for its answer, so a client that leaves would go unnoticed.
 * Reading (without a read callback, and bounded) lets the event callback see the end of the stream. */
static void watch_connection(struct phx_http_request *r)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(r->evreq);
    struct bufferevent       *bev = evhttp_connection_get_bufferevent(connection);
    bufferevent_data_cb       read_cb, write_cb;
    bufferevent_event_cb      event_cb;
    void                     *ctx;

    evhttp_connection_set_closecb(connection, on_connection_closed, r);
    bufferevent_getcb(bev, &read_cb, &write_cb, &event_cb, &ctx);
    bufferevent_setcb(bev, NULL, write_cb, event_cb, ctx);
    bufferevent_setwatermark(bev, EV_READ, 0, 65536);
    (void)bufferevent_enable(bev, EV_READ); /* a socket that cannot be read is closed by the loop */
}

static void unwatch_connection(struct phx_http_request *r)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(r->evreq);

    if (connection != NULL)
        evhttp_connection_set_closecb(connection, NULL, NULL);
}

struct phx_http_request *phx_http_request_create(struct phx_http *h, struct evhttp_request *evreq,
                                                 char *path)
{
    struct phx_http_request *r = phx_mem_calloc(1, sizeof(*r));
    struct evbuffer         *input = evhttp_request_get_input_buffer(evreq);
    char                    *peer = NULL;
    ev_uint16_t              port = 0;

    r->server = h;
    r->evreq = evreq;
    r->path = path;
    phx_id_hex(r->id, sizeof(r->id), 16);
    evhttp_connection_get_peer(evhttp_request_get_connection(evreq), &peer, &port);
    (void)snprintf(r->peer, sizeof(r->peer), "%s:%u", peer != NULL ? peer : "?", (unsigned)port);
    r->body_size = evbuffer_get_length(input);
    phx_assert(evbuffer_add(input, "", 1) == 0);
    r->body = (const char *)evbuffer_pullup(input, -1);
    h->n_requests++;
    watch_connection(r);
    return r;
}

const char *phx_http_method(const struct phx_http_request *r)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++)
        if (methods[i].type == evhttp_request_get_command(r->evreq))
            return methods[i].name;
    return "?";
}

const char *phx_http_path(const struct phx_http_request *r)
{
    return r->path;
}

const char *phx_http_query(const struct phx_http_request *r)
{
    const char *query = evhttp_uri_get_query(evhttp_request_get_evhttp_uri(r->evreq));

    return query != NULL ? query : "";
}

const char *phx_http_header(const struct phx_http_request *r, const char *name)
{
    return evhttp_find_header(evhttp_request_get_input_headers(r->evreq), name);
}

const char *phx_http_peer(const struct phx_http_request *r)
{
    return r->peer;
}

const char *phx_http_id(const struct phx_http_request *r)
{
    return r->id;
}

const char *phx_http_body(const struct phx_http_request *r, size_t *size)
{
    *size = r->body_size;
    return r->body;
}

void phx_http_set_header(struct phx_http_request *r, const char *name, const char *value)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(r->evreq);

    (void)evhttp_remove_header(headers, name); /* absent the first time */
    phx_assert(evhttp_add_header(headers, name, value) == 0);
}

static void set_common_headers(struct phx_http_request *r, const char *content_type)
{
    phx_http_set_header(r, "Content-Type", content_type);
    phx_http_set_header(r, "x-request-id", r->id);
    phx_http_set_header(r, "X-Content-Type-Options", "nosniff");
    phx_http_set_header(r, "Cache-Control", "no-store");
}

void phx_http_reply(struct phx_http_request *r, int status, const char *content_type,
                    const void *body, size_t size)
{
    struct evbuffer *out = evbuffer_new();

    phx_assert(out != NULL && !r->is_streaming);
    phx_assert(size == 0 || evbuffer_add(out, body, size) == 0);
    set_common_headers(r, content_type);
    unwatch_connection(r);
    evhttp_send_reply(r->evreq, status, reason_of(status), out);
    evbuffer_free(out);
    destroy(r);
}

void phx_http_stream_start(struct phx_http_request *r, int status, const char *content_type)
{
    set_common_headers(r, content_type);
    phx_http_set_header(r, "X-Accel-Buffering", "no");
    r->is_streaming = true;
    evhttp_send_reply_start(r->evreq, status, reason_of(status));
}

/* ---- streams --------------------------------------------------------------------------------------------- */

static struct bufferevent *bufferevent_of(const struct phx_http_request *r)
{
    struct evhttp_connection *connection = evhttp_request_get_connection(r->evreq);

    return connection != NULL ? evhttp_connection_get_bufferevent(connection) : NULL;
}

size_t phx_http_stream_pending(const struct phx_http_request *r)
{
    struct bufferevent *bev = bufferevent_of(r);

    return bev != NULL ? evbuffer_get_length(bufferevent_get_output(bev)) : 0;
}

bool phx_http_stream_is_blocked(const struct phx_http_request *r)
{
    size_t most = r->server->options.pending_max_bytes / 2;

    return phx_http_stream_pending(r) > (most < BLOCKED_BYTES ? most : BLOCKED_BYTES);
}

static void on_drained(struct evhttp_connection *connection, void *ctx)
{
    struct phx_http_request *r = ctx;

    (void)connection; /* evhttp's callback type */
    if (r->drain != NULL && !r->is_dropped)
        r->drain(r->drain_ctx);
}

void phx_http_on_drain(struct phx_http_request *r, void (*fn)(void *ctx), void *ctx)
{
    r->drain = fn;
    r->drain_ctx = ctx;
}

void phx_http_stream_drop(struct phx_http_request *r)
{
    struct bufferevent *bev = bufferevent_of(r);

    if (bev == NULL || r->is_dropped)
        return;
    r->is_dropped = true;
    bufferevent_trigger_event(bev, BEV_EVENT_EOF | BEV_EVENT_READING, BEV_OPT_DEFER_CALLBACKS);
}

/* Kept and sent by the loop; on_drained follows when all of it is gone. */
static void queue_bytes(struct phx_http_request *r, const void *data, size_t size)
{
    struct evbuffer *chunk = evbuffer_new();

    phx_assert(chunk != NULL && evbuffer_add(chunk, data, size) == 0);
    evhttp_send_reply_chunk_with_cb(r->evreq, chunk, on_drained, r);
    r->has_queued = true;
    evbuffer_free(chunk);
}

/* One send for a whole chunk, past the event loop: a wait for "writable" would cost three system calls more, for
 * each token.  False when nothing was sent. */
static bool send_now(struct phx_http_request *r, struct bufferevent *bev, const void *data, size_t size)
{
    char          head[24];
    struct iovec  parts[3] = {{.iov_base = head}, {.iov_base = (void *)(uintptr_t)data, .iov_len = size}, {"\r\n", 2}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 3};
    ssize_t       n;

    if (r->server->tls != NULL || !r->evreq->chunked || evbuffer_get_length(bufferevent_get_output(bev)) > 0)
        return false;
    parts[0].iov_len = (size_t)snprintf(head, sizeof(head), "%zx\r\n", size);
    n = sendmsg(bufferevent_getfd(bev), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n <= 0)
        return false; /* full, or broken: the loop finds out which */
    for (int i = 0; i < 3; i++) {
        size_t sent = (size_t)n < parts[i].iov_len ? (size_t)n : parts[i].iov_len;

        n -= (ssize_t)sent;
        phx_assert(bufferevent_write(bev, (char *)parts[i].iov_base + sent, parts[i].iov_len - sent) == 0);
    }
    return true;
}

int phx_http_stream_write(struct phx_http_request *r, const void *data, size_t size)
{
    struct bufferevent *bev = bufferevent_of(r);

    if (r->is_dropped || bev == NULL)
        return PHX_E_LIMIT;
    if (size == 0)
        return 0;
    if (phx_http_stream_pending(r) > r->server->options.pending_max_bytes) {
        phx_http_stream_drop(r);
        return PHX_E_LIMIT;
    }
    /* the first goes the long way, which is the only one that makes evhttp call on_drained from then on */
    if (!r->has_queued || !send_now(r, bev, data, size))
        queue_bytes(r, data, size);
    return 0;
}

void phx_http_stream_end(struct phx_http_request *r, const void *data, size_t size)
{
    phx_assert(r->is_streaming);
    if (r->is_dropped) { /* the deferred close ends it; nobody wants to hear of it any more */
        r->gone = r->drain = NULL;
        return;
    }
    if (size > 0)
        queue_bytes(r, data, size); /* leaves together with the end's own bytes */
    unwatch_connection(r);
    evhttp_send_reply_end(r->evreq);
    destroy(r);
}

void phx_http_on_gone(struct phx_http_request *r, phx_http_gone_fn fn, void *ctx)
{
    r->gone = fn;
    r->gone_ctx = ctx;
}
