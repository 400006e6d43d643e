/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: which way attention goes.  Pure.  The kernel decides bits, so it follows from the model
 * alone; how the leaves are shared out decides none (attention.h) and follows from the work. */
#ifndef PHX_KERNELS_CUDA_PICK_ATTENTION_H
#define PHX_KERNELS_CUDA_PICK_ATTENTION_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_LEAF_TOKENS = 64,
    CUDA_PART_LEAVES = 8,
    CUDA_PART_TOKENS = CUDA_LEAF_TOKENS * CUDA_PART_LEAVES,
    CUDA_ATTENTION_DIM_MAX = 512,
    CUDA_UNIT_QUERIES = 16, /* of one tensor core product */
    CUDA_JOIN_AHEAD = 16,   /* pieces of a query that one warp has on their way at once */
    CUDA_JOINS_MAX = 4096   /* counters of a launch */
};

/* How the leaves of a sequence are shared out. */
enum cuda_split {
    CUDA_SPLIT_NONE = 1, /* one block walks all of them and writes the result */
    CUDA_SPLIT_PARTS,    /* a block per part */
    CUDA_SPLIT_LEAVES    /* a block per leaf */
};

/* The padded head_dim of the tiled kernels, 64 or 128; 0: the plain kernel. */
int32_t phx_cuda_pick_attention(enum phx_compute compute, const struct phx_kv_desc *kv);

/* Whether a sequence of n_rows rows with n_heads heads per kv head goes in units of one warp; shared_max: bytes that
 * a block may have. */
bool phx_cuda_pick_narrow(int32_t n_rows, int32_t n_heads, int32_t dim, size_t shared_max);

/* Queries of a unit: of one warp, or of the four that share leaves. */
int32_t phx_cuda_pick_unit(bool is_narrow, int32_t dim);

/* The work of one launch. */
struct cuda_split_shape {
    bool    is_narrow;
    int32_t sm_count;
    int32_t n_kv;              /* kv heads */
    int32_t leaves_max;        /* of a unit */
    int64_t n_units, n_parts, n_leaves; /* sums over the units */
    size_t  slot_bytes;        /* of a piece of one kv head */
};

/* Whether the last block of each unit joins its pieces, n_joins units and kv heads in all; else a second launch does,
 * which has a block per query.  Of narrow units. */
bool phx_cuda_pick_joining(int32_t dim, int32_t slot_queries, int32_t n_pieces, int64_t n_joins);

/* The scratch that a split may take; more pieces, and keys are not shared out. */
#ifndef PHX_CUDA_PIECES_BYTES
#define PHX_CUDA_PIECES_BYTES ((size_t)64 << 20)
#endif

enum cuda_split phx_cuda_pick_split(const struct cuda_split_shape *s);
const char     *phx_cuda_split_name(enum cuda_split split);

#ifdef __cplusplus
}
#endif

#endif
