/* SPDX-License-Identifier: Apache-2.0
 * Operands of products by the library: plain rows of bf16. */
#include "kernels/cuda/library.h"
#include "kernels/cuda/matmul.cuh"

enum { THREADS = 256, WARPS = THREADS / PHX_WARP };

/* A warp writes a block of a tile: register r of a lane is two adjacent k of one row. */
static __global__ void __launch_bounds__(THREADS) write_out(struct cuda_write_out a)
{
    phx_begin();
    int64_t item = (int64_t)blockIdx.x * WARPS + (int64_t)threadIdx.x / PHX_WARP;
    int     lane = (int)threadIdx.x % PHX_WARP;
    int32_t tile = (int32_t)(item / a.w.cut.n_blocks), block = (int32_t)(item % a.w.cut.n_blocks);

    if (tile * CUDA_TILE_ROWS >= a.n_rows)
        return;
    struct cuda_block_k b = cuda_find_block(a.w.cut, block);
    cuda_bf16::raw      raw;
    uint32_t            v[2][4];

    cuda_bf16::load(raw, a.w.data + (size_t)(a.first_row / CUDA_TILE_ROWS + tile) * a.w.tile_bytes, block, lane);
    cuda_bf16::decode(v, raw);
#pragma unroll
    for (int e = 0; e < 16; e += 2) {
        int32_t   row = tile * CUDA_TILE_ROWS + cuda_row_of(lane, e), k = cuda_k_of(lane, e);
        uint32_t  pair = v[e / 8][e / 2 % 4];
        uint16_t *to = a.out + row * a.stride + b.first + k;

        if (row >= a.n_rows || k >= b.n)
            continue;
        if (k + 1 < b.n && b.first % 2 == 0)
            *(uint32_t *)(void *)to = pair;
        else {
            to[0] = (uint16_t)pair;
            if (k + 1 < b.n)
                to[1] = (uint16_t)(pair >> 16);
        }
    }
}

static __global__ void __launch_bounds__(THREADS) round_plain(struct cuda_round_plain a)
{
    phx_begin();
    int64_t item = (int64_t)blockIdx.x * THREADS + (int64_t)threadIdx.x;
    int64_t row = item / (a.stride / 2), k = item % (a.stride / 2) * 2;

    if (row >= a.n_rows)
        return;
    const float *x = a.x + row * a.x_stride + k;

    *(uint32_t *)(void *)(a.out + row * a.stride + k) = phx_bf16_pair(k < a.k ? x[0] : 0.0f, k + 1 < a.k ? x[1] : 0.0f);
}

int phx_cuda_write_out(cudaStream_t stream, const struct cuda_write_out *a)
{
    int64_t warps = (int64_t)count_pieces(a->n_rows, CUDA_TILE_ROWS) * a->w.cut.n_blocks;

    return PHX_LAUNCH(write_out, (unsigned)((warps + WARPS - 1) / WARPS), THREADS, 0, stream, *a);
}

int phx_cuda_round_plain(cudaStream_t stream, const struct cuda_round_plain *a)
{
    int64_t items = a->n_rows * (a->stride / 2);

    return PHX_LAUNCH(round_plain, (unsigned)((items + THREADS - 1) / THREADS), THREADS, 0, stream, *a);
}
