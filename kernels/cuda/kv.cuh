/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: where elements of a step go in the cache, one by one: kinds without scales. */
#ifndef PHX_KERNELS_CUDA_KV_CUH
#define PHX_KERNELS_CUDA_KV_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/cuda/kv.h"

/* Where element i of all heads of row `row` of sequence `seq` goes. */
static __device__ __forceinline__ int64_t kv_place(const struct cuda_kv_write &c, int row, int seq, int i)
{
    int pos = c.spans.pos_of_row[row];
    int block = c.spans.table[(int64_t)seq * c.spans.table_stride + pos / c.kv.block_tokens];

    return cuda_kv_at(&c.kv, block, i / c.kv.head_dim, pos % c.kv.block_tokens) + i % c.kv.head_dim;
}

static __device__ __forceinline__ void kv_put(const struct cuda_kv_view &kv, int64_t at, float v)
{
    if (kv.kind == CUDA_KV_BF16)
        static_cast<uint16_t *>(kv.data)[at] = phx_bf16_bits(v);
    else
        static_cast<float *>(kv.data)[at] = v;
}

#endif
