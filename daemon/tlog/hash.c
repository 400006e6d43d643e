/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "daemon/tlog/tlog.h"
#include "rpc/base/hash.h"

enum { LEAF_PREFIX = 0x00, NODE_PREFIX = 0x01, SMALL_ENTRY_BYTES = 4096 };

void phx_tlog_leaf(const void *entry, size_t size, struct phx_tlog_hash *out)
{
    uint8_t           small[1 + SMALL_ENTRY_BYTES];
    struct phx_sha256 h;
    const uint8_t     prefix = LEAF_PREFIX;

    if (size <= SMALL_ENTRY_BYTES) { /* one call and no allocation for nearly every record */
        small[0] = prefix;
        if (size > 0)
            memcpy(small + 1, entry, size);
        phx_sha256(small, 1 + size, out->bytes);
        return;
    }
    phx_sha256_init(&h);
    phx_sha256_update(&h, &prefix, 1);
    phx_sha256_update(&h, entry, size);
    phx_sha256_final(&h, out->bytes);
}

void phx_tlog_node(const struct phx_tlog_hash *left, const struct phx_tlog_hash *right,
                   struct phx_tlog_hash *out)
{
    uint8_t both[1 + 2 * PHX_TLOG_HASH_BYTES];

    both[0] = NODE_PREFIX;
    memcpy(both + 1, left->bytes, PHX_TLOG_HASH_BYTES);
    memcpy(both + 1 + PHX_TLOG_HASH_BYTES, right->bytes, PHX_TLOG_HASH_BYTES);
    phx_sha256(both, sizeof(both), out->bytes);
}

void phx_tlog_empty(struct phx_tlog_hash *out)
{
    phx_sha256("", 0, out->bytes);
}

void phx_tlog_frontier_init(struct phx_tlog_frontier *f)
{
    memset(f, 0, sizeof(*f));
}

void phx_tlog_frontier_push(struct phx_tlog_frontier *f, const struct phx_tlog_hash *leaf)
{
    struct phx_tlog_hash hash = *leaf;

    phx_assert(f->size < UINT64_MAX);
    for (uint64_t bits = f->size; (bits & 1) != 0; bits >>= 1) {
        phx_assert(f->n_roots > 0);
        phx_tlog_node(&f->roots[--f->n_roots], &hash, &hash);
    }
    f->roots[f->n_roots++] = hash;
    f->size++;
}

void phx_tlog_frontier_root(const struct phx_tlog_frontier *f, struct phx_tlog_hash *out)
{
    struct phx_tlog_hash hash;

    if (f->n_roots == 0) {
        phx_tlog_empty(out);
        return;
    }
    hash = f->roots[f->n_roots - 1];
    for (int i = f->n_roots - 2; i >= 0; i--)
        phx_tlog_node(&f->roots[i], &hash, &hash);
    *out = hash;
}
