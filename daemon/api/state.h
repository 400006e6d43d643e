/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/api: the server's state and what its files call of each other. */
#ifndef PHX_DAEMON_API_STATE_H
#define PHX_DAEMON_API_STATE_H

#include "daemon/api/api.h"
#include "daemon/api/choice.h"
#include "daemon/daemon.h"
#include "daemon/http/http.h"
#include "daemon/keys/keys.h"

struct event;
struct generation;
struct phx_series;
struct phx_work;

struct phx_api {
    struct phx_daemon *d;
    struct phx_http   *http;
    size_t             body_max_bytes;
    struct generation *first; /* open generations, a list */
    struct generation *first_dirty;
    struct event      *flush; /* runs when the loop has taken all tokens that are there */
    struct phx_series *inter_token; /* of the metrics, for each token */
    struct phx_buf     frames; /* of one connection, while they are written */
    size_t             pending_max_bytes;
    struct phx_work       *work;  /* tokenizes large prompts */
    struct phx_text_cache *cache;
    int32_t            n_open;
    bool               is_draining;
};

/* Ends the request with OpenAI's error object; retry_after_ms < 0: no Retry-After header. */
void phx_api_fail(struct phx_http_request *r, const struct phx_err *err, int64_t retry_after_ms);
/* The object alone, for an error inside a stream. */
void phx_api_put_error(struct phx_buf *out, const struct phx_err *err);

/* Takes over the request. */
void phx_api_generate(struct phx_api *a, struct phx_http_request *r, enum phx_api_kind kind,
                      const struct phx_identity *who);
/* Sends what marked generations have (frames.c). */
void phx_api_flush(struct phx_api *a);
/* Cancels every open generation. */
void phx_api_cancel_all(struct phx_api *a);

/* Counts the end of a request: outcome is an HTTP status class or finish word. */
void phx_api_count(struct phx_api *a, const char *tenant, const char *outcome);

#endif
