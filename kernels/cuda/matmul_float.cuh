/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: products in float32 for weights of every kind: a block of the grid owns 16 outputs of one or eight rows;
 * its warps take the segments in turn.  A lane has the elements that the tile gives it: two outputs, an eighth of the k of a
 * block. */
#ifndef PHX_KERNELS_CUDA_MATMUL_FLOAT_CUH
#define PHX_KERNELS_CUDA_MATMUL_FLOAT_CUH

#include "kernels/cuda/matmul.cuh"

enum { FLOAT_BLOCKS = CUDA_FLOAT_SEGMENT_BLOCKS, FLOAT_STRIDE = part_of<CUDA_TILE_ROWS>::STRIDE };

/* Warps of a block of the grid: what eight rows need of registers leaves room for eight. */
template <int ROWS> struct warps_of {
    enum { MAX = ROWS == 1 ? 16 : 8 };
};

/* Eight floats of a row in a block, those of the lane; n: how many k there are from the lane's first on. */
static __device__ __forceinline__ void load_x(float v[8], const float *x, int n)
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = i / 2 * 8 + i % 2 < n ? __ldca(x + i / 2 * 8 + i % 2) : 0.0f;
}

/* The lane's sums of a segment. */
template <class W, int ROWS>
static __device__ __forceinline__ void sum_blocks(float acc[ROWS][2], const struct cuda_product &a,
                                                  const unsigned char *tile, const struct segment &s, int32_t row)
{
    int             lane = (int)threadIdx.x % PHX_WARP, t = lane % 4;
    int32_t         k_end = a.w.cut.k_end[s.slice], k = s.first < s.end ? cuda_find_block(a.w.cut, s.first).first : 0;
    typename W::raw raw[FLOAT_BLOCKS];

#pragma unroll
    for (int i = 0; i < FLOAT_BLOCKS; i++)
        if (s.first + i < s.end)
            W::load(raw[i], tile, s.first + i, lane);
#pragma unroll
    for (int i = 0; i < FLOAT_BLOCKS; i++, k += CUDA_BLOCK_K)
        if (s.first + i < s.end) {
            float w[16];

            W::floats(w, raw[i]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                int32_t x_row = row + r < a.n_rows ? row + r : row; /* what is not there is not written */
                float   x[8];

                load_x(x, a.x + x_row * a.x_stride + k + t * 2, k_end - k - t * 2);
#pragma unroll
                for (int e = 0; e < 16; e++)
                    acc[r][e / 2 % 2] = __fmaf_rn(w[e], x[e / 4 * 2 + e % 2], acc[r][e / 2 % 2]);
            }
        }
}

/* The block's outputs.  shared: as count_float_bytes() says. */
template <class W, int ROWS>
static __device__ __forceinline__ void float_outputs(const struct cuda_product &a, const struct corner &at, float *shared)
{
    int                  lane = (int)threadIdx.x % PHX_WARP, warp = (int)threadIdx.x / PHX_WARP;
    float               *state = shared + (int)blockDim.x / PHX_WARP * ROWS * FLOAT_STRIDE;
    const unsigned char *tile = a.w.data + (size_t)(at.output / CUDA_TILE_ROWS) * a.w.tile_bytes;
    struct segment       round = first_segment(a.w.cut, FLOAT_BLOCKS), next;

    for (; round.slice < a.w.cut.n_slices; round = next) {
        struct segment s = share_segment<FLOAT_BLOCKS>(a.w.cut, round, &next);
        float          acc[ROWS][2] = {};

        sum_blocks<W, ROWS>(acc, a, tile, s, at.row);
#pragma unroll
        for (int i = 0; i < ROWS * 2; i++) {
            float v = acc[i / 2][i % 2];

            v = __fadd_rn(v, phx_shfl_xor(v, 1));
            v = __fadd_rn(v, phx_shfl_xor(v, 2));
            if (lane % 4 == i % 4)
                shared[(warp * ROWS + i / 2) * FLOAT_STRIDE + i % 2 * 8 + lane / 4] = v;
        }
        __syncthreads();
        join_round<false, FLOAT_BLOCKS, CUDA_TILE_ROWS, ROWS>(a, at, round, shared, state);
        __syncthreads();
    }
}

template <int ROWS> static inline size_t count_float_bytes(const struct cuda_product *a, int n_warps)
{
    return ((size_t)n_warps * ROWS * FLOAT_STRIDE +
            (size_t)CUDA_TILE_ROWS * ROWS * (a->w.cut.n_slices > 1 ? 1 + SLICE_LEVELS : 1)) * sizeof(float);
}

#endif
