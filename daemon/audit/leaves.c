/* SPDX-License-Identifier: Apache-2.0
 * Reading leaves, on a connection of its own: it shows a commit only when that is on disk (the database
 * syncs its write-ahead log first), and holds up no writer. */
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/audit/publish.h"
#include "daemon/store/store.h"

void phx_leaves_init(struct phx_leaves *l)
{
    memset(l, 0, sizeof(*l));
    phx_buf_init(&l->text, PHX_BUNDLE_MAX_BYTES);
}

void phx_leaves_fini(struct phx_leaves *l)
{
    phx_buf_fini(&l->text);
}

static int keep_leaf(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct phx_leaves *l = ctx;

    (void)n_columns;
    if (columns[0].number != (int64_t)(l->from + (uint64_t)l->n) ||
        columns[2].size != PHX_TLOG_HASH_BYTES)
        return PHX_E_STATE;
    phx_buf_put(&l->text, columns[1].data, columns[1].size);
    l->ends[l->n] = l->text.size;
    memcpy(l->hashes[l->n].bytes, columns[2].data, PHX_TLOG_HASH_BYTES);
    l->n++;
    return 0;
}

static int fail_leaf(uint64_t leaf, const char *what, struct phx_err *err)
{
    return phx_fail(err, PHX_E_STATE, "audit leaf %llu %s: the database was changed; nothing is published",
                    (unsigned long long)leaf, what);
}

static int select_leaves(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_leaves     *l = ctx;
    const struct phx_value values[] = {phx_value_int((int64_t)l->from), phx_value_int(l->n_wanted)};
    int rc = phx_tx_exec(tx, "SELECT leaf, record, leaf_hash FROM audit WHERE leaf >= ? ORDER BY leaf LIMIT ?",
                         values, 2, keep_leaf, l, err);

    if (rc == PHX_E_STATE || (rc == 0 && l->n < l->n_wanted))
        return fail_leaf(l->from + (uint64_t)l->n, "is missing or has no hash", err);
    return rc;
}

int phx_leaves_read(struct phx_store *store, struct phx_leaves *l, uint64_t from, int n,
                    struct phx_err *err)
{
    int rc;

    phx_assert(n <= PHX_TLOG_TILE_WIDTH);
    phx_buf_clear(&l->text);
    l->from = from;
    l->n_wanted = n;
    l->n = 0;
    rc = phx_store_read(store, select_leaves, l, err);
    if (rc == 0)
        rc = phx_buf_check(&l->text, "audit records", err);
    for (int i = 0; i < l->n && rc == 0; i++) {
        size_t               start = i > 0 ? l->ends[i - 1] : 0;
        struct phx_tlog_hash hash;

        phx_tlog_leaf(l->text.data + start, l->ends[i] - start, &hash);
        if (memcmp(&hash, &l->hashes[i], sizeof(hash)) != 0)
            rc = fail_leaf(from + (uint64_t)i, "is not the record of its hash", err);
    }
    return rc;
}

static int read_count(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(uint64_t *)ctx = (uint64_t)columns[0].number;
    return 0;
}

static int select_count(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_tx_exec(tx, "SELECT COALESCE(MAX(leaf), -1) + 1 FROM audit", NULL, 0, read_count, ctx, err);
}

int phx_leaves_count(struct phx_store *store, uint64_t *n, struct phx_err *err)
{
    *n = 0;
    return phx_store_read(store, select_count, n, err);
}

/* ---- hashes only ------------------------------------------------------------------------------------------- */

struct walk {
    struct phx_tree *tree;
    uint64_t         size;
    phx_tree_tile_fn fn;
    void            *ctx;
    struct phx_err  *err;
};

static int push_hash(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct walk         *w = ctx;
    struct phx_tlog_hash hash;

    (void)n_columns;
    if (columns[0].number != (int64_t)w->tree->size || columns[1].size != PHX_TLOG_HASH_BYTES)
        return fail_leaf(w->tree->size, "is missing or has no hash", w->err);
    memcpy(hash.bytes, columns[1].data, PHX_TLOG_HASH_BYTES);
    return phx_tree_push(w->tree, &hash, w->fn, w->ctx, w->err);
}

static int select_hashes(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct walk           *w = ctx;
    const struct phx_value values[] = {phx_value_int((int64_t)w->tree->size), phx_value_int((int64_t)w->size)};
    int rc;

    w->err = err;
    rc = phx_tx_exec(tx, "SELECT leaf, leaf_hash FROM audit WHERE leaf >= ? AND leaf < ? ORDER BY leaf", values,
                     2, push_hash, w, err);
    return rc == 0 && w->tree->size < w->size ? fail_leaf(w->tree->size, "is missing", err) : rc;
}

int phx_leaves_walk(struct phx_store *store, struct phx_tree *t, uint64_t size, phx_tree_tile_fn fn,
                    void *ctx, struct phx_err *err)
{
    struct walk w = {t, size, fn, ctx, NULL};

    return t->size < size ? phx_store_read(store, select_hashes, &w, err) : 0;
}
