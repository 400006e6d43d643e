/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/audit: the right edge of a growing tree, tile by tile. */
#ifndef PHX_DAEMON_AUDIT_TREE_H
#define PHX_DAEMON_AUDIT_TREE_H

#include <stdint.h>

#include "daemon/tlog/tlog.h"
#include "rpc/base/err.h"

enum { PHX_TREE_LEVELS = 7 }; /* 256^7 leaves */

struct phx_tree_level {
    struct phx_tlog_hash hashes[PHX_TLOG_TILE_WIDTH];
    int                  n; /* below the width: a full tile is handed out at once */
};
struct phx_tree {
    uint64_t              size;
    struct phx_tree_level levels[PHX_TREE_LEVELS];
};

/* Takes a full tile; a negative code stops the push, and the tree is then of no further use. */
typedef int (*phx_tree_tile_fn)(void *ctx, int level, uint64_t index, const struct phx_tlog_hash *hashes,
                                struct phx_err *err);

int  phx_tree_push(struct phx_tree *t, const struct phx_tlog_hash *leaf, phx_tree_tile_fn fn, void *ctx,
                   struct phx_err *err) PHX_CHECKED;
void phx_tree_root(const struct phx_tree *t, struct phx_tlog_hash *out);
/* The root over 2^log hashes, log <= 8. */
void phx_tree_fold(const struct phx_tlog_hash *hashes, int log, struct phx_tlog_hash *out);

#endif
