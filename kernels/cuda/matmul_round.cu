/* SPDX-License-Identifier: Apache-2.0
 * Activations as the matrix unit takes them: rounded to bf16, or quantised to integers that are bf16. */
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/quantise.cuh"

enum { THREADS = 256, WARPS = THREADS / PHX_WARP };

static __global__ void __launch_bounds__(THREADS) round_rows(struct cuda_round a)
{
    phx_begin();
    int64_t item = (int64_t)blockIdx.x * WARPS + (int64_t)threadIdx.x / PHX_WARP;
    int     lane = (int)threadIdx.x % PHX_WARP;
    int32_t tile = (int32_t)(item / a.cut.n_blocks), block = (int32_t)(item % a.cut.n_blocks);
    int32_t row = tile * CUDA_X_ROWS + lane / 4;
    float   v[8];

    if (tile * CUDA_X_ROWS >= a.n_rows)
        return;
    struct cuda_block_k b = cuda_find_block(a.cut, block);
    const float        *x = a.x + row * a.x_stride + b.first;

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int k = i / 2 * 8 + lane % 4 * 2 + i % 2;

        v[i] = row < a.n_rows && k < b.n ? x[k] : 0.0f;
    }
    ((uint4 *)a.out)[item * PHX_WARP + lane] = make_uint4(phx_bf16_pair(v[0], v[1]), phx_bf16_pair(v[2], v[3]),
                                                          phx_bf16_pair(v[4], v[5]), phx_bf16_pair(v[6], v[7]));
}

/* A warp quantises a group of a row.  Rows up to the end of the last tile are zeros. */
static __global__ void __launch_bounds__(THREADS) quantise_rows(struct cuda_round a)
{
    phx_begin();
    int64_t item = (int64_t)blockIdx.x * WARPS + (int64_t)threadIdx.x / PHX_WARP;
    int     lane = (int)threadIdx.x % PHX_WARP;
    int32_t rows = (a.n_rows + CUDA_X_ROWS - 1) / CUDA_X_ROWS * CUDA_X_ROWS;
    int32_t row = (int32_t)(item / a.cut.n_groups), index = (int32_t)(item % a.cut.n_groups);
    float   v[I8_OF_LANE], scale;

    if (row >= rows)
        return;
    struct cuda_group group = cuda_find_group(a.cut, index);
    uint16_t         *to = (uint16_t *)a.out + ((int64_t)(row / CUDA_X_ROWS) * a.cut.n_blocks + group.block) * 256;

    to += (row % CUDA_X_ROWS * 4 + lane % 8 / 2) * 8 + lane / 8 * 2 + lane % 2;
#pragma unroll
    for (int i = 0; i < I8_OF_LANE; i++) {
        int k = i * PHX_WARP + lane;

        v[i] = row < a.n_rows && k < group.n ? a.x[row * a.x_stride + group.k + k] : 0.0f;
    }
    scale = i8_find_scale(v);
#pragma unroll
    for (int i = 0; i < I8_OF_LANE; i++)
        if (i * CUDA_BLOCK_K < group.n)
            to[i * 256] = phx_bf16_bits((float)i8_quantise(v[i], scale));
    if (lane == 0)
        a.scale[(int64_t)index * rows + row] = scale;
}

int phx_cuda_round_rows(cudaStream_t stream, const struct cuda_round *a)
{
    int64_t warps = (int64_t)count_pieces(a->n_rows, CUDA_X_ROWS) * a->cut.n_blocks;

    return PHX_LAUNCH(round_rows, (unsigned)((warps + WARPS - 1) / WARPS), THREADS, 0, stream, *a);
}

int phx_cuda_quantise_rows(cudaStream_t stream, const struct cuda_round *a)
{
    int64_t warps = (int64_t)count_pieces(a->n_rows, CUDA_X_ROWS) * CUDA_X_ROWS * a->cut.n_groups;

    return PHX_LAUNCH(quantise_rows, (unsigned)((warps + WARPS - 1) / WARPS), THREADS, 0, stream, *a);
}
