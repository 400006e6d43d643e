/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/http: the two structs that server.c and request.c share. */
#ifndef PHX_DAEMON_HTTP_REQUEST_H
#define PHX_DAEMON_HTTP_REQUEST_H

#include <event2/event.h>
#include <event2/http.h>
#include <event2/listener.h>

#include "daemon/http/http.h"

struct phx_http_limit;

struct phx_http {
    struct event_base      *base;
    struct evhttp          *evhttp;
    struct evconnlistener  *listener; /* owned by evhttp once bound */
    struct event           *resume;   /* accepts again after running out of descriptors */
    void                   *tls;      /* SSL_CTX, or NULL */
    struct phx_http_options options;
    phx_http_handler_fn     handler;
    void                   *ctx;
    char                   *url;
    struct phx_http_limit  *limit;
    int32_t                 n_requests;
    bool                    is_draining;
};

/* limit.c: closes the door at connections_max. */
int  phx_http_limit_open(struct phx_http *h, struct phx_http_limit **out, struct phx_err *err) PHX_CHECKED;
void phx_http_limit_close(struct phx_http_limit *l); /* NULL is allowed */
void phx_http_limit_drain(struct phx_http_limit *l);
void phx_http_limit_accepted(struct phx_http_limit *l); /* one more */

struct phx_http_request {
    struct phx_http       *server;
    struct evhttp_request *evreq;
    char                  *path;
    char                   id[33];
    char                   peer[64];
    const char            *body; /* in evhttp's input buffer, NUL behind it */
    size_t                 body_size;
    bool                   is_streaming;
    bool                   has_queued; /* evhttp knows on_drained */
    bool                   is_dropped; /* over its output limit: the close is on its way */
    phx_http_gone_fn       gone, drain;
    void                  *gone_ctx, *drain_ctx;
};

/* Wraps a checked evhttp request and starts to watch for the client leaving. */
struct phx_http_request *phx_http_request_create(struct phx_http *h, struct evhttp_request *evreq,
                                                 char *path);

#endif
