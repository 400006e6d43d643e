/* SPDX-License-Identifier: Apache-2.0
 * Budget sums: computed from the rows, and moved with each row that is added.  A sum that is not kept is not
 * wrong, only absent: it is folded again when somebody asks. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ledger/row.h"

static int read_fold(void *ctx, const struct phx_value *c, int n_columns)
{
    struct fold *f = ctx;

    (void)n_columns;
    f->posted = c[0].number;
    f->pending = c[1].number;
    f->touched_id = c[2].number;
    f->at_id = c[3].number;
    return 0;
}

/* A row counts in the window of its reserve, whenever it was written. */
int phx_budget_fold(struct phx_tx *tx, enum phx_budget_scope scope, const char *name, const char *window,
                    struct fold *out, struct phx_err *err)
{
    const struct phx_value scope_name = phx_value_text(phx_budget_scope_name(scope));
    int64_t                from_ns = 0, end_ns = 0;
    int                    rc = phx_window_range(window, &from_ns, &end_ns, err);
    const struct phx_value values[] = {
        phx_value_int(from_ns), phx_value_int(end_ns == 0 ? INT64_MAX : end_ns),
        scope_name,             phx_value_text(name),
        scope_name,             phx_value_text(name),
        scope_name,             phx_value_text(name),
        scope_name,
    };

    if (rc != 0)
        return rc;
    return phx_tx_exec(
        tx,
        "SELECT COALESCE(SUM(CASE WHEN l.kind IN ('commit', 'correct') THEN l.prompt + l.output ELSE 0 END),"
        " 0), COALESCE(SUM(CASE WHEN l.kind IS NULL THEN r.reserved ELSE 0 END), 0),"
        " COALESCE(MAX(COALESCE(l.id, r.id)), 0), (SELECT COALESCE(MAX(id), 0) FROM ledger)"
        " FROM ledger r LEFT JOIN ledger l ON l.lease = r.lease AND l.kind IN ('commit', 'void', 'correct')"
        " WHERE r.kind = 'reserve' AND r.at_ns >= ? AND r.at_ns < ? AND ((? = 'tenant' AND r.tenant = ?)"
        " OR (? = 'user' AND r.tenant || '/' || r.user = ?) OR (? = 'key' AND r.key_id = ?)"
        " OR ? = 'license')",
        values, sizeof(values) / sizeof(values[0]), read_fold, out, err);
}

/* ---- moving ------------------------------------------------------------------------------------------------ */

struct move {
    int64_t         posted, pending;
    int             n;
    struct phx_err *err;
};

static int check_sum(void *ctx, const struct phx_value *c, int n_columns)
{
    struct move *m = ctx;
    int64_t      posted, pending, both;

    (void)n_columns;
    m->n++;
    if (__builtin_add_overflow(c[0].number, m->posted, &posted) ||
        __builtin_add_overflow(c[1].number, m->pending, &pending) ||
        __builtin_add_overflow(posted, pending, &both))
        return phx_fail(m->err, PHX_E_INVALID, "budget: the sum of '%.40s' would overflow",
                        (const char *)c[2].data);
    if (posted < 0 || pending < 0)
        return phx_fail(m->err, PHX_E_STATE, "budget: the sum of '%.40s' is not that of its rows",
                        (const char *)c[2].data);
    return 0;
}

#define SUMS_OF_ROW                                                                                          \
    " time_window IN (?, ?, 'total') AND ((scope = 'tenant' AND name = ?) OR (scope = 'user' AND name = ?)" \
    " OR (scope = 'key' AND name = ?) OR (scope = 'license' AND name = ''))"

int phx_budget_move(struct phx_tx *tx, const struct phx_ledger_row *begin, int64_t posted, int64_t pending,
                    int64_t at_id, struct phx_err *err)
{
    char             day[WINDOW_BYTES], month[WINDOW_BYTES], user[PHX_BUDGET_NAME_BYTES];
    struct move      m = {posted, pending, 0, err};
    struct phx_value values[8];
    int              rc;

    phx_window_format(PHX_PERIOD_DAY, begin->at_ns, day);
    phx_window_format(PHX_PERIOD_MONTH, begin->at_ns, month);
    (void)snprintf(user, sizeof(user), "%s/%s", begin->tenant, begin->user);
    values[0] = phx_value_int(posted);
    values[1] = phx_value_int(pending);
    values[2] = phx_value_int(at_id);
    values[3] = phx_value_text(day);
    values[4] = phx_value_text(month);
    values[5] = phx_value_text(begin->tenant);
    values[6] = phx_value_text(user);
    values[7] = phx_value_text(begin->key_id);
    rc = phx_tx_exec(tx, "SELECT posted, pending, name FROM budget_sum WHERE" SUMS_OF_ROW, values + 3, 5,
                     check_sum, &m, err);
    if (rc != 0 || m.n == 0)
        return rc;
    return phx_tx_exec(tx,
                       "UPDATE budget_sum SET posted = posted + ?, pending = pending + ?, at_id = ?"
                       " WHERE" SUMS_OF_ROW,
                       values, 8, NULL, NULL, err);
}
