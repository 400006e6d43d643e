/* SPDX-License-Identifier: Apache-2.0
 * A step reads one row per token: however it lies, that is nothing beside the products. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/weight.cuh"

enum { THREADS = 128 };

static __global__ void __launch_bounds__(THREADS) embed_kernel(struct cuda_embed_call c)
{
    phx_begin();
    int64_t row = (int64_t)c.ids[blockIdx.x] - c.first_row;
    int     k = (int)blockIdx.y * THREADS + (int)threadIdx.x;

    if (k >= c.table.k)
        return;
    c.out[(int64_t)blockIdx.x * c.out_stride + k] =
        row >= 0 && row < c.table.n ? cuda_weight_value(c.table, 0, (int32_t)row, k) : 0.0f;
}

int phx_cuda_embed_rows(cudaStream_t stream, const struct cuda_embed_call *c)
{
    dim3 grid((unsigned)c->n_rows, (unsigned)((c->table.k + THREADS - 1) / THREADS));

    return PHX_LAUNCH(embed_kernel, grid, THREADS, 0, stream, *c);
}
