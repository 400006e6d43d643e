/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: rows of a packed table as floats. */
#ifndef PHX_KERNELS_CUDA_EMBED_H
#define PHX_KERNELS_CUDA_EMBED_H

#include "kernels/cuda/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_embed_call {
    struct cuda_weight_view table;
    float                  *out; /* [n_rows][k of the table] */
    int64_t                 out_stride;
    const int32_t          *ids; /* [n_rows] */
    int32_t                 first_row, n_rows;
};

/* out[t] = table[ids[t] - first_row], zeros when the table has no such row. */
int phx_cuda_embed_rows(cudaStream_t stream, const struct cuda_embed_call *call);

/* Entry of struct phx_ops. */
void phx_cuda_embed(void *device, struct phx_tensor out, const int32_t *ids, const void *table, int32_t first_row);

#ifdef __cplusplus
}
#endif
#endif
