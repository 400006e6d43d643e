/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: ends of branches inside the launch of the product before them (ending.cuh). */
#ifndef PHX_KERNELS_CUDA_ENDING_H
#define PHX_KERNELS_CUDA_ENDING_H

#include "kernels/cuda/vector.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_END_THREADS = 256,      /* of a block: those that share a row in rmsnorm_kernel (vector.cu) */
    CUDA_END_COLUMNS_MAX = 4096, /* of a row, whose numbers a thread keeps in registers */
    CUDA_END_ROWS_MAX = 8        /* whose norm one block computes */
};

/* x += a product, and the norm of it: y of the call is not used. */
struct cuda_ending {
    struct cuda_add_norm_call call;
    uint32_t                 *counters; /* 0 between launches */
};

/* Whether a launch can end these rows: few, in aligned fours, and not too long. */
static inline bool cuda_can_end(const struct cuda_add_norm_call *call)
{
    return phx_cuda_add_norm_is_vector(call) && call->n <= CUDA_END_COLUMNS_MAX && call->n_rows <= CUDA_END_ROWS_MAX;
}

#ifdef __cplusplus
}
#endif
#endif
