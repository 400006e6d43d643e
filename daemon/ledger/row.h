/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/ledger: how rows are read, what they must obey, and how budget sums follow them. */
#ifndef PHX_DAEMON_LEDGER_ROW_H
#define PHX_DAEMON_LEDGER_ROW_H

#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"

/* Columns in the order that phx_ledger_row_read() expects. */
#define PHX_LEDGER_COLUMNS                                                                                 \
    "id, kind, lease, at_ns, epoch, tenant, user, key_id, cost_centre, model, request_id, reserved,"       \
    " prompt, cached, output, reasoning, upper, compute_ms, queue_ms, first_ms, total_ms, outcome, ref, note"

/* The row borrows the columns. */
void phx_ledger_row_read(const struct phx_value *columns, struct phx_ledger_row *row);
/* Copies the texts into the arena. */
void phx_ledger_row_keep(struct phx_arena *arena, struct phx_ledger_row *row);

/* The reserve and the end of a lease (kind NONE where there is none), in the arena. */
int phx_ledger_ends(struct phx_tx *tx, const char *lease, struct phx_arena *arena,
                    struct phx_ledger_row *begin, struct phx_ledger_row *end, struct phx_err *err) PHX_CHECKED;

/* What a row must obey by itself, and against its reserve (which also lends it the texts it lacks). */
int phx_ledger_row_check(const struct phx_ledger_row *row, struct phx_err *err) PHX_CHECKED;
int phx_ledger_row_follow(const struct phx_ledger_row *begin, struct phx_ledger_row *row,
                          struct phx_err *err) PHX_CHECKED;

/* ---- windows ------------------------------------------------------------------------------------------ */

enum { WINDOW_BYTES = 12 };
void phx_window_format(enum phx_budget_period period, int64_t at_ns, char window[WINDOW_BYTES]);
/* Half-open; "total" is everything.  end_ns 0 = none. */
int phx_window_range(const char *window, int64_t *from_ns, int64_t *end_ns, struct phx_err *err) PHX_CHECKED;

/* ---- sums --------------------------------------------------------------------------------------------- */

struct fold {
    int64_t posted, pending, at_id; /* at_id: the last row of the ledger */
    int64_t touched_id;             /* the last row that counts in it */
};
/* From the rows themselves. */
int phx_budget_fold(struct phx_tx *tx, enum phx_budget_scope scope, const char *name, const char *window,
                    struct fold *out, struct phx_err *err) PHX_CHECKED;
/* Moves every cached sum that the reserve `begin` is in. */
int phx_budget_move(struct phx_tx *tx, const struct phx_ledger_row *begin, int64_t posted, int64_t pending,
                    int64_t at_id, struct phx_err *err) PHX_CHECKED;
enum phx_budget_scope  phx_budget_scope_parse(const char *name);
enum phx_budget_period phx_budget_period_parse(const char *name);

#endif
