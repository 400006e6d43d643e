/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/kv.h"
#include "kernels/cuda/quantise.cuh"

enum { THREADS = 256, WARPS = THREADS / PHX_WARP, DIM_MAX = 512, GROUPS_MAX = DIM_MAX / (I8_OF_LANE * PHX_WARP) };

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

    if (c.kv.kind == CUDA_KV_BF16) {
        static_cast<uint16_t *>(c.kv.data)[at] = phx_bf16_bits(k);
        static_cast<uint16_t *>(c.kv.data)[at + c.kv.v_offset] = phx_bf16_bits(v);
    } else {
        static_cast<float *>(c.kv.data)[at] = k;
        static_cast<float *>(c.kv.data)[at + c.kv.v_offset] = v;
    }
}

/* By one warp: head_dim numbers with one scale. */
static __device__ void write_i8(const float *x, int head_dim, signed char *to, float *scale_at)
{
    int   lane = (int)threadIdx.x % PHX_WARP;
    float v[GROUPS_MAX][I8_OF_LANE], scale = 0;

#pragma unroll
    for (int g = 0; g < GROUPS_MAX; g++) {
        float own;

#pragma unroll
        for (int i = 0; i < I8_OF_LANE; i++) {
            int d = (g * I8_OF_LANE + i) * PHX_WARP + lane;

            v[g][i] = d < head_dim ? x[d] : 0.0f;
        }
        own = i8_find_scale(v[g]);
        scale = scale >= own ? scale : scale < own ? own : __uint_as_float(0x7fc00000u); /* one NaN is enough */
    }
#pragma unroll
    for (int g = 0; g < GROUPS_MAX; g++)
#pragma unroll
        for (int i = 0; i < I8_OF_LANE; i++) {
            int d = (g * I8_OF_LANE + i) * PHX_WARP + lane;

            if (d < head_dim)
                to[d] = (signed char)i8_quantise(v[g][i], scale);
        }
    if (lane == 0)
        *scale_at = scale;
}

/* A warp per row, head, and keys or values. */
static __global__ void __launch_bounds__(THREADS) write_i8_kernel(struct cuda_kv_write c)
{
    int row = (int)blockIdx.x, which = (int)blockIdx.y * WARPS + (int)threadIdx.x / PHX_WARP;
    int head = which / 2, seq = c.spans.seq_of_row[row];

    if (seq < 0 || head >= c.kv.kv_heads) /* the whole warp */
        return;
    int            pos = c.spans.pos_of_row[row], offset = pos % c.kv.block_tokens;
    int            block = c.spans.table[(int64_t)seq * c.spans.table_stride + pos / c.kv.block_tokens];
    const float   *x = which % 2 == 0 ? c.k + row * c.k_stride : c.v + row * c.v_stride;
    unsigned char *data = static_cast<unsigned char *>(c.kv.data) + (which % 2 == 0 ? 0 : c.kv.v_offset);

    write_i8(x + (int64_t)head * c.kv.head_dim, c.kv.head_dim,
             reinterpret_cast<signed char *>(data) + cuda_kv_at(&c.kv, block, head, offset),
             reinterpret_cast<float *>(data + cuda_kv_scale_at(&c.kv, block, head, offset)));
}

int phx_cuda_kv_write_rows(cudaStream_t stream, const struct cuda_kv_write *c)
{
    bool     is_i8 = c->kv.kind == CUDA_KV_I8;
    unsigned n = (unsigned)(is_i8 ? 2 * c->kv.kv_heads : c->kv.kv_heads * c->kv.head_dim);
    unsigned of_block = is_i8 ? WARPS : THREADS;
    dim3     grid((unsigned)c->spans.n_rows_total, (n + of_block - 1) / of_block);

    return PHX_LAUNCH(is_i8 ? write_i8_kernel : write_kernel, grid, THREADS, 0, stream, *c);
}
