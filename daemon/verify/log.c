/* SPDX-License-Identifier: Apache-2.0
 * A folder opened for looking things up: keys and the checkpoint are checked, and what is read below is
 * proven against the checkpoint before anybody sees it. */
#include <stdio.h>
#include <string.h>

#include "daemon/verify/verify.h"
#include "rpc/base/mem.h"

static int load_chain(struct phx_log *l, struct phx_err *err)
{
    int64_t *epochs;
    size_t   n;
    char     name[64];
    int      rc = phx_vfolder_epochs(&l->folder, "keys", &epochs, &n, err);

    l->key_notes = phx_mem_calloc(n + 1, sizeof(*l->key_notes));
    if (rc == 0 && n == 0)
        rc = phx_fail(err, PHX_E_NOTFOUND, "keys/1: missing");
    for (size_t i = 0; i < n && rc == 0; i++) {
        (void)snprintf(name, sizeof(name), "keys/%zu", i + 1);
        rc = epochs[i] != (int64_t)i + 1
                 ? phx_fail(err, PHX_E_NOTFOUND, "%s: missing", name)
                 : phx_vfolder_read(&l->folder, name, PHX_V_FILE_MAX, &l->key_notes[i], err);
        if (rc == 0)
            rc = phx_chain_push(&l->chain, name, l->key_notes[i].data, l->key_notes[i].size, err);
    }
    phx_mem_free(epochs);
    return rc;
}

static int load_trust(struct phx_log *l, const struct phx_options *o, struct phx_err *err)
{
    struct phx_buf   data = {0};
    struct phx_trust trust;
    int              rc;

    if (o->has_trust)
        return phx_trust_check(&o->trust, &l->chain, "--trust", PHX_E_UNSUPPORTED, err);
    rc = phx_vfolder_read(&l->folder, "trust.json", PHX_V_FILE_MAX, &data, err);
    if (rc == 0)
        rc = phx_trust_parse(&trust, "trust.json", data.data, data.size, PHX_E_FORMAT, err);
    if (rc == 0) {
        rc = phx_trust_check(&trust, &l->chain, "trust.json", PHX_E_FORMAT, err);
        phx_trust_fini(&trust);
        fprintf(stderr, "phalanx-audit: trust was taken from the folder itself; give --trust with a copy of your "
                        "own\n");
    }
    phx_buf_fini(&data);
    return rc;
}

int phx_log_open(struct phx_log *l, const char *dir, const struct phx_options *o, struct phx_err *err)
{
    struct phx_buf note = {0};
    int            rc;

    memset(l, 0, sizeof(*l));
    rc = phx_vfolder_open(dir, &l->folder, err);
    if (rc == 0)
        rc = phx_vfolder_read(&l->folder, "checkpoint", PHX_V_FILE_MAX, &note, err);
    if (rc == 0)
        rc = phx_vcheckpoint_parse(&l->cp, "checkpoint", note.data, note.size, err);
    phx_buf_fini(&note);
    if (rc == 0) {
        phx_chain_init(&l->chain, l->cp.c.origin);
        rc = load_chain(l, err);
    }
    if (rc == 0)
        rc = load_trust(l, o, err);
    if (rc == 0)
        rc = phx_chain_check(&l->chain, &l->cp, NULL, err);
    if (rc != 0)
        phx_log_close(l);
    return rc;
}

void phx_log_close(struct phx_log *l)
{
    for (int64_t i = 0; l->key_notes != NULL && i <= l->chain.n; i++)
        phx_buf_fini(&l->key_notes[i]);
    phx_mem_free(l->key_notes);
    phx_chain_fini(&l->chain);
    phx_vcheckpoint_fini(&l->cp);
    phx_buf_fini(&l->tile);
    phx_buf_fini(&l->bundle);
    phx_vfolder_close(&l->folder);
    memset(l, 0, sizeof(*l));
    l->folder.fd = -1;
}

/* ---- entries ---------------------------------------------------------------------------------------------- */

struct walk_ctx {
    phx_log_fn      fn;
    void           *ctx;
    uint64_t        first;
    int             width, rc;
    struct phx_err *err;
};

static int on_entry(void *ctx, int i, const void *entry, size_t size)
{
    struct walk_ctx *w = ctx;

    if (w->rc == 0 && i < w->width) /* a wider bundle holds records behind the checkpoint */
        w->rc = w->fn(w->ctx, w->first + (uint64_t)i, entry, size, w->err);
    return 0;
}

static int walk_bundle(struct phx_log *l, uint64_t index, struct walk_ctx *w)
{
    char base[PHX_TLOG_PATH_BYTES], name[PHX_V_NAME_MAX];
    int  found, rc;

    w->first = index * PHX_TLOG_TILE_WIDTH;
    w->width = l->cp.c.size - w->first < PHX_TLOG_TILE_WIDTH ? (int)(l->cp.c.size - w->first) : PHX_TLOG_TILE_WIDTH;
    phx_tile_base(-1, index, base);
    rc = phx_vfolder_tile(&l->folder, base, w->width, true, &l->bundle, &found, name, w->err);
    if (rc == 0 && (rc = phx_tlog_entries_walk(l->bundle.data, l->bundle.size, found, on_entry, w, w->err)) != 0)
        phx_err_prefix(w->err, "%.100s: ", name);
    return rc != 0 ? rc : w->rc;
}

int phx_log_walk(struct phx_log *l, phx_log_fn fn, void *ctx, struct phx_err *err)
{
    struct walk_ctx w = {.fn = fn, .ctx = ctx, .err = err};

    for (uint64_t i = 0; i * PHX_TLOG_TILE_WIDTH < l->cp.c.size && w.rc == 0; i++) {
        int rc = walk_bundle(l, i, &w);

        if (rc != 0)
            return rc < 0 ? rc : 0;
    }
    return 0;
}

struct take_ctx {
    uint64_t        leaf;
    struct phx_buf *out;
};

static int take_entry(void *ctx, uint64_t leaf, const char *bytes, size_t size, struct phx_err *err)
{
    struct take_ctx *t = ctx;

    (void)err;
    if (leaf != t->leaf)
        return 0;
    phx_buf_clear(t->out);
    phx_buf_put(t->out, bytes, size);
    phx_buf_puts(t->out, "");
    return 1;
}

int phx_log_entry(struct phx_log *l, uint64_t leaf, struct phx_buf *out, struct phx_err *err)
{
    struct take_ctx t = {.leaf = leaf, .out = out};
    struct walk_ctx w = {.fn = take_entry, .ctx = &t, .err = err};
    int             rc;

    if (leaf >= l->cp.c.size)
        return phx_fail(err, PHX_E_INVALID, "there is no record %llu: the checkpoint is of %llu",
                        (unsigned long long)leaf, (unsigned long long)l->cp.c.size);
    rc = walk_bundle(l, leaf / PHX_TLOG_TILE_WIDTH, &w);
    return rc < 0 ? rc : 0;
}

/* ---- hashes ----------------------------------------------------------------------------------------------- */

static int load_tile(struct phx_log *l, int level, uint64_t index, size_t least, struct phx_err *err)
{
    char     base[PHX_TLOG_PATH_BYTES], name[PHX_V_NAME_MAX];
    uint64_t count = (l->cp.c.size >> (8 * level)) - index * PHX_TLOG_TILE_WIDTH;
    int      found, rc = 0;

    phx_tile_base(level, index, base);
    if (strcmp(base, l->tile_base) != 0) {
        l->tile_base[0] = '\0';
        rc = phx_vfolder_tile(&l->folder, base, count < PHX_TLOG_TILE_WIDTH ? (int)count : PHX_TLOG_TILE_WIDTH,
                             false, &l->tile, &found, name, err);
        if (rc == 0)
            memcpy(l->tile_base, base, sizeof(base));
    }
    if (rc == 0 && l->tile.size < least * PHX_TLOG_HASH_BYTES)
        rc = phx_fail(err, PHX_E_FORMAT, "%s: cut short", base);
    return rc;
}

/* Hashes between two tile levels are computed from the tile below them. */
int phx_log_read(void *log, int level, uint64_t index, struct phx_tlog_hash *out, struct phx_err *err)
{
    struct phx_log      *l = log;
    int                  up = level % 8;
    size_t               n = (size_t)1 << up;
    uint64_t             first = index << up;
    size_t               at = (size_t)(first % PHX_TLOG_TILE_WIDTH);
    struct phx_tlog_hash nodes[128];
    int                  rc = load_tile(l, level / 8, first / PHX_TLOG_TILE_WIDTH, at + n, err);

    if (rc != 0)
        return rc;
    memcpy(nodes, l->tile.data + at * PHX_TLOG_HASH_BYTES, n * PHX_TLOG_HASH_BYTES);
    for (; n > 1; n /= 2)
        for (size_t i = 0; i < n / 2; i++)
            phx_tlog_node(&nodes[2 * i], &nodes[2 * i + 1], &nodes[i]);
    *out = nodes[0];
    return 0;
}

int phx_log_prove(struct phx_log *l, uint64_t leaf, const struct phx_buf *record,
                  struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX], struct phx_err *err)
{
    struct phx_tlog_hash hash;
    int                  n = phx_tlog_prove_inclusion(leaf, l->cp.c.size, phx_log_read, l, proof, err);

    phx_tlog_leaf(record->data, record->size, &hash);
    if (n >= 0 && !phx_tlog_check_inclusion(leaf, l->cp.c.size, &hash, proof, n, &l->cp.c.root))
        return phx_fail(err, PHX_E_FORMAT, "record %llu is not in the tree of the checkpoint",
                        (unsigned long long)leaf);
    return n;
}
