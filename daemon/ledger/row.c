/* SPDX-License-Identifier: Apache-2.0
 * Adding a row: its place in the life of a lease, then the row, then the sums. */
#include "daemon/ledger/row.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "rpc/base/mem.h"

static int read_id(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

static int insert_row(struct phx_tx *tx, struct phx_ledger_row *r, struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_text(phx_ledger_kind_name(r->kind)),
        phx_value_text(r->lease),
        phx_value_int(r->at_ns),
        phx_value_int(r->epoch),
        phx_value_text(r->tenant),
        phx_value_text(r->user),
        phx_value_text(r->key_id),
        phx_value_text(r->cost_centre),
        phx_value_text(r->model),
        phx_value_text(r->request_id),
        phx_value_int(r->reserved),
        phx_value_int(r->prompt),
        phx_value_int(r->cached),
        phx_value_int(r->output),
        phx_value_int(r->reasoning),
        phx_value_int(r->upper),
        phx_value_int(r->compute_ms),
        phx_value_int(r->queue_ms),
        phx_value_int(r->first_ms),
        phx_value_int(r->total_ms),
        phx_value_text(r->outcome != NULL ? r->outcome : ""),
        phx_value_int(r->ref),
        phx_value_text(r->note != NULL ? r->note : ""),
    };

    return phx_tx_exec(tx,
                       "INSERT INTO ledger(kind, lease, at_ns, epoch, tenant, user, key_id, cost_centre,"
                       " model, request_id, reserved, prompt, cached, output, reasoning, upper, compute_ms,"
                       " queue_ms, first_ms, total_ms, outcome, ref, note)"
                       " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                       " RETURNING id",
                       values, sizeof(values) / sizeof(values[0]), read_id, &r->id, err);
}

/* ---- the life of a lease ---------------------------------------------------------------------------------- */

static int put_reserve(struct phx_tx *tx, struct phx_ledger_row *row, struct phx_err *err)
{
    int rc = insert_row(tx, row, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "INSERT INTO ledger_open(lease, id, epoch) VALUES(?, ?, ?)",
                         (const struct phx_value[]){phx_value_text(row->lease), phx_value_int(row->id),
                                                    phx_value_int(row->epoch)},
                         3, NULL, NULL, err);
    return rc == 0 ? phx_budget_move(tx, row, 0, row->reserved, row->id, err) : rc;
}

static int put_end(struct phx_tx *tx, const struct phx_ledger_row *begin, struct phx_ledger_row *row,
                   struct phx_err *err)
{
    const struct phx_value value = phx_value_text(row->lease);
    int                    rc = insert_row(tx, row, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "DELETE FROM ledger_open WHERE lease = ?", &value, 1, NULL, NULL, err);
    if (rc != 0)
        return rc;
    return phx_budget_move(tx, begin, row->kind == PHX_LEDGER_COMMIT ? row->prompt + row->output : 0,
                           -begin->reserved, row->id, err);
}

enum { N_DIMENSIONS = 6 };

static int read_dimensions(void *ctx, const struct phx_value *columns, int n_columns)
{
    int64_t *sums = ctx;

    for (int i = 0; i < n_columns; i++)
        sums[i] = columns[i].number;
    return 0;
}

/* Corrected numbers are still numbers that a request can have. */
static int check_corrected(struct phx_tx *tx, const struct phx_ledger_row *row, struct phx_err *err)
{
    static const char *const names[N_DIMENSIONS] = {"prompt",    "cached",     "output",
                                                    "reasoning", "compute_ms", "queue_ms"};
    const int64_t            deltas[N_DIMENSIONS] = {row->prompt,    row->cached,     row->output,
                                                     row->reasoning, row->compute_ms, row->queue_ms};
    const struct phx_value   value = phx_value_text(row->lease);
    int64_t                  sums[N_DIMENSIONS] = {0};
    int                      rc;

    rc = phx_tx_exec(tx,
                     "SELECT SUM(prompt), SUM(cached), SUM(output), SUM(reasoning), SUM(compute_ms),"
                     " SUM(queue_ms) FROM ledger WHERE lease = ? AND kind IN ('commit', 'correct')",
                     &value, 1, read_dimensions, sums, err);
    for (int i = 0; i < N_DIMENSIONS && rc == 0; i++) {
        sums[i] += deltas[i]; /* each row is within 2^48 */
        if (sums[i] < 0 || sums[i] > PHX_LEDGER_COUNT_MAX)
            rc = phx_fail(err, PHX_E_INVALID, "%s: corrected by %" PRId64 " it would be %" PRId64, names[i],
                          deltas[i], sums[i]);
    }
    if (rc == 0 && (sums[1] > sums[0] || sums[3] > sums[2]))
        rc = phx_fail(err, PHX_E_INVALID, "correction: cached would be above prompt, or reasoning above output");
    return rc;
}

static int put_correct(struct phx_tx *tx, const struct phx_ledger_row *begin,
                       const struct phx_ledger_row *end, struct phx_ledger_row *row, struct phx_err *err)
{
    int rc;

    if (end->kind != PHX_LEDGER_COMMIT)
        return phx_fail(err, PHX_E_STATE, "lease %.40s: only a commit can be corrected", row->lease);
    if (row->ref != 0 && row->ref != end->id)
        return phx_fail(err, PHX_E_INVALID, "ref: the commit of lease %.40s is row %" PRId64, row->lease,
                        end->id);
    row->ref = end->id;
    rc = check_corrected(tx, row, err);
    if (rc == 0)
        rc = insert_row(tx, row, err);
    return rc == 0 ? phx_budget_move(tx, begin, row->prompt + row->output, 0, row->id, err) : rc;
}

static int put_after(struct phx_tx *tx, const struct phx_ledger_row *begin, const struct phx_ledger_row *end,
                     struct phx_ledger_row *row, struct phx_err *err)
{
    int rc = phx_ledger_row_follow(begin, row, err);

    if (rc != 0 || row->kind == PHX_LEDGER_CORRECT)
        return rc == 0 ? put_correct(tx, begin, end, row, err) : rc;
    if (end->kind != PHX_LEDGER_NONE)
        return phx_fail(err, PHX_E_STATE, "lease %.40s has ended already (%s)", row->lease,
                        phx_ledger_kind_name(end->kind));
    return row->kind == PHX_LEDGER_PROGRESS ? insert_row(tx, row, err) : put_end(tx, begin, row, err);
}

static int put_in_order(struct phx_tx *tx, const struct phx_ledger_row *begin,
                        const struct phx_ledger_row *end, struct phx_ledger_row *row, struct phx_err *err)
{
    bool is_begun = begin->kind != PHX_LEDGER_NONE;

    if (row->kind == PHX_LEDGER_RESERVE)
        return is_begun ? phx_fail(err, PHX_E_STATE, "lease %.40s is reserved already", row->lease)
                        : put_reserve(tx, row, err);
    return is_begun ? put_after(tx, begin, end, row, err)
                    : phx_fail(err, PHX_E_STATE, "lease %.40s was never reserved", row->lease);
}

int phx_ledger_put(struct phx_tx *tx, struct phx_ledger_row *row, struct phx_err *err)
{
    struct phx_ledger_row begin, end, full = *row; /* gets texts that end with the arena */
    struct phx_arena     *arena;
    int                   rc = phx_ledger_row_check(row, err);

    if (rc != 0)
        return rc;
    arena = phx_arena_create();
    rc = phx_ledger_ends(tx, row->lease, arena, &begin, &end, err);
    if (rc == 0)
        rc = put_in_order(tx, &begin, &end, &full, err);
    row->id = full.id;
    row->ref = full.ref;
    phx_arena_destroy(arena);
    return rc;
}
