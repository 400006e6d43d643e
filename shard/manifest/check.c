/* SPDX-License-Identifier: Apache-2.0
 * Compares a folder with its manifest; the bytes are shared out over the parts piece by piece. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/mem.h"
#include "shard/manifest/entry.h"

struct check {
    const struct phx_manifest *m;
    const char                *dir;
    int32_t                    part, n_parts;
    int64_t                    turn; /* counts pieces over all files */
    uint64_t                   done_bytes, total_bytes;
    phx_manifest_progress_fn   progress;
    void                      *ctx;
};

static int differs(const char *name, const char *how, struct phx_err *err)
{
    return phx_fail(err, PHX_E_DENIED, "%.200s: %s; the folder is not the model that was signed", name, how);
}

static bool has_file(const struct phx_manifest *m, const char *prefix)
{
    for (int32_t i = 0; i < m->n_entries; i++)
        if (strncmp(m->entries[i].name, prefix, strlen(prefix)) == 0)
            return true;
    return false;
}

/* Sizes, missing files, files that nobody signed. */
static int check_list(struct check *c, struct phx_arena *arena, struct phx_err *err)
{
    struct phx_manifest_entry *found = NULL;
    int32_t                    n = 0, i = 0, j = 0;
    int                        rc = phx_manifest_list(c->dir, arena, &found, &n, err);

    while (rc == 0 && (i < n || j < c->m->n_entries)) {
        int order = i == n ? 1 : j == c->m->n_entries ? -1 : strcmp(found[i].name, c->m->entries[j].name);

        if (order > 0)
            rc = differs(c->m->entries[j].name, "is in the manifest and not in the folder", err);
        else if (order < 0 && phx_manifest_is_part(found[i].name))
            rc = differs(found[i].name, "is not in the manifest", err);
        else if (order == 0 && c->m->entries[j].has_size &&
                 found[i].size_bytes != c->m->entries[j].size_bytes)
            rc = differs(found[i].name, "has another size than the manifest says", err);
        else if (order == 0)
            c->total_bytes += found[i].size_bytes;
        i += order <= 0;
        j += order >= 0;
    }
    if (rc == 0 && c->m->parent[0] != '\0' && (!has_file(c->m, "LICENSE") || !has_file(c->m, "NOTICE")))
        rc = phx_fail(err, PHX_E_DENIED, "%s: a derived model must carry LICENSE and NOTICE in its manifest",
                      c->dir);
    return rc;
}

static int check_range(struct check *c, int fd, const struct phx_manifest_entry *e, uint64_t from, uint64_t to,
                       const uint8_t want[PHX_SHA256_BYTES], struct phx_err *err)
{
    uint8_t digest[PHX_SHA256_BYTES];
    int     rc = phx_manifest_hash(fd, e->name, from, to, digest, NULL, err);

    if (rc == 0 && memcmp(digest, want, sizeof(digest)) != 0)
        rc = differs(e->name, "has other content than the manifest says", err);
    c->done_bytes += to - from;
    if (c->progress != NULL)
        c->progress(c->ctx, c->done_bytes, c->total_bytes / (uint64_t)c->n_parts + 1);
    return rc;
}

static bool is_mine(struct check *c)
{
    return c->turn++ % c->n_parts == c->part;
}

static int check_entry(struct check *c, const struct phx_manifest_entry *e, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/%s", c->dir, e->name);
    int   fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc = 0;
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);

    if (size < 0)
        rc = phx_fail(err, PHX_E_IO, "%s: %s", path, strerror(errno));
    else if (e->pieces == NULL && is_mine(c))
        rc = check_range(c, fd, e, 0, (uint64_t)size, e->digest, err);
    for (int32_t i = 0; i < e->n_pieces && rc == 0; i++) {
        uint64_t from = (uint64_t)i * PHX_MANIFEST_PIECE_BYTES;
        uint64_t to = e->size_bytes - from < PHX_MANIFEST_PIECE_BYTES ? e->size_bytes
                                                                     : from + PHX_MANIFEST_PIECE_BYTES;

        if (is_mine(c))
            rc = check_range(c, fd, e, from, to, e->pieces[i], err);
    }
    if (fd >= 0)
        (void)close(fd); /* was only read */
    phx_mem_free(path);
    return rc;
}

int phx_manifest_check(const struct phx_manifest *m, const char *dir, int32_t part, int32_t n_parts,
                       phx_manifest_progress_fn progress, void *ctx, struct phx_err *err)
{
    struct check      c = {.m = m, .dir = dir, .part = part, .n_parts = n_parts, .progress = progress, .ctx = ctx};
    struct phx_arena *arena = phx_arena_create();
    int               rc = check_list(&c, arena, err);

    for (int32_t i = 0; i < m->n_entries && rc == 0; i++)
        rc = check_entry(&c, &m->entries[i], err);
    phx_arena_destroy(arena);
    return rc;
}
