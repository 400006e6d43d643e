/* SPDX-License-Identifier: Apache-2.0
 * The rows that reports are made of, and how many leases were open at once. */
#include <string.h>

#include "daemon/ledger/row.h"

struct walk {
    phx_ledger_row_fn    fn;
    void                *ctx;
    enum phx_usage_class usage_class;
};

enum { N_COLUMNS = 24 };

static bool is_wanted(const struct walk *w, const struct phx_ledger_row *row, int64_t commit_ns)
{
    char mine[8], its[8];

    if (w->usage_class == PHX_USAGE_ALL)
        return true;
    if (row->kind == PHX_LEDGER_COMMIT || w->usage_class == PHX_USAGE_COMMITS)
        return row->kind == PHX_LEDGER_COMMIT && w->usage_class == PHX_USAGE_COMMITS;
    phx_period_format(row->at_ns, mine);
    phx_period_format(commit_ns, its);
    return (strcmp(mine, its) != 0) == (w->usage_class == PHX_USAGE_CORRECTIONS_EARLIER);
}

static int read_row(void *ctx, const struct phx_value *columns, int n_columns)
{
    const struct walk    *w = ctx;
    struct phx_ledger_row row;

    (void)n_columns;
    phx_ledger_row_read(columns, &row);
    return is_wanted(w, &row, columns[N_COLUMNS].number) ? w->fn(w->ctx, &row) : 0;
}

static int64_t or_max(int64_t limit)
{
    return limit == 0 ? INT64_MAX : limit;
}

#define SELECT_ROWS                                                                                \
    "SELECT " PHX_LEDGER_COLUMNS ", CASE WHEN kind = 'correct' THEN"                               \
    " (SELECT c.at_ns FROM ledger c WHERE c.id = ledger.ref) ELSE at_ns END"                       \
    " FROM ledger WHERE at_ns >= ? AND at_ns < ? AND id < ? AND id >= ?"                           \
    " AND kind IN ('commit', 'correct') AND (? IS NULL OR tenant = ?)"                             \
    " AND (? IS NULL OR user = ?) AND (? IS NULL OR model = ?)"                                    \
    " AND (? IS NULL OR cost_centre = ?)"

int phx_ledger_usage_rows(struct phx_tx *tx, const struct phx_usage_filter *f, phx_ledger_row_fn fn,
                          void *ctx, struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_int(f->from_ns),   phx_value_int(or_max(f->to_ns)), phx_value_int(or_max(f->below_id)),
        phx_value_int(f->from_id),
        phx_value_text(f->tenant),   phx_value_text(f->tenant),       phx_value_text(f->user),
        phx_value_text(f->user),     phx_value_text(f->model),        phx_value_text(f->model),
        phx_value_text(f->cost_centre), phx_value_text(f->cost_centre),
    };
    struct walk w = {fn, ctx, f->usage_class};

    return phx_tx_exec(tx, f->from_id > 0 ? SELECT_ROWS " ORDER BY id" : SELECT_ROWS " ORDER BY at_ns, id",
                       values, sizeof(values) / sizeof(values[0]), read_row, &w, err);
}

static int read_number(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

int phx_ledger_last_id(struct phx_tx *tx, int64_t *out, struct phx_err *err)
{
    return phx_tx_exec(tx, "SELECT COALESCE(MAX(id), 0) FROM ledger", NULL, 0, read_number, out, err);
}

/* ---- peak ------------------------------------------------------------------------------------------------- */

struct peak {
    int64_t n, most;
};

static int count_edge(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct peak *p = ctx;

    (void)n_columns;
    p->n += columns[0].number;
    p->most = p->n > p->most ? p->n : p->most;
    return 0;
}

int phx_ledger_peak(struct phx_tx *tx, int64_t from_ns, int64_t to_ns, int64_t below_id, int64_t *out,
                    struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_int(from_ns), phx_value_int(to_ns),
                                       phx_value_int(or_max(below_id))};
    struct peak            p = {0, 0};
    int                    rc;

    /* open when the period begins: began before it and did not end before it */
    rc = phx_tx_exec(tx,
                     "SELECT COALESCE(SUM(CASE kind WHEN 'reserve' THEN 1 ELSE -1 END), 0) FROM ledger"
                     " WHERE at_ns < ? AND id < ? AND kind IN ('reserve', 'commit', 'void')",
                     (const struct phx_value[]){values[0], values[2]}, 2, count_edge, &p, err);
    if (rc == 0)
        rc = phx_tx_exec(tx,
                         "SELECT CASE kind WHEN 'reserve' THEN 1 ELSE -1 END FROM ledger WHERE at_ns >= ?"
                         " AND at_ns < ? AND id < ? AND kind IN ('reserve', 'commit', 'void')"
                         " ORDER BY at_ns, id",
                         values, 3, count_edge, &p, err);
    *out = p.most;
    return rc;
}
