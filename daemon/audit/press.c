/* SPDX-License-Identifier: Apache-2.0
 * One step: leaves into tiles, tiles to disk, then the checkpoint that points to them. */
#include <stdio.h>
#include <string.h>

#include "daemon/audit/publish.h"

/* Leaves between two checkpoints while the log catches up: what a failure makes it write again. */
enum { STEP_LEAVES = 65536, TILE_LOG = 8 };

static uint64_t tile_index(uint64_t size, int level)
{
    return size >> (TILE_LOG * (level + 1));
}

static int tile_width(uint64_t size, int level)
{
    return (int)(size >> (TILE_LOG * level) & (PHX_TLOG_TILE_WIDTH - 1));
}

/* A published file is immutable: it is written again only when it is missing or damaged. */
static int write_full(struct phx_press *p, const char *path, bool is_published, const void *data, size_t size,
                      struct phx_err *err)
{
    if (is_published && phx_folder_equals(&p->audit, path, data, size))
        return 0;
    return phx_folder_write(&p->audit, path, data, size, err);
}

static int write_tile(void *ctx, int level, uint64_t index, const struct phx_tlog_hash *hashes,
                      struct phx_err *err)
{
    struct phx_press *p = ctx;
    bool              is_published = p->work.tree.size <= p->last.checkpoint.size;
    char              path[PHX_TLOG_PATH_BYTES];
    int               rc = 0;

    if (level == 0) {
        phx_tlog_entries_path(index, PHX_TLOG_TILE_WIDTH, path);
        rc = write_full(p, path, is_published, p->work.bundle.data, p->work.bundle.size, err);
        phx_buf_clear(&p->work.bundle);
    }
    phx_tlog_tile_path(level, index, PHX_TLOG_TILE_WIDTH, path);
    if (rc == 0)
        rc = write_full(p, path, is_published, hashes, sizeof(*hashes) * PHX_TLOG_TILE_WIDTH, err);
    return rc;
}

/* Moves p->work on to `to` leaves. */
static int advance(struct phx_press *p, uint64_t to, struct phx_err *err)
{
    struct phx_builder *b = &p->work;
    int                 rc = 0;

    while (rc == 0 && b->tree.size < to) {
        struct phx_leaves *l = &p->leaves;
        uint64_t           room = PHX_TLOG_TILE_WIDTH - b->tree.size % PHX_TLOG_TILE_WIDTH;

        if (room > to - b->tree.size)
            room = to - b->tree.size;
        rc = phx_leaves_read(p->store, l, b->tree.size, (int)room, err);
        for (int i = 0; i < l->n && rc == 0; i++) {
            size_t start = i > 0 ? l->ends[i - 1] : 0;

            rc = phx_tlog_entry_put(&b->bundle, l->text.data + start, l->ends[i] - start, err);
            if (rc == 0)
                rc = phx_tree_push(&b->tree, &l->hashes[i], write_tile, p, err);
        }
    }
    return rc;
}

static int write_partials(struct phx_press *p, struct phx_err *err)
{
    const struct phx_builder *b = &p->work;
    uint64_t                  size = b->tree.size, before = p->last.checkpoint.size;
    char                      path[PHX_TLOG_PATH_BYTES];
    int                       rc = 0;

    for (int level = 0; level < PHX_TREE_LEVELS && rc == 0; level++) {
        const struct phx_tree_level *l = &b->tree.levels[level];

        if (l->n == 0 || (p->has_partial && size >> (TILE_LOG * level) == before >> (TILE_LOG * level)))
            continue;
        phx_tlog_tile_path(level, tile_index(size, level), l->n, path);
        rc = phx_folder_write(&p->audit, path, l->hashes, sizeof(l->hashes[0]) * (size_t)l->n, err);
        if (rc == 0 && level == 0) {
            phx_tlog_entries_path(tile_index(size, 0), l->n, path);
            rc = phx_folder_write(&p->audit, path, b->bundle.data, b->bundle.size, err);
        }
    }
    return rc;
}

/* path is that of a partial tile: ".../234.p/17". */
static void clear_partial(const struct phx_press *p, char *path, int width)
{
    char keep[8] = "";

    if (width > 0)
        (void)snprintf(keep, sizeof(keep), "%d", width); /* below 256 */
    *strrchr(path, '/') = '\0';
    phx_folder_clear(&p->audit, path, keep);
}

static void clear_tile(const struct phx_press *p, int level, uint64_t index, int width)
{
    char path[PHX_TLOG_PATH_BYTES];

    phx_tlog_tile_path(level, index, 1, path);
    clear_partial(p, path, width);
    if (level == 0) {
        phx_tlog_entries_path(index, 1, path);
        clear_partial(p, path, width);
    }
}

/* Partial tiles that no checkpoint in the folder needs any more. */
static void clear_partials(const struct phx_press *p, uint64_t before, uint64_t size)
{
    for (int level = 0; level < PHX_TREE_LEVELS && size >> (TILE_LOG * level) > 0; level++) {
        uint64_t now = tile_index(size, level), old = tile_index(before, level);

        clear_tile(p, level, now, tile_width(size, level));
        if (old != now)
            clear_tile(p, level, old, 0);
        if (now > 0 && old != now - 1) /* left by a process that died after its checkpoint */
            clear_tile(p, level, now - 1, 0);
    }
}

/* The tiles are on disk; from the rename on the checkpoint may have been seen, so it counts as published
 * even when the folder's sync fails. */
static int write_checkpoint(struct phx_press *p, struct phx_err *err)
{
    struct phx_signed_tree next;
    struct phx_tlog_hash   root;
    uint64_t               before = p->last.checkpoint.size;
    int                    rc;

    phx_tree_root(&p->work.tree, &root);
    rc = phx_logkey_sign(&p->key, p->work.tree.size, &root, &next, err);
    if (rc != 0)
        return rc;
    rc = phx_folder_write(&p->audit, "checkpoint", next.note.data, next.note.size, err);
    if (rc != 0) {
        phx_signed_tree_fini(&next);
        return rc;
    }
    phx_signed_tree_fini(&p->last);
    p->last = next;
    rc = phx_folder_sync(&p->audit, err);
    p->has_partial = rc == 0;
    if (rc == 0)
        clear_partials(p, before, next.checkpoint.size);
    return rc;
}

static bool needs_checkpoint(const struct phx_press *p)
{
    uint64_t size = p->work.tree.size, published = p->last.checkpoint.size;

    return size > published || (size == published && (!p->has_partial || p->last.epoch != p->key.epoch));
}

static void copy_builder(struct phx_builder *to, const struct phx_builder *from)
{
    to->tree = from->tree;
    phx_buf_clear(&to->bundle);
    phx_buf_put(&to->bundle, from->bundle.data, from->bundle.size);
}

static int step(struct phx_press *p, uint64_t to, struct phx_err *err)
{
    bool is_signing;
    int  rc;

    copy_builder(&p->work, &p->saved);
    rc = advance(p, to, err);
    is_signing = needs_checkpoint(p);
    if (rc == 0 && is_signing)
        rc = write_partials(p, err);
    if (rc == 0)
        rc = phx_folder_sync(&p->audit, err);
    if (rc == 0 && is_signing)
        rc = write_checkpoint(p, err);
    if (rc == 0)
        copy_builder(&p->saved, &p->work);
    return rc;
}

int phx_press_run(struct phx_press *p, struct phx_err *err)
{
    uint64_t n = 0;
    int      rc = p->is_moving ? phx_logkey_move(&p->key, &p->last, err) : 0;

    if (rc != 0)
        return rc;
    p->is_moving = false;
    rc = phx_leaves_count(p->store, &n, err);
    if (rc == 0 && n < p->last.checkpoint.size)
        rc = phx_fail(err, PHX_E_STATE, "the database has %llu leaves, but %llu are published",
                      (unsigned long long)n, (unsigned long long)p->last.checkpoint.size);
    while (rc == 0) {
        uint64_t to = n - p->saved.tree.size < STEP_LEAVES ? n : p->saved.tree.size + STEP_LEAVES;

        rc = step(p, to, err);
        if (to == n)
            break;
    }
    return rc;
}
