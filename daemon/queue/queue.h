/* SPDX-License-Identifier: Apache-2.0
 * The engine as the rest of the daemon sees it: sequences in, tokens out.  Waiting sequences are ordered by
 * tenant fairness and priority, sent to a replica, and resent elsewhere when that replica dies: their
 * tokens go on without loss or doubling. */
#ifndef PHX_DAEMON_QUEUE_H
#define PHX_DAEMON_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"
#include "rpc/rpc.h"

struct phx_engine;
struct phx_engine_seq;
struct phx_fleet;
struct phx_metrics;

struct phx_engine_options {
    int32_t max_waiting;            /* sequences queued in the daemon */
    int32_t max_waiting_per_tenant;
    int32_t max_resumes;            /* a sequence that loses its replica more often ends with an error */
    struct phx_metrics *metrics;    /* or NULL */
    uint8_t cache_secret[32];       /* tenants' prefix-cache keys are made from it */
};

struct phx_engine_request {
    const char    *tenant;
    const int32_t *tokens; /* copied */
    int32_t        n_tokens;
    int32_t        max_new;
    int32_t        n_check;  /* the last so many tokens are an answer to be checked (phx_submit); max_new is then
                              * nothing.  0 = generate */
    int32_t        priority; /* among the tenant's own */
    const struct phx_sampling *sampling; /* copied, arrays too; seed and stop ids are final */
};

struct phx_engine_callbacks { /* on the loop; the sequence is gone when on_end returns */
    void (*on_token)(void *ctx, const struct phx_token_out *token);
    /* finish STOP, LENGTH, CANCELLED or ERROR (err tells why, else NULL) */
    void (*on_end)(void *ctx, enum phx_finish finish, const struct phx_err *err);
};

struct phx_engine_facts {
    bool    is_ready;      /* at least one replica takes sequences */
    int32_t vocab_size, max_context; /* 0 until one replica was ready */
    int32_t n_waiting, n_running;
    int64_t retry_after_ms; /* an estimate for refused clients */
};

int  phx_engine_open(struct phx_fleet *fleet, const struct phx_engine_options *options,
                     struct phx_engine **out, struct phx_err *err) PHX_CHECKED;
void phx_engine_close(struct phx_engine *e); /* ends what is open with PHX_E_CANCELLED */

/* PHX_E_BUSY when the queue is full (facts tell when to retry), PHX_E_INVALID when it can never run. */
int phx_engine_submit(struct phx_engine *e, const struct phx_engine_request *request,
                      const struct phx_engine_callbacks *callbacks, void *ctx,
                      struct phx_engine_seq **out, struct phx_err *err) PHX_CHECKED;
/* on_end follows (CANCELLED), later on the loop. */
void phx_engine_cancel(struct phx_engine_seq *seq);
void phx_engine_facts(const struct phx_engine *e, struct phx_engine_facts *facts);

#endif
