/* SPDX-License-Identifier: Apache-2.0
 * Reading rows: one lease, the open ones, a range. */
#include <string.h>

#include "daemon/ledger/row.h"
#include "rpc/base/mem.h"

static const char *text(const struct phx_value *v)
{
    return v->kind == PHX_VALUE_TEXT ? v->data : "";
}

static enum phx_ledger_kind parse_kind(const char *name)
{
    for (int k = PHX_LEDGER_RESERVE; k <= PHX_LEDGER_CORRECT; k++)
        if (strcmp(name, phx_ledger_kind_name(k)) == 0)
            return k;
    return PHX_LEDGER_NONE;
}

void phx_ledger_row_read(const struct phx_value *c, struct phx_ledger_row *row)
{
    *row = (struct phx_ledger_row){
        .id = c[0].number,
        .kind = parse_kind(text(&c[1])),
        .lease = text(&c[2]),
        .at_ns = c[3].number,
        .epoch = c[4].number,
        .tenant = text(&c[5]),
        .user = text(&c[6]),
        .key_id = text(&c[7]),
        .cost_centre = text(&c[8]),
        .model = text(&c[9]),
        .request_id = text(&c[10]),
        .reserved = c[11].number,
        .prompt = c[12].number,
        .cached = c[13].number,
        .output = c[14].number,
        .reasoning = c[15].number,
        .upper = c[16].number,
        .compute_ms = c[17].number,
        .queue_ms = c[18].number,
        .first_ms = c[19].number,
        .total_ms = c[20].number,
        .outcome = text(&c[21]),
        .ref = c[22].number,
        .note = text(&c[23]),
    };
}

void phx_ledger_row_keep(struct phx_arena *arena, struct phx_ledger_row *row)
{
    const char **texts[] = {&row->lease, &row->tenant,     &row->user,    &row->key_id, &row->cost_centre,
                            &row->model, &row->request_id, &row->outcome, &row->note};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        *texts[i] = phx_arena_strdup(arena, *texts[i]);
}

/* ---- one lease ------------------------------------------------------------------------------------------ */

struct found {
    struct phx_arena      *arena;
    struct phx_ledger_row *begin, *end;
};

static int read_found(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct found         *f = ctx;
    struct phx_ledger_row row;

    (void)n_columns;
    phx_ledger_row_read(columns, &row);
    phx_ledger_row_keep(f->arena, &row);
    *(row.kind == PHX_LEDGER_RESERVE ? f->begin : f->end) = row;
    return 0;
}

int phx_ledger_ends(struct phx_tx *tx, const char *lease, struct phx_arena *arena,
                    struct phx_ledger_row *begin, struct phx_ledger_row *end, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(lease), phx_value_text(lease)};
    struct found           f = {arena, begin, end};

    *begin = *end = (struct phx_ledger_row){0};
    return phx_tx_exec(tx,
                       "SELECT " PHX_LEDGER_COLUMNS " FROM ledger WHERE lease = ? AND kind = 'reserve'"
                       " UNION ALL SELECT " PHX_LEDGER_COLUMNS
                       " FROM ledger WHERE lease = ? AND kind IN ('commit', 'void')",
                       values, 2, read_found, &f, err);
}

static int read_proven(void *ctx, const struct phx_value *c, int n_columns)
{
    struct phx_ledger_row *begin = ctx;

    (void)n_columns;
    begin->output = c[0].number;
    begin->reasoning = c[1].number;
    return 0;
}

int phx_ledger_find(struct phx_tx *tx, const char *lease, struct phx_arena *arena,
                    struct phx_ledger_row *begin, struct phx_ledger_row *end, struct phx_err *err)
{
    const struct phx_value value = phx_value_text(lease);
    int                    rc = phx_ledger_ends(tx, lease, arena, begin, end, err);

    if (rc == 0 && begin->kind == PHX_LEDGER_NONE)
        rc = phx_fail(err, PHX_E_NOTFOUND, "lease %.40s is not in the ledger", lease);
    return rc != 0 ? rc /* counts only grow: the largest seen is proven */
                   : phx_tx_exec(tx,
                                 "SELECT COALESCE(MAX(output), 0), COALESCE(MAX(reasoning), 0) FROM ledger"
                                 " WHERE lease = ? AND kind = 'progress'",
                                 &value, 1, read_proven, begin, err);
}

/* ---- open ones -------------------------------------------------------------------------------------------- */

struct open_list {
    struct phx_arena *arena;
    const char      **leases;
    size_t            n, capacity;
};

static int collect_open(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct open_list *l = ctx;

    (void)n_columns;
    if (l->n == l->capacity) {
        l->capacity = l->capacity * 2 + 64;
        l->leases = phx_mem_realloc(l->leases, l->capacity, sizeof(*l->leases));
    }
    l->leases[l->n++] = phx_arena_strdup(l->arena, text(&columns[0]));
    return 0;
}

int phx_ledger_open_rows(struct phx_tx *tx, int64_t epoch_below, phx_ledger_row_fn fn, void *ctx,
                         struct phx_err *err)
{
    const struct phx_value value = phx_value_int(epoch_below);
    struct open_list       l = {.arena = phx_arena_create()};
    int                    rc;

    rc = phx_tx_exec(tx, "SELECT lease FROM ledger_open WHERE epoch < ? ORDER BY id", &value, 1, collect_open, &l, err);
    for (size_t i = 0; i < l.n && rc == 0; i++) { /* fn may end them, so no statement is open meanwhile */
        struct phx_arena     *arena = phx_arena_create();
        struct phx_ledger_row begin, end;

        rc = phx_ledger_find(tx, l.leases[i], arena, &begin, &end, err);
        if (rc == 0 && end.kind == PHX_LEDGER_NONE)
            rc = fn(ctx, &begin);
        phx_arena_destroy(arena);
    }
    phx_mem_free(l.leases);
    phx_arena_destroy(l.arena);
    return rc;
}

/* ---- a range ------------------------------------------------------------------------------------------------ */

struct walk {
    phx_ledger_row_fn fn;
    void             *ctx;
};

static int read_row(void *ctx, const struct phx_value *columns, int n_columns)
{
    const struct walk    *w = ctx;
    struct phx_ledger_row row;

    (void)n_columns;
    phx_ledger_row_read(columns, &row);
    return w->fn(w->ctx, &row);
}

int phx_ledger_walk(struct phx_tx *tx, int64_t from_id, int64_t to_id, phx_ledger_row_fn fn, void *ctx,
                    struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_int(from_id),
                                       phx_value_int(to_id == 0 ? INT64_MAX : to_id)};
    struct walk            w = {fn, ctx};

    return phx_tx_exec(tx,
                       "SELECT " PHX_LEDGER_COLUMNS " FROM ledger WHERE id >= ? AND id < ? ORDER BY id",
                       values, 2, read_row, &w, err);
}
