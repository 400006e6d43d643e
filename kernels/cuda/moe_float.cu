/* SPDX-License-Identifier: Apache-2.0
 * Products in float32 for weights of every kind: one chain of multiply-adds per slice, k ascending.  A block of the
 * grid owns 64 output rows of one tile of 16 pairs; a thread owns one row of four pairs. */
#include "kernels/cuda/moe.cuh"

enum {
    THREADS = 256,
    ROWS = 64,
    PAIRS = 16,
    OWN = PAIRS * ROWS / THREADS
};

struct float_tile {
    float w[CUDA_BLOCK_K][ROWS + 1];
    float x[PAIRS][CUDA_BLOCK_K];
};

template <class W>
static __device__ inline void load_tile(struct float_tile *to, const struct cuda_moe_product &a,
                                        const struct cuda_moe_tile &tile, int32_t block)
{
    struct cuda_block_k  b = cuda_find_block(a.w.cut, block);
    const unsigned char *expert = a.w.data + (size_t)tile.expert * a.w.expert_bytes;

    for (int i = (int)threadIdx.x; i < ROWS * CUDA_BLOCK_K; i += THREADS) {
        int     k = i % CUDA_BLOCK_K, r = i / CUDA_BLOCK_K;
        int32_t row = (int32_t)blockIdx.x * ROWS + r;

        to->w[k][r] = row < a.w.n && k < b.n
                          ? W::value(expert + (size_t)(row / CUDA_TILE_ROWS) * a.w.tile_bytes, row % CUDA_TILE_ROWS,
                                     block, k)
                          : 0.0f;
    }
    for (int i = (int)threadIdx.x; i < PAIRS * CUDA_BLOCK_K; i += THREADS) {
        int pair = i / CUDA_BLOCK_K, k = i % CUDA_BLOCK_K;

        if (pair < tile.n && k < b.n) {
            int64_t row = a.row != NULL ? a.row[tile.first + pair] : tile.first + pair;

            to->x[pair][k] = ((const float *)a.x)[row * a.x_stride + b.first + k];
        } else
            to->x[pair][k] = 0;
    }
}

static __device__ inline void write_sums(const struct cuda_moe_product &a, const struct cuda_moe_tile &tile,
                                         int32_t slice, float acc[OWN])
{
    int32_t row = (int32_t)blockIdx.x * ROWS + (int32_t)threadIdx.x % ROWS;

    for (int i = 0; i < OWN; i++) {
        int pair = (int)threadIdx.x / ROWS * OWN + i;

        if (row < a.w.n && pair < tile.n)
            a.out[((int64_t)(tile.first + pair) * a.w.cut.n_slices + slice) * a.w.n + row] =
                a.bias != NULL ? __fadd_rn(acc[i], a.bias[tile.expert * a.bias_stride + row]) : acc[i];
        acc[i] = 0;
    }
}

template <class W>
static __global__ void __launch_bounds__(THREADS) multiply_floats(const __grid_constant__ struct cuda_moe_product a)
{
    phx_begin();
    __shared__ struct float_tile shared;
    struct cuda_moe_tile         tile;
    float                        acc[OWN] = {};
    int32_t                      slice = 0;

    if ((int32_t)blockIdx.y >= *a.n_tiles)
        return;
    tile = a.tiles[blockIdx.y];
    for (int32_t block = 0; slice < a.w.cut.n_slices; block++) {
        while (slice < a.w.cut.n_slices && a.w.cut.block_end[slice] == block)
            write_sums(a, tile, slice++, acc);
        if (slice == a.w.cut.n_slices)
            break;
        load_tile<W>(&shared, a, tile, block);
        __syncthreads();
        for (int k = 0; k < CUDA_BLOCK_K; k++)
            for (int i = 0; i < OWN; i++)
                acc[i] = __fmaf_rn(shared.w[k][(int)threadIdx.x % ROWS],
                                   shared.x[(int)threadIdx.x / ROWS * OWN + i][k], acc[i]);
        __syncthreads();
    }
}

int phx_cuda_moe_float(cudaStream_t stream, const struct cuda_moe_product *a)
{
    dim3 grid((unsigned)((a->w.n + ROWS - 1) / ROWS), (unsigned)a->tiles_max);

    switch (a->w.dtype) {
    case PHX_DTYPE_MXFP4:
        return PHX_LAUNCH(multiply_floats<cuda_mxfp4>, grid, THREADS, 0, stream, *a);
    case PHX_DTYPE_BF16:
        return PHX_LAUNCH(multiply_floats<cuda_bf16>, grid, THREADS, 0, stream, *a);
    case PHX_DTYPE_F16:
        return PHX_LAUNCH(multiply_floats<cuda_f16>, grid, THREADS, 0, stream, *a);
    default:
        return PHX_LAUNCH(multiply_floats<cuda_f32>, grid, THREADS, 0, stream, *a);
    }
}
