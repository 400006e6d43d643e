/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: draws from rows of logits by the definition in kernels/draw.h, to its bits.
 *
 * Three launches: the largest logit of every block of logits, the sum of every block's weights, and one block of
 * threads per draw that adds the sums, finds the block of logits and weighs it once more.  A weight is never stored. */
#ifndef PHX_KERNELS_CUDA_DRAW_H
#define PHX_KERNELS_CUDA_DRAW_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All of them for n_draws draws. */
struct cuda_draw_call {
    const float           *logits; /* [..][logits_stride], n of each row */
    int64_t                logits_stride;
    int32_t                n, n_blocks; /* PHX_DRAW_BLOCK logits each, the last one what is left */
    const struct phx_draw_row *draws;       /* [n_draws] */
    int32_t                n_draws;     /* at most 65535 */
    float                 *largest;     /* [n_draws][n_blocks]: +infinity when a logit is that or NaN */
    double                *sums;        /* [n_draws][n_blocks] */
    double                *out;         /* [n_draws][out_stride] */
    int64_t                out_stride;
};
int phx_cuda_draw_largest(cudaStream_t stream, const struct cuda_draw_call *call);
int phx_cuda_draw_sums(cudaStream_t stream, const struct cuda_draw_call *call);
int phx_cuda_draw_pick(cudaStream_t stream, const struct cuda_draw_call *call);

/* Bytes of scratch that phx_cuda_draw takes at most for so many draws. */
size_t phx_cuda_draw_scratch(int32_t n_draws, int32_t columns);

/* Entry of struct phx_ops. */
void phx_cuda_draw(void *device, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws);

#ifdef __cplusplus
}
#endif
#endif
