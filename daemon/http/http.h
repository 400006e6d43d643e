/* SPDX-License-Identifier: Apache-2.0
 * The HTTP/1.1 server (libevent's evhttp behind a narrow door): strict requests in, whole or streamed
 * replies out, and a notice when a client leaves.  Everything runs on the loop thread.
 *
 * Life of a request: the handler gets it once.  It must end it with exactly one phx_http_reply(), or with
 * phx_http_stream_start() ... phx_http_stream_end(); it may do so later.  When the client leaves first,
 * the gone callback runs and the request must not be touched afterwards. */
#ifndef PHX_DAEMON_HTTP_H
#define PHX_DAEMON_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct event_base;
struct phx_http;
struct phx_http_request;

struct phx_http_options {
    const char *listen;            /* HOST:PORT, [IPv6]:PORT; port 0 picks a free one */
    const char *tls_cert_file;     /* PEM chain and key, or NULL for plain HTTP */
    const char *tls_key_file;
    size_t      body_max_bytes;    /* 413 above */
    size_t      header_max_bytes;  /* 400 above */
    size_t      pending_max_bytes; /* unread output of one stream before it is dropped */
    int32_t     requests_max;      /* open at once; 503 above */
    int32_t     connections_max;   /* open at once, idle ones too; 503 and the end above */
    int32_t     idle_timeout_s;    /* of a connection without traffic */
};

/* Called once per request, on the loop. */
typedef void (*phx_http_handler_fn)(void *ctx, struct phx_http_request *request);
typedef void (*phx_http_gone_fn)(void *ctx);

/* Binds and listens.  PHX_E_IO naming address and reason (a port in use); PHX_E_INVALID for an address
 * that is not loopback without TLS.  Owned: phx_http_close(). */
int  phx_http_open(struct event_base *base, const struct phx_http_options *options,
                   phx_http_handler_fn handler, void *ctx, struct phx_http **out,
                   struct phx_err *err) PHX_CHECKED;
/* Stops accepting; open requests go on. */
void phx_http_drain(struct phx_http *h);
void phx_http_close(struct phx_http *h);
/* "http://127.0.0.1:8080", with the real port.  Borrowed. */
const char *phx_http_url(const struct phx_http *h);
int32_t     phx_http_open_requests(const struct phx_http *h);

/* Facts of a request; borrowed until it ends. */
const char *phx_http_method(const struct phx_http_request *r); /* "GET", "POST", ... */
const char *phx_http_path(const struct phx_http_request *r);   /* decoded, without the query */
const char *phx_http_query(const struct phx_http_request *r);  /* raw, "" when absent */
const char *phx_http_header(const struct phx_http_request *r, const char *name); /* NULL when absent */
const char *phx_http_peer(const struct phx_http_request *r);   /* address of the client */
const char *phx_http_id(const struct phx_http_request *r);     /* random, sent as x-request-id */
const char *phx_http_body(const struct phx_http_request *r, size_t *size); /* NUL behind size */

/* Adds a header of the reply; before the reply starts. */
void phx_http_set_header(struct phx_http_request *r, const char *name, const char *value);
/* A whole reply; ends the request. */
void phx_http_reply(struct phx_http_request *r, int status, const char *content_type,
                    const void *body, size_t size);
/* A streamed reply.  write sends at once what the socket takes and keeps the rest; it answers PHX_E_LIMIT, and drops
 * the client (its gone callback runs from the loop), when more than pending_max_bytes wait unread. */
void phx_http_stream_start(struct phx_http_request *r, int status, const char *content_type);
int  phx_http_stream_write(struct phx_http_request *r, const void *data, size_t size);
size_t phx_http_stream_pending(const struct phx_http_request *r);
/* The reader is behind: more would only queue up here.  Hold back what can still be merged until fn(ctx) of
 * phx_http_on_drain() says that everything was taken. */
bool phx_http_stream_is_blocked(const struct phx_http_request *r);
void phx_http_on_drain(struct phx_http_request *r, void (*fn)(void *ctx), void *ctx);
/* Drops a client that does not read; its gone callback runs from the loop. */
void phx_http_stream_drop(struct phx_http_request *r);
/* The last bytes (or NULL, 0) and the end. */
void phx_http_stream_end(struct phx_http_request *r, const void *data, size_t size);
/* fn(ctx) runs once if the client leaves before the request has ended.  NULL clears it. */
void phx_http_on_gone(struct phx_http_request *r, phx_http_gone_fn fn, void *ctx);

#endif
