/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kv.h"

enum { THREADS = 256 };

static __global__ void __launch_bounds__(THREADS) write_kernel(struct cuda_kv_write c)
{
    int row = (int)blockIdx.x, i = (int)blockIdx.y * THREADS + (int)threadIdx.x;
    int seq = c.spans.seq_of_row[row];

    if (seq < 0 || i >= c.kv.kv_heads * c.kv.head_dim)
        return;
    int     pos = c.spans.pos_of_row[row];
    int     block = c.spans.table[(int64_t)seq * c.spans.table_stride + pos / c.kv.block_tokens];
    int64_t at = cuda_kv_at(&c.kv, block, i / c.kv.head_dim, pos % c.kv.block_tokens) + i % c.kv.head_dim;
    float   k = c.k[row * c.k_stride + i], v = c.v[row * c.v_stride + i];

    if (c.kv.is_bf16) {
        static_cast<uint16_t *>(c.kv.data)[at] = phx_bf16_bits(k);
        static_cast<uint16_t *>(c.kv.data)[at + c.kv.v_offset] = phx_bf16_bits(v);
    } else {
        static_cast<float *>(c.kv.data)[at] = k;
        static_cast<float *>(c.kv.data)[at + c.kv.v_offset] = v;
    }
}

int phx_cuda_kv_write_rows(cudaStream_t stream, const struct cuda_kv_write *c)
{
    dim3 grid((unsigned)c->spans.n_rows_total, (unsigned)((c->kv.kv_heads * c->kv.head_dim + THREADS - 1) / THREADS));

    return PHX_LAUNCH(write_kernel, grid, THREADS, 0, stream, *c);
}
