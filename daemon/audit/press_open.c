/* SPDX-License-Identifier: Apache-2.0
 * What is published must be the beginning of what the database holds.  If it is not, one of the two was
 * restored from an older copy or changed, and writing on would destroy the evidence of that. */
#include <stdio.h>
#include <string.h>

#include "daemon/audit/publish.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

enum { TILE_BYTES = PHX_TLOG_TILE_WIDTH * PHX_TLOG_HASH_BYTES };

struct compare {
    struct phx_press *press;
    bool              is_damaged; /* a full tile is missing or has other bytes */
};

static int check_tile(void *ctx, int level, uint64_t index, const struct phx_tlog_hash *hashes,
                      struct phx_err *err)
{
    struct compare          *c = ctx;
    const struct phx_folder *f = &c->press->audit;
    char                     path[PHX_TLOG_PATH_BYTES];

    (void)err;
    phx_tlog_tile_path(level, index, PHX_TLOG_TILE_WIDTH, path);
    c->is_damaged = c->is_damaged || !phx_folder_equals(f, path, hashes, TILE_BYTES);
    if (level == 0) {
        phx_tlog_entries_path(index, PHX_TLOG_TILE_WIDTH, path);
        c->is_damaged = c->is_damaged || !phx_folder_has(f, path);
    }
    return 0;
}

static int compare_root(const struct phx_press *p, const struct phx_tree *t, const struct phx_signed_tree *s,
                        struct phx_err *err)
{
    struct phx_tlog_hash root;

    phx_tree_root(t, &root);
    if (memcmp(&root, &s->checkpoint.root, sizeof(root)) == 0)
        return 0;
    return phx_fail(err, PHX_E_STATE,
                    "the published log of %llu leaves in %s differs from the first %llu in the database:"
                    " one of them was changed; nothing is overwritten",
                    (unsigned long long)s->checkpoint.size, p->audit.dir,
                    (unsigned long long)s->checkpoint.size);
}

/* Walks the database once; p->saved becomes the tree to go on from: the last whole tile, or nothing at all
 * when files are to be written again. */
static int compare(struct phx_press *p, uint64_t n_leaves, struct phx_err *err)
{
    uint64_t         size = p->last.checkpoint.size;
    struct compare   c = {.press = p};
    struct phx_tree *t;
    int              rc;

    if (size > n_leaves)
        return phx_fail(err, PHX_E_STATE,
                        "the published log in %s has %llu leaves, the database %llu: the database was"
                        " restored from an older copy; nothing is overwritten",
                        p->audit.dir, (unsigned long long)size, (unsigned long long)n_leaves);
    t = phx_mem_calloc(1, sizeof(*t));
    rc = phx_leaves_walk(p->store, t, size - size % PHX_TLOG_TILE_WIDTH, check_tile, &c, err);
    if (rc == 0) {
        p->saved.tree = *t;
        rc = phx_leaves_walk(p->store, t, size, check_tile, &c, err);
    }
    if (rc == 0)
        rc = compare_root(p, t, &p->last, err);
    if (rc == 0 && c.is_damaged) {
        phx_log(PHX_LOG_WARN, "audit.tiles.rebuild", "dir=%s size=%llu", p->audit.dir,
                (unsigned long long)size);
        memset(&p->saved.tree, 0, sizeof(p->saved.tree));
    }
    phx_mem_free(t);
    return rc;
}

static bool is_later(const struct phx_signed_tree *a, const struct phx_signed_tree *b)
{
    return a->epoch != b->epoch ? a->epoch > b->epoch : a->checkpoint.size > b->checkpoint.size;
}

/* The newest of `checkpoint` and the closings of this epoch and the one before: a checkpoint that was put
 * back or removed must not make the log forget. */
static int read_last(struct phx_press *p, struct phx_err *err)
{
    char names[3][PHX_LOGKEY_PATH_BYTES] = {"checkpoint"};
    int  rc = 0;

    (void)snprintf(names[1], sizeof(names[1]), "closing/%lld", (long long)p->key.epoch);
    (void)snprintf(names[2], sizeof(names[2]), "closing/%lld", (long long)p->key.epoch - 1);
    for (int i = 0; i < 3; i++) {
        struct phx_signed_tree found;

        rc = phx_logkey_read(&p->key, names[i], &found, err);
        if (rc == PHX_E_NOTFOUND)
            continue;
        if (rc != 0)
            return rc;
        if (p->last.note.data == NULL || is_later(&found, &p->last)) {
            phx_signed_tree_fini(&p->last);
            p->last = found;
        } else {
            phx_signed_tree_fini(&found);
        }
    }
    if (p->last.note.data == NULL) /* nothing was published: the tree of no leaves */
        phx_tlog_empty(&p->last.checkpoint.root);
    return 0;
}

int phx_press_open(struct phx_press *p, struct phx_store *store, const char *dir, const char *key_dir,
                   const char *origin, struct phx_err *err)
{
    uint64_t n_leaves = 0;
    int      rc;

    memset(p, 0, sizeof(*p));
    p->store = store;
    phx_leaves_init(&p->leaves);
    phx_buf_init(&p->saved.bundle, PHX_BUNDLE_MAX_BYTES);
    phx_buf_init(&p->work.bundle, PHX_BUNDLE_MAX_BYTES);
    rc = phx_folder_open(&p->audit, dir, 0640, 0750, err);
    if (rc == 0)
        rc = phx_folder_open(&p->keys, key_dir, 0600, 0700, err);
    if (rc == 0)
        rc = phx_leaves_count(store, &n_leaves, err);
    if (rc == 0)
        rc = phx_logkey_open(&p->key, &p->audit, &p->keys, origin, err);
    if (rc == 0)
        rc = read_last(p, err);
    if (rc == 0)
        rc = compare(p, n_leaves, err);
    p->is_moving = p->last.note.data != NULL; /* a key that has signed nothing yet may stay */
    return rc;
}

void phx_press_close(struct phx_press *p)
{
    phx_logkey_close(&p->key);
    phx_folder_close(&p->audit);
    phx_folder_close(&p->keys);
    phx_signed_tree_fini(&p->last);
    phx_buf_fini(&p->saved.bundle);
    phx_buf_fini(&p->work.bundle);
    phx_leaves_fini(&p->leaves);
}
