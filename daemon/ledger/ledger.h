/* SPDX-License-Identifier: Apache-2.0
 * The ledger: one row per request, RESERVED before its first token and settled exactly once.  All
 * functions with a tx run inside a store transaction, so that ledger and audit log can never disagree. */
#ifndef PHX_DAEMON_LEDGER_H
#define PHX_DAEMON_LEDGER_H

#include <stdint.h>

#include "daemon/store/store.h"

struct phx_ledger_reserve {
    const char *request_id, *receipt_id;
    const char *tenant, *user, *key_id, *model, *endpoint;
    const char *boot_id;    /* of the daemon's run: a row of another run that is open was cut by a crash */
    int64_t     at_wall_ns; /* the period YYYY-MM is taken from it (UTC) */
    int64_t     n_prompt;   /* counted tokens of the prompt */
    int64_t     max_output; /* upper bound over all choices */
    const uint8_t *salt;    /* 32 bytes: of the commitments in the audit log */
};

struct phx_ledger_usage {
    const char *request_id;
    const char *outcome; /* "stop", "length", "cancelled", "crash", ... */
    int64_t     at_wall_ns;
    int64_t     prompt_tokens, cached_tokens, output_tokens, reasoning_tokens;
    int64_t     queue_ms, first_token_ms, total_ms;
};

/* PHX_E_STATE when the request id exists. */
int phx_ledger_reserve(struct phx_tx *tx, const struct phx_ledger_reserve *r,
                       struct phx_err *err) PHX_CHECKED;
/* Tokens proven so far, for the settlement after a crash.  Never goes down; no effect once settled. */
int phx_ledger_progress(struct phx_tx *tx, const char *request_id, int64_t output_tokens,
                        int64_t reasoning_tokens, struct phx_err *err) PHX_CHECKED;
/* PHX_E_STATE when it is settled already or was never reserved. */
int phx_ledger_commit(struct phx_tx *tx, const struct phx_ledger_usage *u,
                      struct phx_err *err) PHX_CHECKED;

/* An open row of an earlier run. */
struct phx_ledger_open_row {
    char    request_id[65], receipt_id[65];
    int64_t n_prompt, max_output, progress_output, progress_reasoning;
};
/* The oldest open row whose boot id differs; PHX_E_NOTFOUND when there is none. */
int phx_ledger_next_open(struct phx_tx *tx, const char *boot_id, struct phx_ledger_open_row *out,
                         struct phx_err *err) PHX_CHECKED;

/* ---- reports (phx_store_read) --------------------------------------------------------------- */

struct phx_ledger_total { /* of one tenant, user and model in a period */
    const char *tenant, *user, *model; /* borrowed inside the callback */
    int64_t     requests, open, crashed;
    int64_t     prompt_tokens, cached_tokens, output_tokens, reasoning_tokens, total_ms;
};
typedef void (*phx_ledger_total_fn)(void *ctx, const struct phx_ledger_total *total);
/* period "YYYY-MM"; PHX_E_INVALID for another form. */
int phx_ledger_report(struct phx_store *s, const char *period, phx_ledger_total_fn fn, void *ctx,
                      struct phx_err *err) PHX_CHECKED;

#endif
