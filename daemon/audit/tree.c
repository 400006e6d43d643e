/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/audit/tree.h"

#include <string.h>

enum { TILE_LOG = 8 };

void phx_tree_fold(const struct phx_tlog_hash *hashes, int log, struct phx_tlog_hash *out)
{
    struct phx_tlog_hash work[PHX_TLOG_TILE_WIDTH];

    phx_assert(log >= 0 && log <= TILE_LOG);
    memcpy(work, hashes, sizeof(work[0]) << log);
    for (int n = 1 << log; n > 1; n /= 2)
        for (int i = 0; i < n / 2; i++)
            phx_tlog_node(&work[2 * i], &work[2 * i + 1], &work[i]);
    *out = work[0];
}

int phx_tree_push(struct phx_tree *t, const struct phx_tlog_hash *leaf, phx_tree_tile_fn fn, void *ctx,
                  struct phx_err *err)
{
    struct phx_tlog_hash up = *leaf;
    int                  rc = 0;

    t->size++;
    for (int level = 0; level < PHX_TREE_LEVELS; level++) {
        struct phx_tree_level *l = &t->levels[level];

        l->hashes[l->n++] = up;
        if (l->n < PHX_TLOG_TILE_WIDTH)
            return 0;
        rc = fn(ctx, level, (t->size >> (TILE_LOG * (level + 1))) - 1, l->hashes, err);
        if (rc != 0)
            return rc;
        phx_tree_fold(l->hashes, TILE_LOG, &up);
        l->n = 0;
    }
    return phx_fail(err, PHX_E_TOOBIG, "the tree is full");
}

void phx_tree_root(const struct phx_tree *t, struct phx_tlog_hash *out)
{
    struct phx_tlog_frontier f;

    phx_tlog_frontier_init(&f);
    f.size = t->size;
    for (int level = PHX_TREE_LEVELS - 1; level >= 0; level--) {
        const struct phx_tree_level *l = &t->levels[level];
        int                          at = 0;

        for (int log = TILE_LOG - 1; log >= 0; log--)
            if ((l->n >> log & 1) != 0) {
                phx_tree_fold(l->hashes + at, log, &f.roots[f.n_roots++]);
                at += 1 << log;
            }
    }
    phx_tlog_frontier_root(&f, out);
}
