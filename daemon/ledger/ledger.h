/* SPDX-License-Identifier: Apache-2.0
 * The ledger: rows are only added (save the running progress of an open request), integers only.  A request
 * has one `reserve` and, when it has ended, one `commit`; usage is a fold over the commits. */
#ifndef PHX_DAEMON_LEDGER_H
#define PHX_DAEMON_LEDGER_H

#include <stdint.h>

#include "daemon/keys/keys.h"
#include "rpc/base/err.h"

struct phx_store;
struct phx_tx;

struct phx_ledger_row {
    const char *receipt, *tenant, *user, *key_id, *model, *request_id;
    int64_t     at_ns, epoch;
    int64_t     reserved; /* prompt + the most it may produce */
    int64_t     prompt, cached, output, reasoning;
    int64_t     queue_ms, first_ms, total_ms;
    const char *finish;   /* "" while reserved */
};

/* kind: "reserve", "progress" (one per receipt, replaced), "commit". */
int phx_ledger_put(struct phx_tx *tx, const char *kind, const struct phx_ledger_row *row,
                   struct phx_err *err) PHX_CHECKED;

/* Every reserve without a commit; output and reasoning are what progress has proven.  fn runs inside the
 * transaction; the row is borrowed. */
typedef int (*phx_ledger_row_fn)(void *ctx, const struct phx_ledger_row *row);
int phx_ledger_open_rows(struct phx_tx *tx, phx_ledger_row_fn fn, void *ctx, struct phx_err *err)
    PHX_CHECKED;

struct phx_usage_row {
    char    tenant[PHX_KEY_NAME_MAX + 1], user[PHX_KEY_NAME_MAX + 1], model[257];
    int64_t requests, prompt, cached, output, reasoning;
};
/* Sums of a period "YYYY-MM" (UTC) by tenant, user and model.  At most max rows into out; returns how many
 * there are, or a negative code. */
int phx_ledger_report(struct phx_store *store, const char *period, struct phx_usage_row *out,
                      size_t max, struct phx_err *err);

#endif
