/* SPDX-License-Identifier: Apache-2.0
 * Finding leaves in the database by what stands in them.  Records have one spelling (record.c), so a member is
 * found as the text of its key and value: a quote inside a string is written \" and cannot look like one. */
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/audit/reader.h"
#include "daemon/store/store.h"
#include "rpc/base/mem.h"

enum { MEMBERS = 3 };

struct walk {
    phx_leaf_fn fn;
    void       *ctx;
    char       *members[MEMBERS]; /* each must stand in the record; NULL = no condition */
};

static bool is_wanted(const struct walk *w, const struct phx_leaf *leaf)
{
    for (int i = 0; i < MEMBERS; i++)
        if (w->members[i] != NULL &&
            memmem(leaf->record, leaf->record_size, w->members[i], strlen(w->members[i])) == NULL)
            return false;
    return true;
}

static int give_leaf(void *ctx, const struct phx_value *c, int n_columns)
{
    const struct walk *w = ctx;
    struct phx_leaf    leaf = {
           .index = (uint64_t)c[0].number,
           .kind = c[1].data,
           .receipt = c[2].data,
           .at_ns = c[3].number,
           .tenant = c[4].data,
           .record = c[5].data,
           .record_size = c[5].size,
    };

    (void)n_columns;
    return is_wanted(w, &leaf) ? w->fn(w->ctx, &leaf) : 0;
}

static int make_member(const char *key, const char *value, char **out, struct phx_err *err)
{
    if (value == NULL)
        return 0;
    if (strpbrk(value, "\"\\") != NULL)
        return phx_fail(err, PHX_E_INVALID, "%s: quotes and backslashes are in no such name", key);
    *out = phx_mem_printf("\"%s\":\"%s\"", key, value);
    return 0;
}

int phx_audit_search(struct phx_tx *tx, const struct phx_leaf_query *q, phx_leaf_fn fn, void *ctx,
                     struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_int((int64_t)q->from),
        phx_value_int(q->below > 0 ? (int64_t)q->below : INT64_MAX),
        phx_value_int(q->from_ns),
        phx_value_int(q->to_ns > 0 ? q->to_ns : INT64_MAX),
        phx_value_text(q->kind),   phx_value_text(q->kind),
        phx_value_text(q->tenant), phx_value_text(q->tenant),
    };
    struct walk w = {.fn = fn, .ctx = ctx};
    int         rc = make_member("req_id", q->request_id, &w.members[0], err);

    if (rc == 0)
        rc = make_member("user", q->user, &w.members[1], err);
    if (rc == 0)
        rc = make_member("manifest_root", q->manifest_root, &w.members[2], err);
    if (rc == 0)
        rc = phx_tx_exec(tx,
                         "SELECT leaf, kind, receipt, at_ns, tenant, record FROM audit"
                         " WHERE leaf >= ? AND leaf < ? AND at_ns >= ? AND at_ns < ?"
                         " AND (? IS NULL OR kind = ?) AND (? IS NULL OR tenant = ?) ORDER BY leaf",
                         values, sizeof(values) / sizeof(values[0]), give_leaf, &w, err);
    for (int i = 0; i < MEMBERS; i++)
        phx_mem_free(w.members[i]);
    return rc;
}

int phx_audit_find(struct phx_tx *tx, const char *receipt, phx_leaf_fn fn, void *ctx, struct phx_err *err)
{
    const struct phx_value value = phx_value_text(receipt);
    struct walk            w = {.fn = fn, .ctx = ctx};

    return phx_tx_exec(tx,
                       "SELECT leaf, kind, receipt, at_ns, tenant, record FROM audit WHERE receipt = ?"
                       " ORDER BY leaf",
                       &value, 1, give_leaf, &w, err);
}

static int read_index(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

int phx_audit_last(struct phx_tx *tx, int64_t *index, struct phx_err *err)
{
    *index = -1;
    return phx_tx_exec(tx, "SELECT COALESCE(MAX(leaf), -1) FROM audit", NULL, 0, read_index, index, err);
}

const struct phx_buf *phx_tiles_note(const struct phx_tiles *t, struct phx_tlog_hash *root)
{
    const struct phx_buf *note;
    int64_t               epoch;

    *root = phx_tiles_checkpoint(t, &note, &epoch)->root;
    return note;
}
