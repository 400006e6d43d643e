/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ledger/ledger.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/store/store.h"

int phx_ledger_put(struct phx_tx *tx, const char *kind, const struct phx_ledger_row *r,
                   struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_text(kind),         phx_value_text(r->receipt),  phx_value_int(r->at_ns),
        phx_value_int(r->epoch),      phx_value_text(r->tenant),   phx_value_text(r->user),
        phx_value_text(r->key_id),    phx_value_text(r->model),    phx_value_text(r->request_id),
        phx_value_int(r->reserved),   phx_value_int(r->prompt),    phx_value_int(r->cached),
        phx_value_int(r->output),     phx_value_int(r->reasoning), phx_value_int(r->queue_ms),
        phx_value_int(r->first_ms),   phx_value_int(r->total_ms),  phx_value_text(r->finish),
    };

    return phx_tx_exec(tx,
                       "INSERT INTO ledger(kind, receipt, at_ns, epoch, tenant, user, key_id, model,"
                       " request_id, reserved, prompt, cached, output, reasoning, queue_ms, first_ms,"
                       " total_ms, finish) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                       " ON CONFLICT(kind, receipt) DO UPDATE SET output = excluded.output,"
                       " reasoning = excluded.reasoning WHERE kind = 'progress'",
                       values, 18, NULL, NULL, err);
}

struct walk {
    phx_ledger_row_fn fn;
    void             *ctx;
};

static const char *text(const struct phx_value *v)
{
    return v->kind == PHX_VALUE_TEXT ? v->data : "";
}

static int read_open(void *ctx, const struct phx_value *c, int n_columns)
{
    const struct walk    *w = ctx;
    struct phx_ledger_row row = {
        .receipt = text(&c[0]),
        .tenant = text(&c[1]),
        .user = text(&c[2]),
        .key_id = text(&c[3]),
        .model = text(&c[4]),
        .request_id = text(&c[5]),
        .epoch = c[6].number,
        .reserved = c[7].number,
        .prompt = c[8].number,
        .output = c[9].number,
        .reasoning = c[10].number,
        .finish = "",
    };

    (void)n_columns;
    return w->fn(w->ctx, &row);
}

int phx_ledger_open_rows(struct phx_tx *tx, phx_ledger_row_fn fn, void *ctx, struct phx_err *err)
{
    struct walk w = {fn, ctx};

    return phx_tx_exec(tx,
                       "SELECT r.receipt, r.tenant, r.user, r.key_id, r.model, r.request_id, r.epoch,"
                       " r.reserved, r.prompt, COALESCE(p.output, 0), COALESCE(p.reasoning, 0)"
                       " FROM ledger r LEFT JOIN ledger p ON p.receipt = r.receipt AND"
                       " p.kind = 'progress' WHERE r.kind = 'reserve' AND NOT EXISTS"
                       " (SELECT 1 FROM ledger c WHERE c.receipt = r.receipt AND c.kind = 'commit')",
                       NULL, 0, read_open, &w, err);
}

struct report {
    int64_t               from_ns, to_ns;
    struct phx_usage_row *out;
    size_t                max, n;
};

static int read_sum(void *ctx, const struct phx_value *c, int n_columns)
{
    struct report *r = ctx;

    (void)n_columns;
    if (r->n < r->max) {
        struct phx_usage_row *row = &r->out[r->n];

        (void)snprintf(row->tenant, sizeof(row->tenant), "%s", text(&c[0]));
        (void)snprintf(row->user, sizeof(row->user), "%s", text(&c[1]));
        (void)snprintf(row->model, sizeof(row->model), "%s", text(&c[2]));
        row->requests = c[3].number;
        row->prompt = c[4].number;
        row->cached = c[5].number;
        row->output = c[6].number;
        row->reasoning = c[7].number;
    }
    r->n++;
    return 0;
}

static int sum_rows(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct report         *r = ctx;
    const struct phx_value values[] = {phx_value_int(r->from_ns), phx_value_int(r->to_ns)};

    return phx_tx_exec(tx,
                       "SELECT tenant, user, model, COUNT(*), SUM(prompt), SUM(cached), SUM(output),"
                       " SUM(reasoning) FROM ledger WHERE kind = 'commit' AND at_ns >= ? AND at_ns < ?"
                       " GROUP BY tenant, user, model ORDER BY tenant, user, model",
                       values, 2, read_sum, r, err);
}

int phx_ledger_report(struct phx_store *store, const char *period, struct phx_usage_row *out,
                      size_t max, struct phx_err *err)
{
    struct report r = {.out = out, .max = max};
    struct tm     tm = {0};
    int           year, month, used = 0, rc;

    if (sscanf(period, "%4d-%2d%n", &year, &month, &used) != 2 || used != 7 || period[7] != '\0' ||
        year < 1970 || month < 1 || month > 12)
        return phx_fail(err, PHX_E_INVALID, "period: '%.20s' is not YYYY-MM", period);
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    tm.tm_mday = 1;
    r.from_ns = (int64_t)timegm(&tm) * 1000000000;
    tm.tm_mon = month; /* timegm carries December over */
    r.to_ns = (int64_t)timegm(&tm) * 1000000000;
    rc = phx_store_run(store, sum_rows, &r, err);
    return rc == 0 ? (int)r.n : rc;
}
