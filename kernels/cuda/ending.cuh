/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what the last blocks of a launch do with the outputs of all of them, so that it needs no launch of its
 * own: tickets, and the norm of the sum at the end of a branch.
 *
 * Why a ticket is right on a device.  A block's writes come before its barrier, the barrier before the fence of thread 0, that
 * before its atomicAdd; a fence of one thread covers what the others of its block wrote before the barrier (PTX ISA, causality
 * order).  Who draws the last number has seen all other additions; its own fence and barrier come before the reads of its block.
 * These go past the cache of the multiprocessor (phx_load_fresh), which may hold what was there before.  No block waits for
 * another: it does not matter which of them are resident.  The last one puts the counter back to 0, and nobody else
 * touches it until the launch has ended: the next one reads 0 behind phx_begin().  A launch that was begun draws all its numbers,
 * so only a lost device leaves another value, and no launch follows on that. */
#ifndef PHX_KERNELS_CUDA_ENDING_CUH
#define PHX_KERNELS_CUDA_ENDING_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/cuda/ending.h"

/* By all threads of a block, when it has written what others read: whether n blocks with it have come here. */
static __device__ __forceinline__ bool is_last_block(uint32_t *counter, uint32_t n)
{
    __shared__ int32_t is_last;

    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        is_last = atomicAdd(counter, 1u) + 1u == n;
        if (is_last)
            *counter = 0;
        __threadfence();
    }
    __syncthreads();
    return is_last != 0;
}

enum { END_WARPS = CUDA_END_THREADS / PHX_WARP, END_FOURS = CUDA_END_COLUMNS_MAX / CUDA_END_THREADS / 4 };

/* AT_ONCE rows from `row` on: norm = rmsnorm(x) as rmsnorm_kernel (vector.cu) computes it, thread by thread; by a block of
 * CUDA_END_THREADS.  x has been written by other blocks. */
template <int AT_ONCE> static __device__ __forceinline__ void norm_rows(const struct cuda_add_norm_call &c, int32_t row)
{
    __shared__ float shared[PHX_WARP];
    float4           v[AT_ONCE][END_FOURS], gain[END_FOURS];

#pragma unroll
    for (int k = 0; k < END_FOURS; k++) {
        int i = (k * CUDA_END_THREADS + (int)threadIdx.x) * 4;

        gain[k] = i < c.n ? *(const float4 *)(c.gain + i) : make_float4(0, 0, 0, 0);
#pragma unroll
        for (int r = 0; r < AT_ONCE; r++)
            v[r][k] = i < c.n && row + r < c.n_rows ? phx_load_fresh((const float4 *)(c.x + (row + r) * c.x_stride + i))
                                                    : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int r = 0; r < AT_ONCE; r++) {
        float sum = 0, scale;

        if (row + r >= c.n_rows) /* all threads */
            return;
#pragma unroll
        for (int k = 0; k < END_FOURS; k++) /* zeros behind the row's end change no bit of a sum of squares */
            sum = __fmaf_rn(v[r][k].w, v[r][k].w,
                            __fmaf_rn(v[r][k].z, v[r][k].z,
                                      __fmaf_rn(v[r][k].y, v[r][k].y, __fmaf_rn(v[r][k].x, v[r][k].x, sum))));
        sum = phx_block_sum(sum, shared, END_WARPS);
        scale = 1.0f / sqrtf(sum / (float)c.n + c.eps);
#pragma unroll
        for (int k = 0; k < END_FOURS; k++) {
            int i = (k * CUDA_END_THREADS + (int)threadIdx.x) * 4;

            if (i < c.n)
                *(float4 *)(c.norm + (row + r) * c.norm_stride + i) =
                    make_float4(v[r][k].x * scale * gain[k].x, v[r][k].y * scale * gain[k].y, v[r][k].z * scale * gain[k].z,
                                v[r][k].w * scale * gain[k].w);
        }
    }
}

/* By every block of a launch, behind its outputs, of which n blocks have some: the last one norms the rows. */
template <int AT_ONCE>
static __device__ __forceinline__ void end_rows(const struct cuda_add_norm_call &c, uint32_t *counter, uint32_t n)
{
    if (c.norm == NULL || !is_last_block(counter, n))
        return;
    for (int32_t row = 0; row < c.n_rows; row += AT_ONCE)
        norm_rows<AT_ONCE>(c, row);
}

#endif
