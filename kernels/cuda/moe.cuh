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

/* One output of a row: per slice its pairs in slot order, then the tree; loads of MOE_AT_ONCE pairs are on their way together.
 * is_fresh: other blocks of this launch have written the slices. */
enum { MOE_AT_ONCE = 4 };
template <bool is_fresh>
static __device__ __forceinline__ float moe_join_output(const struct cuda_moe_join &a, int32_t t, int32_t i)
{
    const int32_t *place = a.place + (int64_t)t * a.top_k;
    const float   *gate = a.gates + (int64_t)t * a.gates_stride;
    float          v[PHX_SLICES_MAX] = {};

    for (int32_t from = 0; from < a.top_k; from += MOE_AT_ONCE) {
        float pair[MOE_AT_ONCE][PHX_SLICES_MAX];

#pragma unroll
        for (int j = 0; j < MOE_AT_ONCE; j++)
#pragma unroll
            for (int s = 0; s < PHX_SLICES_MAX; s++) {
                pair[j][s] = 0.0f;
                if (from + j < a.top_k && place[from + j] >= 0 && s < a.n_slices) {
                    const float *at = a.slices + ((int64_t)place[from + j] * a.n_slices + s) * a.n + i;

                    pair[j][s] = is_fresh ? phx_load_fresh(at) : *at;
                }
            }
#pragma unroll
        for (int j = 0; j < MOE_AT_ONCE; j++)
#pragma unroll
            for (int s = 0; s < PHX_SLICES_MAX; s++)
                if (from + j < a.top_k && place[from + j] >= 0)
                    v[s] = __fmaf_rn(gate[from + j], pair[j][s], v[s]);
    }
#pragma unroll
    for (int step = 1; step < PHX_SLICES_MAX; step *= 2)
#pragma unroll
        for (int s = 0; s + step < PHX_SLICES_MAX; s += 2 * step)
            if (s + step < a.n_slices)
                v[s] += v[s + step];
    return v[0];
}

#endif
