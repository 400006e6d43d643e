/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/ctl: HTTP load.  Many connections in one thread, each with one request at a time; what came
 * back is counted, never kept. */
#ifndef PHX_DAEMON_CTL_LOAD_H
#define PHX_DAEMON_CTL_LOAD_H

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

enum { PHX_LOAD_CONNECTIONS_MAX = 8192, PHX_HISTOGRAM_BUCKETS = 64 * 64 };

/* Durations with 1.6 % resolution.  Zero-initialised. */
struct phx_histogram {
    uint32_t count[PHX_HISTOGRAM_BUCKETS];
    uint64_t n;
    double   sum_ns;
    int64_t  max_ns;
};
void   phx_histogram_add(struct phx_histogram *h, int64_t ns);
double phx_histogram_ms(const struct phx_histogram *h, double quantile); /* 0 when empty */

struct phx_load_options {
    const char *host, *port; /* of the URL */
    const char *path;        /* prefix before /v1, "" for none */
    bool        is_tls;
    const char *ca_file;     /* NULL = the system's */
    const char *key, *model;
    bool        is_chat, is_stream;
    bool        ends_early;  /* the model may stop by itself; else max_tokens are asked for in full */
    int32_t     prompt_tokens, output_tokens;
    int32_t     connections; /* closed loop: always so many requests; open loop: most at once */
    double      rate;        /* requests per second; 0 = closed loop */
    double      duration_s;
    int64_t     requests_max; /* 0 = no limit but the time */
};

struct phx_load_result {
    double               seconds;
    int64_t              n_sent, n_answered, n_failed, n_late; /* late: no connection was free when it was due */
    int64_t              n_tokens, n_prompt_tokens; /* as the server's usage says */
    int64_t              n_events;                  /* stream frames with text */
    int64_t              n_bytes;
    char                 first_failure[300];
    struct phx_histogram ttft, gap, whole, per_token; /* per_token: mean of a request behind its first one */
};

/* Called about twice a second with what is known so far. */
typedef void (*phx_load_progress_fn)(void *ctx, const struct phx_load_result *so_far);

/* Runs it.  PHX_E_IO when the server cannot be reached or goes away for good, PHX_E_INVALID for options. */
int phx_load_run(const struct phx_load_options *options, phx_load_progress_fn fn, void *ctx,
                 struct phx_load_result *out, struct phx_err *err) PHX_CHECKED;

/* ---- one connection (load_conn.c) ------------------------------------------------------------------------ */

enum phx_load_state { PHX_LOAD_MORE, PHX_LOAD_DONE, PHX_LOAD_CLOSED, PHX_LOAD_AGAIN };

struct phx_load_conn {
    const struct phx_load_options *options;
    struct phx_load_result        *result;
    int                            fd;
    SSL                           *ssl;
    struct phx_buf                 in, body; /* raw bytes; unchunked bytes not looked at yet */
    int64_t                        number, due_ns, first_ns, last_ns;
    int64_t                        n_answers; /* of this connection */
    int64_t                        n_tokens;
    int64_t                        left;     /* of the chunk or the body; -1 = until the end */
    int                            status;
    bool                           is_busy, has_head, is_chunked, is_failed;
};

/* Connects (and shakes hands), then becomes non-blocking. */
int  phx_load_conn_open(struct phx_load_conn *c, SSL_CTX *tls, struct phx_err *err) PHX_CHECKED;
void phx_load_conn_close(struct phx_load_conn *c);
/* Sends request number `number`, which was due at due_ns. */
int phx_load_conn_send(struct phx_load_conn *c, int64_t number, int64_t due_ns, struct phx_err *err) PHX_CHECKED;
/* Reads what is there and counts it.  DONE: the answer is whole, the connection is free again.  AGAIN: a connection
 * that was kept alive was closed before a byte of the answer: its request belongs on a new one. */
enum phx_load_state phx_load_conn_read(struct phx_load_conn *c, bool may_reuse[1]);

#endif
