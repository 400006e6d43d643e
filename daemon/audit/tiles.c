/* SPDX-License-Identifier: Apache-2.0
 * Reading a published folder, also while it grows: a partial tile that is gone was followed by a wider one. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/audit/logkey.h"
#include "daemon/audit/reader.h"
#include "daemon/audit/tree.h"
#include "rpc/base/mem.h"

enum { TILE_LOG = 8, BUNDLE_MAX_BYTES = PHX_TLOG_TILE_WIDTH * (PHX_TLOG_ENTRY_MAX_BYTES + 2) };

struct tile { /* the last one read of its kind */
    uint64_t       index;
    int            width; /* 0 = none */
    struct phx_buf data;
};

struct phx_tiles {
    char                 *dir;
    struct phx_buf        note;
    struct phx_checkpoint checkpoint;
    int64_t               epoch;
    struct tile           hashes[PHX_TREE_LEVELS];
    struct tile           entries;
};

static void name_tile(int level, uint64_t index, int width, char path[PHX_TLOG_PATH_BYTES])
{
    if (level < 0)
        phx_tlog_entries_path(index, width, path);
    else
        phx_tlog_tile_path(level, index, width, path);
}

/* The widest partial tile that is there, 0 without one. */
static int find_widest(const struct phx_tiles *t, int level, uint64_t index)
{
    char           name[PHX_TLOG_PATH_BYTES], *path;
    struct dirent *e;
    DIR           *dir;
    long           widest = 0;

    name_tile(level, index, 1, name);
    *strrchr(name, '/') = '\0';
    path = phx_mem_printf("%s/%s", t->dir, name);
    dir = opendir(path);
    phx_mem_free(path);
    if (dir == NULL)
        return 0;
    while ((e = readdir(dir)) != NULL) {
        char *end;
        long  width = strtol(e->d_name, &end, 10);

        if (*end == '\0' && width < PHX_TLOG_TILE_WIDTH && width > widest)
            widest = width;
    }
    (void)closedir(dir);
    return (int)widest;
}

/* Loads the tile of that index, at least `width` wide; level -1: entries. */
static int load(struct phx_tiles *t, struct tile *tile, int level, uint64_t index, int width,
                struct phx_err *err)
{
    size_t max = level < 0 ? BUNDLE_MAX_BYTES : (size_t)PHX_TLOG_TILE_WIDTH * PHX_TLOG_HASH_BYTES;
    char   name[PHX_TLOG_PATH_BYTES];
    int    tries[3] = {width, PHX_TLOG_TILE_WIDTH, 0};
    int    rc = PHX_E_NOTFOUND;

    if (tile->width >= width && tile->index == index)
        return 0;
    for (int i = 0; i < 3 && rc == PHX_E_NOTFOUND; i++) {
        struct phx_buf data;

        if (i == 2 && (tries[i] = find_widest(t, level, index)) < width)
            break;
        name_tile(level, index, tries[i], name);
        rc = phx_folder_read(t->dir, name, max, &data, err);
        if (rc != 0)
            continue;
        if (level >= 0 && data.size != (size_t)tries[i] * PHX_TLOG_HASH_BYTES) {
            phx_buf_fini(&data);
            return phx_fail(err, PHX_E_FORMAT, "%s/%s has not the size of its width", t->dir, name);
        }
        phx_buf_fini(&tile->data);
        *tile = (struct tile){.index = index, .width = tries[i], .data = data};
    }
    return rc;
}

int phx_tiles_open(const char *dir, struct phx_tiles **out, struct phx_err *err)
{
    struct phx_tiles *t = phx_mem_calloc(1, sizeof(*t));
    size_t            text_size = 0;
    int               rc;

    *out = NULL;
    t->dir = phx_mem_strdup(dir);
    rc = phx_folder_read(dir, "checkpoint", PHX_NOTE_MAX_BYTES, &t->note, err);
    if (rc == 0)
        rc = phx_note_open(t->note.data, t->note.size, NULL, 0, NULL, &text_size, err);
    if (rc == 0)
        rc = phx_checkpoint_parse(t->note.data, text_size, &t->checkpoint, err);
    if (rc == 0)
        rc = phx_checkpoint_epoch(t->note.data, text_size, &t->epoch, err);
    if (rc != 0) {
        phx_tiles_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void phx_tiles_close(struct phx_tiles *t)
{
    if (t == NULL)
        return;
    for (int i = 0; i < PHX_TREE_LEVELS; i++)
        phx_buf_fini(&t->hashes[i].data);
    phx_buf_fini(&t->entries.data);
    phx_buf_fini(&t->note);
    phx_mem_free(t->dir);
    phx_mem_free(t);
}

uint64_t phx_tiles_size(const struct phx_tiles *t)
{
    return t->checkpoint.size;
}

const struct phx_checkpoint *phx_tiles_checkpoint(const struct phx_tiles *t, const struct phx_buf **note,
                                                  int64_t *epoch)
{
    *note = &t->note;
    *epoch = t->epoch;
    return &t->checkpoint;
}

const char *phx_tiles_dir(const struct phx_tiles *t)
{
    return t->dir;
}

int phx_tiles_read(void *tiles, int level, uint64_t index, struct phx_tlog_hash *out, struct phx_err *err)
{
    struct phx_tiles    *t = tiles;
    int                  tile_level = level / TILE_LOG, log = level % TILE_LOG;
    struct phx_tlog_hash hashes[PHX_TLOG_TILE_WIDTH];
    uint64_t             first, n_hashes;
    int                  at, rc;

    if (level < 0 || tile_level >= PHX_TREE_LEVELS || index >= (t->checkpoint.size >> level))
        return phx_fail(err, PHX_E_INVALID, "the tree of %llu leaves has no hash %llu at level %d",
                        (unsigned long long)t->checkpoint.size, (unsigned long long)index, level);
    first = index << log; /* of 2^log hashes of the tile's level */
    n_hashes = (t->checkpoint.size >> (TILE_LOG * tile_level)) -
               first / PHX_TLOG_TILE_WIDTH * PHX_TLOG_TILE_WIDTH;
    at = (int)(first % PHX_TLOG_TILE_WIDTH);
    rc = load(t, &t->hashes[tile_level], tile_level, first / PHX_TLOG_TILE_WIDTH,
              n_hashes < PHX_TLOG_TILE_WIDTH ? (int)n_hashes : PHX_TLOG_TILE_WIDTH, err);
    if (rc != 0)
        return rc;
    memcpy(hashes, t->hashes[tile_level].data.data + (size_t)at * PHX_TLOG_HASH_BYTES,
           (size_t)PHX_TLOG_HASH_BYTES << log);
    phx_tree_fold(hashes, log, out);
    return 0;
}

struct wanted {
    int             i;
    struct phx_buf *out;
};

static int keep_entry(void *ctx, int i, const void *entry, size_t size)
{
    const struct wanted *w = ctx;

    if (i == w->i)
        phx_buf_put(w->out, entry, size);
    return 0;
}

int phx_tiles_entry(struct phx_tiles *t, uint64_t index, struct phx_buf *out, struct phx_err *err)
{
    uint64_t      tile = index / PHX_TLOG_TILE_WIDTH;
    uint64_t      room = t->checkpoint.size - tile * PHX_TLOG_TILE_WIDTH;
    struct wanted w = {.i = (int)(index % PHX_TLOG_TILE_WIDTH), .out = out};
    int           rc;

    if (index >= t->checkpoint.size)
        return phx_fail(err, PHX_E_NOTFOUND, "leaf %llu is not published: the log has %llu",
                        (unsigned long long)index, (unsigned long long)t->checkpoint.size);
    rc = load(t, &t->entries, -1, tile, room < PHX_TLOG_TILE_WIDTH ? (int)room : PHX_TLOG_TILE_WIDTH, err);
    if (rc != 0)
        return rc;
    rc = phx_tlog_entries_walk(t->entries.data.data, t->entries.data.size, t->entries.width, keep_entry, &w,
                               err);
    return rc == 0 ? phx_buf_check(out, "audit record", err) : rc;
}
