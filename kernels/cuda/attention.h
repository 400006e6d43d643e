/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what attention.c hands to the kernels of attention.cu and attention_plain.cu.
 *
 * A query is one row and one head.  The queries of a sequence and a kv head are numbered row by row, head by
 * head.  Keys are cut at absolute positions, so no bit of a query depends on what else runs:
 *
 *   leaf  64 positions: s = q k, m = largest s, p = exp(s - m) rounded to bf16, l = sum p, acc = sum p v
 *   part  8 leaves joined in order from the empty state
 *   all   the parts joined in order from the sink's state, then acc / l
 *   join  m' = max(m, n), a = exp(m - m'), b = exp(n - m'): l = l a + k b, acc = acc a + other b
 *
 * A leaf or part of which a query sees nothing is the empty state and changes nothing.  What is no finite number is NaN
 * in the end.
 *
 * int8 with scales: s = (q k) scale of the key; the weights of acc are p times the scale of the value, rounded to bf16,
 * those of l are p rounded to bf16. */
#ifndef PHX_KERNELS_CUDA_ATTENTION_H
#define PHX_KERNELS_CUDA_ATTENTION_H

#include <stdint.h>

#include "kernels/cuda/kv.h"
#include "kernels/cuda/plan_attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Passed to kernels by value; everything that it points at is on the device. */
struct cuda_attention {
    float              *out; /* [T, n_heads * head_dim] */
    const float        *q;
    const float        *sinks; /* [n_heads] or NULL */
    int64_t             out_stride, q_stride;
    struct cuda_kv_view kv; /* of the layer */
    struct cuda_spans   spans;
    int32_t             n_heads, group, head_first, kv_first; /* of struct phx_attention_args */
    int32_t             window;
    float               scale;
    bool                is_rounded; /* q is scaled, then rounded to bf16 */

    /* of the tiled kernels */
    const struct cuda_attention_unit *units;
    int32_t         n_units;
    int32_t         kv_begin, n_kv; /* local kv heads that are read */
    int32_t         unit_queries;   /* the most queries of a unit; CUDA_UNIT_QUERIES: one warp a block */
    enum cuda_split split;
    int32_t         n_pieces;       /* the most parts or leaves of a sequence, 1 without a split */
    int32_t         slot_queries;   /* of a slot: the queries of a unit that can be there */
    uint32_t       *counters; /* [n_units][n_kv], all 0: the last block of a unit joins; NULL: phx_cuda_attend_join does */
    float          *pieces; /* [slot][n_kv]: acc [slot_queries][dim], then m and l [slot_queries][2] */
};

/* One block per row and head; any even head_dim up to CUDA_ATTENTION_DIM_MAX, float32 sums. */
int phx_cuda_attend_plain(cudaStream_t stream, const struct cuda_attention *a);

/* Tensor cores: head_dim up to 128 and a multiple of 8 (bf16 cache) or 16 (bytes), padded to `dim` 64 or 128. */
int phx_cuda_attend_tiles(cudaStream_t stream, const struct cuda_attention *a, int32_t dim);
int phx_cuda_attend_bytes(cudaStream_t stream, const struct cuda_attention *a, int32_t dim); /* its part for int8 */
int phx_cuda_attend_f8(cudaStream_t stream, const struct cuda_attention *a, int32_t dim);    /* and for E4M3 */

/* Joins the pieces that phx_cuda_attend_tiles left with a split and no counters. */
int phx_cuda_attend_join(cudaStream_t stream, const struct cuda_attention *a, int32_t dim);

/* What attention over such a cache needs of scratch. */
size_t phx_cuda_attention_scratch(const struct cuda_device *d, const struct phx_kv_desc *desc);
/* Takes the scratch of attention over such a cache ahead of the steps; false when short, the error kept. */
bool phx_cuda_attention_reserve(struct cuda_device *d, const struct phx_kv_desc *desc);

/* Entry of struct phx_ops. */
void phx_cuda_attention(void *device, const struct phx_attention_args *args, const void *kv);

#ifdef __cplusplus
}
#endif
#endif
