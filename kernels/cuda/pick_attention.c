/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/pick_attention.h"

enum {
    NARROW_QUERIES = 2 * CUDA_UNIT_QUERIES, /* up to here the keys of a sequence pass once or twice */
    FEW_LEAVES = 4,                         /* a second launch takes longer than walking these */
    BUSY_BLOCKS = 4,                        /* of one warp per multiprocessor: enough loads in flight */
    WIDE_128_BYTES = 104 << 10,             /* what four warps need for 128 d: compute capability 8.6 has 99 KB */
    JOIN_ROUNDS = 4,                        /* to the memory and back: about what a second launch takes */
    PIECES_MAX = 65535                      /* of a grid's z, units when pieces are joined */
};

int32_t phx_cuda_pick_attention(enum phx_compute compute, const struct phx_kv_desc *kv)
{
    int32_t of_copy = phx_kv_has_scales(kv->dtype) ? 16 : 8; /* d of 16 bytes */

    if (compute != PHX_COMPUTE_BF16 || kv->dtype == PHX_DTYPE_F32 || kv->head_dim % of_copy != 0 || kv->head_dim > 128)
        return 0;
    return kv->head_dim <= 64 ? 64 : 128;
}

bool phx_cuda_pick_narrow(int32_t n_rows, int32_t n_heads, int32_t dim, size_t shared_max)
{
    return (int64_t)n_rows * n_heads <= NARROW_QUERIES || (dim == 128 && shared_max < WIDE_128_BYTES);
}

int32_t phx_cuda_pick_unit(bool is_narrow, int32_t dim)
{
    if (is_narrow)
        return CUDA_UNIT_QUERIES;
    return dim == 64 ? 8 * CUDA_UNIT_QUERIES : 4 * CUDA_UNIT_QUERIES; /* 32 a warp do not fit beside 128 d */
}

/* n_pieces of all units, n_max of one. */
static bool fits(const struct cuda_split_shape *s, int64_t n_pieces, int32_t n_max)
{
    return n_max <= PIECES_MAX && s->n_units <= PIECES_MAX &&
           (uint64_t)n_pieces * (uint64_t)s->n_kv <= PHX_CUDA_PIECES_BYTES / s->slot_bytes;
}

enum cuda_split phx_cuda_pick_split(const struct cuda_split_shape *s)
{
    int64_t busy = (int64_t)s->sm_count * (s->is_narrow ? BUSY_BLOCKS : 1);
    bool    is_busy_in_parts = s->n_parts * s->n_kv >= busy;

    if (s->leaves_max <= FEW_LEAVES)
        return CUDA_SPLIT_NONE;
    if (s->is_narrow && !is_busy_in_parts && fits(s, s->n_leaves, s->leaves_max))
        return CUDA_SPLIT_LEAVES;
    /* a unit per multiprocessor keeps a wide kernel busy; a narrow one also wants even shares */
    if (s->n_parts == s->n_units || (!s->is_narrow && s->n_units * s->n_kv >= busy))
        return CUDA_SPLIT_NONE;
    return fits(s, s->n_parts, s->leaves_max / CUDA_PART_LEAVES + 2) ? CUDA_SPLIT_PARTS : CUDA_SPLIT_NONE;
}

bool phx_cuda_pick_joining(int32_t dim, int32_t slot_queries, int32_t n_pieces, int64_t n_joins)
{
    int64_t at_once = 128 / dim; /* queries of a warp: a lane has four d of one */
    int64_t rounds = ((int64_t)n_pieces + CUDA_JOIN_AHEAD - 1) / CUDA_JOIN_AHEAD * ((slot_queries + at_once - 1) / at_once);

    return rounds <= JOIN_ROUNDS && n_joins <= CUDA_JOINS_MAX;
}

const char *phx_cuda_split_name(enum cuda_split split)
{
    return split == CUDA_SPLIT_LEAVES ? "leaves" : split == CUDA_SPLIT_PARTS ? "parts" : "none";
}
