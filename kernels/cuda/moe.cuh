/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what the kernels of the mixture share. */
#ifndef PHX_KERNELS_CUDA_MOE_CUH
#define PHX_KERNELS_CUDA_MOE_CUH

#include "kernels/cuda/device.cuh"

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

/* backend.h, enum phx_glu; single operations, so that no compiler fuses them differently in two kernels. */
static __device__ __forceinline__ float moe_glu(float gate, float up, enum phx_glu kind, float limit)
{
    if (kind == PHX_GLU_SILU)
        return __fmul_rn(gate / __fadd_rn(1.0f, phx_exp(-gate)), up);
    gate = gate > limit ? limit : gate;
    up = up > limit ? limit : up;
    up = up < -limit ? -limit : up;
    return __fmul_rn(gate / __fadd_rn(1.0f, phx_exp(__fmul_rn(gate, -1.702f))), __fadd_rn(up, 1.0f));
}

#endif
