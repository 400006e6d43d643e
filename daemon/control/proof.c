/* SPDX-License-Identifier: Apache-2.0
 * Proofs from the published tiles.  Tiles that do not lead to the checkpoint's root are damaged: a proof from
 * them would make an honest log look forged, so none is given. */
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/config/config.h"
#include "daemon/control/job.h"
#include "daemon/store/store.h"

struct proof {
    struct phx_control_job   *job;
    struct phx_tiles         *tiles;
    uint64_t                  size;
    struct phx_tlog_hash      root;
    struct phx_rpc_prove_answer *out;
    /* of a receipt */
    const char *receipt;
    uint64_t    index;
    bool        is_found;
};

/* The last leaf of a receipt: its result, once there is one. */
static int take_index(void *ctx, const struct phx_leaf *leaf)
{
    struct proof *p = ctx;

    p->index = leaf->index;
    p->is_found = true;
    return 0;
}

static int find_index(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct proof *p = ctx;

    return phx_audit_find(tx, p->receipt, take_index, p, err);
}

static void keep_hashes(struct proof *p, const struct phx_tlog_hash *hashes, int n)
{
    struct phx_tlog_hash *copies = phx_arena_calloc(p->job->arena, (size_t)n, sizeof(*copies));
    struct phx_rpc_bytes *list = phx_arena_calloc(p->job->arena, (size_t)n, sizeof(*list));

    for (int i = 0; i < n; i++) {
        copies[i] = hashes[i];
        list[i] = (struct phx_rpc_bytes){copies[i].bytes, sizeof(copies[i].bytes)};
    }
    p->out->hashes = list;
    p->out->n_hashes = n;
}

/* The record as the database has it says when and whose it is; the bytes that count are the tiles'. */
static int keep_record(void *ctx, const struct phx_leaf *leaf)
{
    struct proof          *p = ctx;
    struct phx_rpc_record *r = &p->out->record;

    r->kind = phx_arena_strdup(p->job->arena, leaf->kind);
    r->unix_ns = leaf->at_ns;
    r->tenant = phx_arena_strdup(p->job->arena, leaf->tenant);
    return 0;
}

static int read_record(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct proof               *p = ctx;
    const struct phx_leaf_query q = {.from = p->index, .below = p->index + 1};

    return phx_audit_search(tx, &q, keep_record, p, err);
}

static int prove_inclusion(struct proof *p, struct phx_err *err)
{
    struct phx_tlog_hash hashes[PHX_TLOG_PROOF_MAX], leaf;
    struct phx_buf       record;
    char                *copy;
    int                  n = 0, rc;

    phx_buf_init(&record, PHX_TLOG_ENTRY_MAX_BYTES + 1);
    rc = phx_tiles_entry(p->tiles, p->index, &record, err);
    if (rc == 0) {
        n = phx_tlog_prove_inclusion(p->index, p->size, phx_tiles_read, p->tiles, hashes, err);
        rc = n < 0 ? n : 0;
    }
    phx_tlog_leaf(record.data, record.size, &leaf);
    if (rc == 0 && !phx_tlog_check_inclusion(p->index, p->size, &leaf, hashes, n, &p->root))
        rc = phx_fail(err, PHX_E_IO, "leaf %llu: the published tiles are damaged",
                      (unsigned long long)p->index);
    if (rc == 0) {
        copy = phx_arena_calloc(p->job->arena, 1, record.size + 1);
        memcpy(copy, record.data, record.size);
        p->out->has_record = true;
        p->out->record = (struct phx_rpc_record){.index = p->index, .leaf = {copy, record.size}};
        p->out->index = p->index;
        keep_hashes(p, hashes, n);
        rc = phx_store_read(p->job->d->store, read_record, p, err);
    }
    phx_buf_fini(&record);
    return rc;
}

static int prove_consistency(struct proof *p, uint64_t old_size, struct phx_err *err)
{
    struct phx_tlog_hash hashes[PHX_TLOG_PROOF_MAX], old_root;
    int                  n, rc;

    if (old_size == 0 || old_size > p->size)
        return phx_fail(err, PHX_E_INVALID, "old_tree_size is %llu (allowed 1 to %llu)",
                        (unsigned long long)old_size, (unsigned long long)p->size);
    rc = phx_tlog_root(old_size, phx_tiles_read, p->tiles, &old_root, err);
    if (rc != 0)
        return rc;
    n = phx_tlog_prove_consistency(old_size, p->size, phx_tiles_read, p->tiles, hashes, err);
    if (n < 0)
        return n;
    if (!phx_tlog_check_consistency(old_size, p->size, &old_root, &p->root, hashes, n))
        return phx_fail(err, PHX_E_IO, "the published tiles are damaged");
    keep_hashes(p, hashes, n);
    return 0;
}

/* The tree asked for, and its root: the checkpoint's own, which its signature covers, for the newest. */
static int choose_tree(struct proof *p, uint64_t size, struct phx_err *err)
{
    const struct phx_buf *note = phx_tiles_note(p->tiles, &p->root);
    char                 *copy;

    p->size = size > 0 ? size : phx_tiles_size(p->tiles);
    p->out->tree_size = p->size;
    if (p->size > phx_tiles_size(p->tiles))
        return phx_fail(err, PHX_E_NOTFOUND, "tree_size is %llu: the published log has %llu leaves",
                        (unsigned long long)p->size, (unsigned long long)phx_tiles_size(p->tiles));
    if (p->size < phx_tiles_size(p->tiles))
        return phx_tlog_root(p->size, phx_tiles_read, p->tiles, &p->root, err);
    copy = phx_arena_calloc(p->job->arena, 1, note->size + 1);
    memcpy(copy, note->data, note->size);
    p->out->checkpoint = (struct phx_rpc_bytes){copy, note->size};
    return 0;
}

static int choose_leaf(struct proof *p, const struct phx_rpc_audit_prove *request, struct phx_err *err)
{
    int rc = 0;

    p->index = request->index;
    if (request->what == PHX_RPC_PROVE_RECEIPT) {
        p->receipt = request->receipt_id;
        rc = phx_store_read(p->job->d->store, find_index, p, err);
        if (rc == 0 && !p->is_found)
            rc = phx_fail(err, PHX_E_NOTFOUND, "the audit log has no such receipt");
    }
    if (rc == 0 && p->index >= p->size)
        rc = phx_fail(err, PHX_E_NOTFOUND, "leaf %llu is not in a tree of %llu leaves (yet)",
                      (unsigned long long)p->index, (unsigned long long)p->size);
    return rc;
}

int phx_control_prove(struct phx_control_job *job, const struct phx_rpc_audit_prove *request,
                      struct phx_err *err)
{
    struct proof p = {.job = job, .out = &job->answer.u.audit_prove};
    char        *dir = phx_mem_printf("%s/audit", job->d->config->data_dir);
    int          rc = phx_tiles_open(dir, &p.tiles, err);

    phx_mem_free(dir);
    if (rc != 0)
        return rc;
    rc = choose_tree(&p, request->tree_size, err);
    if (rc == 0 && request->what == PHX_RPC_PROVE_CONSISTENCY) {
        rc = prove_consistency(&p, request->old_tree_size, err);
    } else if (rc == 0) {
        rc = choose_leaf(&p, request, err);
        if (rc == 0)
            rc = prove_inclusion(&p, err);
    }
    phx_tiles_close(p.tiles);
    return rc;
}
