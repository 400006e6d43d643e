/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what the kernels of the mixture share. */
#ifndef PHX_KERNELS_CUDA_MOE_CUH
#define PHX_KERNELS_CUDA_MOE_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/cuda/glu.cuh"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/weight.cuh"

/* Rounded rows: the b operands of both steps of a block are 16 adjacent bytes per lane.  Lane t of four takes
 * k 2t, 2t+1, 2t+8, 2t+9 of the first step and the same 16 further of the second. */
static __device__ __forceinline__ int moe_place_of_k(int k)
{
    return k % 8 / 2 * 8 + k / 16 * 4 + k / 8 % 2 * 2 + k % 2;
}

static __device__ __forceinline__ int moe_k_of_place(int place)
{
    return place / 4 % 2 * 16 + place / 2 % 2 * 8 + place / 8 * 2 + place % 2;
}

enum { MOE_CHUNK = 8 /* bf16 in 16 bytes */, MOE_BLOCK_CHUNKS = CUDA_BLOCK_K / MOE_CHUNK };

/* Eight values of a rounded row: places 8 * chunk .. of a block; get(k) is the row's value. */
template <class Get>
static __device__ inline uint4 moe_round_chunk(const struct cuda_cut &cut, int32_t block, int chunk, const Get &get)
{
    struct cuda_block_k b = cuda_find_block(cut, block);
    float            v[MOE_CHUNK];

#pragma unroll
    for (int i = 0; i < MOE_CHUNK; i++) {
        int at = moe_k_of_place(chunk * MOE_CHUNK + i);

        v[i] = at < b.n ? get(b.first + at) : 0.0f;
    }
    return make_uint4(phx_bf16_pair(v[0], v[1]), phx_bf16_pair(v[2], v[3]), phx_bf16_pair(v[4], v[5]),
                      phx_bf16_pair(v[6], v[7]));
}

/* Chunk `item` of all rows. */
static __device__ inline void moe_round_item(const struct cuda_moe_round &a, int64_t item)
{
    int64_t row = item / (a.cut.n_blocks * MOE_BLOCK_CHUNKS);
    int32_t chunk = (int32_t)(item % (a.cut.n_blocks * MOE_BLOCK_CHUNKS));

    if (row < a.n_rows) {
        const float *x = a.x + row * a.x_stride;

        ((uint4 *)a.out)[item] = moe_round_chunk(a.cut, chunk / MOE_BLOCK_CHUNKS, chunk % MOE_BLOCK_CHUNKS,
                                                 [x](int32_t k) { return x[k]; });
    }
}

/* At most 512 k of a slice.  An empty slice is one empty segment. */
struct moe_segment {
    int32_t slice, first, end; /* blocks */
    bool    ends_slice;
};

static __device__ inline struct moe_segment moe_first_segment(const struct cuda_cut &k)
{
    int32_t end = min(k.block_end[0], (int32_t)CUDA_MOE_SEGMENT_BLOCKS);

    return {0, 0, end, end == k.block_end[0]};
}

/* The one behind; its slice is n_slices when there is none. */
static __device__ inline struct moe_segment moe_next_segment(const struct cuda_cut &k, struct moe_segment s)
{
    s.slice += s.ends_slice ? 1 : 0;
    s.first = s.end;
    if (s.slice < k.n_slices) {
        s.end = min(k.block_end[s.slice], s.first + CUDA_MOE_SEGMENT_BLOCKS);
        s.ends_slice = s.end == k.block_end[s.slice];
    }
    return s;
}

#endif
