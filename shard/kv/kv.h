/* SPDX-License-Identifier: Apache-2.0
 * The bookkeeping of the paged key/value cache: which block belongs to whom, and which prefixes can be
 * reused.  Pure: block ids only, no device memory, no clock (the caller counts ticks).
 *
 * A full block is named by the chain hash of (tenant salt, all tokens up to its end); a sequence that
 * starts with the same tokens under the same salt shares it.  Blocks without a user stay findable until
 * they are needed, least recently used first. */
#ifndef PHX_SHARD_KV_H
#define PHX_SHARD_KV_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"

enum { PHX_KV_SALT_BYTES = 32, PHX_KV_NONE = -1 };

struct phx_kv_pool;

struct phx_kv_stats {
    int32_t  n_blocks, n_free, n_cached, n_used;
    uint64_t hit_tokens, lookup_tokens, evictions;
};

int  phx_kv_pool_create(int32_t n_blocks, int32_t block_tokens, struct phx_kv_pool **out,
                        struct phx_err *err) PHX_CHECKED;
void phx_kv_pool_destroy(struct phx_kv_pool *p);

/* One sequence's blocks; caller's storage, zeroed by init.  blocks has room for max_blocks. */
struct phx_kv_seq {
    int32_t *blocks;
    int32_t  max_blocks;
    int32_t  n_blocks;
    int32_t  n_sealed;      /* leading blocks that carry a chain hash */
    uint8_t  chain[32];     /* hash up to the last sealed block */
};

void phx_kv_seq_init(struct phx_kv_seq *s, int32_t *blocks, int32_t max_blocks,
                     const uint8_t salt[PHX_KV_SALT_BYTES]);

/* Takes over every cached block of the longest matching prefix of tokens[n_tokens], at most n_tokens - 1
 * tokens (one token must be computed).  Returns the number of tokens found (a multiple of block_tokens). */
int32_t phx_kv_match(struct phx_kv_pool *p, struct phx_kv_seq *s, const int32_t *tokens,
                     int32_t n_tokens);

/* Gives back what match (which returned `found` for n_tokens) took, and the statistics forget the lookup: the
 * sequence will ask again. */
void phx_kv_unmatch(struct phx_kv_pool *p, struct phx_kv_seq *s, int32_t found, int32_t n_tokens);

/* Makes room for positions 0 .. n_tokens-1.  All or nothing: PHX_E_BUSY when blocks are short. */
int phx_kv_extend(struct phx_kv_pool *p, struct phx_kv_seq *s, int32_t n_tokens);

/* Names the blocks that positions 0 .. n_tokens-1 have filled, so that others may share them. */
void phx_kv_seal(struct phx_kv_pool *p, struct phx_kv_seq *s, const int32_t *tokens, int32_t n_tokens);

/* Gives all blocks back (sealed ones stay findable). */
void phx_kv_release(struct phx_kv_pool *p, struct phx_kv_seq *s);

/* Blocks that extend() could hand out now. */
int32_t phx_kv_available(const struct phx_kv_pool *p);
void    phx_kv_stats(const struct phx_kv_pool *p, struct phx_kv_stats *stats);
/* Every invariant, for tests: counts add up, no block is lost or doubled. */
bool phx_kv_is_consistent(const struct phx_kv_pool *p);

#endif
