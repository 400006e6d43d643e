/* SPDX-License-Identifier: Apache-2.0
 * What a daemon that is gone has left: its own leases settle as crashes at the next start; a gateway's
 * outlive it until they expire. */
#include <stdio.h>
#include <string.h>

#include "daemon/admission/lease.h"
#include "rpc/base/mem.h"

enum { EXPIRE_MAX = 256 }; /* a job; the next second takes the rest */

struct open_list { /* rows are kept, because a walk may not write */
    struct phx_arena      *arena;
    struct phx_ledger_row *rows;
    size_t                 n, capacity;
};

static int keep_row(void *ctx, const struct phx_ledger_row *row)
{
    struct open_list *o = ctx;

    if (o->n == o->capacity) {
        o->capacity = o->capacity == 0 ? 64 : o->capacity * 2;
        o->rows = phx_mem_realloc(o->rows, o->capacity, sizeof(*o->rows));
    }
    o->rows[o->n] = *row;
    o->rows[o->n].lease = phx_arena_strdup(o->arena, row->lease);
    o->rows[o->n].tenant = phx_arena_strdup(o->arena, row->tenant);
    o->rows[o->n].user = phx_arena_strdup(o->arena, row->user);
    o->rows[o->n].key_id = phx_arena_strdup(o->arena, row->key_id);
    o->rows[o->n].cost_centre = phx_arena_strdup(o->arena, row->cost_centre);
    o->rows[o->n].model = phx_arena_strdup(o->arena, row->model);
    o->rows[o->n].request_id = phx_arena_strdup(o->arena, row->request_id);
    o->n++;
    return 0;
}

static int read_number(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

static int is_kept(struct phx_tx *tx, const char *lease, int64_t now_ns, int64_t *kept, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(lease), phx_value_int(now_ns)};

    *kept = 0;
    return phx_tx_exec(tx, "SELECT COUNT(*) FROM lease WHERE lease = ? AND kind = 'gateway'"
                           " AND expires_ns > ?", values, 2, read_number, kept, err);
}

/* Everything that is open and that no gateway may still renew. */
static int settle_open(struct phx_tx *tx, struct phx_admission *a, struct phx_err *err)
{
    struct open_list open = {.arena = phx_arena_create()};
    int64_t          kept = 0;
    int              rc = phx_ledger_open_rows(tx, INT64_MAX, keep_row, &open, err);

    for (size_t i = 0; i < open.n && rc == 0; i++) {
        rc = is_kept(tx, open.rows[i].lease, a->job_ns, &kept, err);
        if (rc == 0 && kept == 0)
            rc = phx_crash_write(tx, a, &open.rows[i], a->job_ns, err);
    }
    phx_mem_free(open.rows);
    phx_arena_destroy(open.arena);
    return rc;
}

static int count_gateways(struct phx_tx *tx, struct phx_admission *a, struct phx_err *err)
{
    int64_t n = 0;
    int     rc = phx_tx_exec(tx, "SELECT COUNT(*) FROM lease WHERE kind = 'gateway'", NULL, 0, read_number,
                             &n, err);

    a->n_gateway = (int32_t)n;
    return rc;
}

static int record_start(struct phx_tx *tx, const struct phx_admission *a, const char *receipt,
                        int64_t now_ns, struct phx_err *err)
{
    struct phx_record r;

    phx_record_init(&r);
    phx_record_int(&r, "at_ns", now_ns);
    phx_record_str(&r, "build", a->o.engine.build);
    phx_record_str(&r, "config_sha256", a->o.engine.config_sha256);
    phx_record_int(&r, "epoch", a->epoch);
    phx_record_str(&r, "event", "daemon.start");
    phx_record_str(&r, "kind", "admin");
    phx_record_str(&r, "model", a->o.model_name);
    phx_record_str(&r, "receipt", receipt);
    phx_record_int(&r, "v", 1);
    return phx_audit_append(tx, "admin", receipt, "", &r, err);
}

int phx_recover_write(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_admission *a = ctx;
    char                  receipt[PHX_RECEIPT_BYTES];
    int rc = phx_tx_exec(tx, "SELECT value FROM meta WHERE name = 'epoch'", NULL, 0, read_number, &a->epoch,
                         err);

    phx_receipt_make(receipt);
    if (rc == 0) /* crashes belong to the epoch that ended: their results come before the start */
        rc = settle_open(tx, a, err);
    if (rc == 0)
        rc = phx_tx_exec(tx, "UPDATE meta SET value = value + 1 WHERE name = 'epoch'", NULL, 0, NULL, NULL,
                         err);
    if (rc != 0)
        return rc;
    a->epoch++;
    rc = record_start(tx, a, receipt, a->job_ns, err);
    return rc == 0 ? count_gateways(tx, a, err) : rc;
}

/* ---- gateways' leases that were not renewed -------------------------------------------------------------- */

struct names {
    struct phx_arena *arena;
    char             *lease[EXPIRE_MAX];
    int               n;
};

static int keep_name(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct names *names = ctx;

    (void)n_columns;
    names->lease[names->n++] = phx_arena_strdup(names->arena, columns[0].data);
    return 0;
}

int phx_expire_write(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_admission  *a = ctx;
    struct names           names = {.arena = phx_arena_create()};
    const struct phx_value values[] = {phx_value_int(a->job_ns), phx_value_int(EXPIRE_MAX)};
    int rc = phx_tx_exec(tx, "SELECT lease FROM lease WHERE kind = 'gateway' AND expires_ns <= ? LIMIT ?",
                         values, 2, keep_name, &names, err);

    for (int i = 0; i < names.n && rc == 0; i++) {
        struct phx_ledger_row begin, end;

        rc = phx_ledger_find(tx, names.lease[i], names.arena, &begin, &end, err);
        if (rc == 0)
            rc = phx_crash_write(tx, a, &begin, a->job_ns, err);
    }
    a->n_expired = rc == 0 ? names.n : 0;
    phx_arena_destroy(names.arena);
    return rc;
}
