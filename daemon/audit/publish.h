/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/audit: from leaves in the database to tiles and checkpoints in the folder. */
#ifndef PHX_DAEMON_AUDIT_PUBLISH_H
#define PHX_DAEMON_AUDIT_PUBLISH_H

#include "daemon/audit/logkey.h"
#include "daemon/audit/tree.h"

struct phx_store;

enum { PHX_BUNDLE_MAX_BYTES = PHX_TLOG_TILE_WIDTH * (PHX_TLOG_ENTRY_MAX_BYTES + 2) };

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* Leaves in a row, at most one tile. */
struct phx_leaves {
    uint64_t             from;
    int                  n_wanted, n;
    struct phx_buf       text; /* the records, one behind the other */
    size_t               ends[PHX_TLOG_TILE_WIDTH];
    struct phx_tlog_hash hashes[PHX_TLOG_TILE_WIDTH];
};
void phx_leaves_init(struct phx_leaves *l);
void phx_leaves_fini(struct phx_leaves *l);
/* The n leaves from `from` on.  PHX_E_STATE: a number is missing, or a record is not that of its hash. */
int phx_leaves_read(struct phx_store *store, struct phx_leaves *l, uint64_t from, int n,
                    struct phx_err *err) PHX_CHECKED;
/* How many leaves are durable. */
int phx_leaves_count(struct phx_store *store, uint64_t *n, struct phx_err *err) PHX_CHECKED;
/* Pushes leaf hashes, without their records, from t->size until it is `size`. */
int phx_leaves_walk(struct phx_store *store, struct phx_tree *t, uint64_t size, phx_tree_tile_fn fn,
                    void *ctx, struct phx_err *err) PHX_CHECKED;

/* ---- writing ----------------------------------------------------------------------------------------------- */

/* What has been put into the tree: the right edge and the entries of its last tile. */
struct phx_builder {
    struct phx_tree tree;
    struct phx_buf  bundle;
};

struct phx_press {
    struct phx_store       *store;
    struct phx_folder       audit, keys;
    struct phx_logkey       key;
    struct phx_signed_tree  last; /* what is published; note.data NULL = nothing yet */
    struct phx_builder      saved; /* on disk up to here; a step that fails goes back to it */
    struct phx_builder      work;
    struct phx_leaves       leaves;
    bool                    is_moving;   /* the key must move on before anything is signed */
    bool                    has_partial; /* the partial tiles of `last` are known to be on disk */
};

/* Opens folder and key, compares what is published with the database, and finds what is missing. */
int  phx_press_open(struct phx_press *p, struct phx_store *store, const char *dir, const char *key_dir,
                    const char *origin, struct phx_err *err) PHX_CHECKED;
void phx_press_close(struct phx_press *p); /* of one that is all zero too */
/* Moves the key on (when is_moving), publishes what is durable now.  After an error it may be called
 * again: nothing half-done is ever pointed to. */
int phx_press_run(struct phx_press *p, struct phx_err *err) PHX_CHECKED;

#endif
