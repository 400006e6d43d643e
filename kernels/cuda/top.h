/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: the best logits of each row.
 *
 * A logit and its index are one 64-bit key whose order is that of phx_top; no two keys of a row are equal, so the best
 * are the same however they are found.  A block keeps the best `width` of CUDA_TOP_SEGMENT keys, the next launch the
 * best of what was kept, until one block has all of a row.  The first launch also sums e^logit per segment: a thread's
 * chain, then the tree of halves; segments are joined in order. */
#ifndef PHX_KERNELS_CUDA_TOP_H
#define PHX_KERNELS_CUDA_TOP_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { CUDA_TOP_SEGMENT = 4096 };

/* Rows (and draws of draw.c) go in batches that take no more scratch. */
#ifndef PHX_CUDA_TOP_BYTES
#define PHX_CUDA_TOP_BYTES ((size_t)8 << 20)
#endif

/* One launch: a block per row and segment. */
struct cuda_top_call {
    const float    *logits; /* [n_rows][..] */
    int64_t         logits_stride;
    const uint64_t *in;     /* keys [n_rows][n]; NULL: n logits of each row */
    uint64_t       *out;    /* keys [n_rows][n_segments][width]; NULL: the results (n_segments is 1) */
    float          *sums;   /* [n_rows][n_sums][2]: largest, sum; written by the launch that reads logits */
    int32_t         n_rows, n, n_segments, n_sums;
    int32_t         width, top_k; /* the power of two from top_k on */
    int32_t        *ids;    /* [n_rows][top_k] */
    float          *values, *lse;
    int64_t         ids_stride, values_stride, lse_stride;
};
int phx_cuda_top_segments(cudaStream_t stream, const struct cuda_top_call *call);

/* Bytes of scratch that phx_cuda_top takes at most for so many rows and that top_k or a smaller one. */
size_t phx_cuda_top_scratch(int32_t n_rows, int32_t columns, int32_t top_k);

/* Entry of struct phx_ops. */
void phx_cuda_top(void *device, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
                  struct phx_tensor logits);

#ifdef __cplusplus
}
#endif
#endif
