/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: a group of at most 256 numbers as int8, by the definition of backend.h and of the CPU's
 * body_i8.h, bit for bit. */
#ifndef PHX_KERNELS_CUDA_QUANTISE_CUH
#define PHX_KERNELS_CUDA_QUANTISE_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/f8.h"

enum { I8_OF_LANE = 8 }; /* number i of lane l is element i * 32 + l of the group; what is not there is 0 */

/* Of a warp.  largest |v| / most; 0 when that is tiny; NaN when one of them is no finite number. */
static __device__ __forceinline__ float find_scale(const float v[I8_OF_LANE], float most)
{
    float top = 0.0f;
    bool  is_strange = false;

#pragma unroll
    for (int i = 0; i < I8_OF_LANE; i++) {
        top = fmaxf(top, fabsf(v[i]));
        is_strange = is_strange || !(fabsf(v[i]) <= 3.402823466e38f);
    }
    top = phx_warp_max(top);
    if (phx_ballot(is_strange) != 0)
        return __uint_as_float(0x7fc00000u);
    return top < 7.888609052210118e-31f ? 0.0f : top / most; /* 2^-100 */
}

static __device__ __forceinline__ float i8_find_scale(const float v[I8_OF_LANE])
{
    return find_scale(v, 127.0f);
}

/* To the nearest integer, ties to even, by adding 1.5 * 2^23; all zeros when the scale is 0 or NaN. */
static __device__ __forceinline__ int i8_quantise(float v, float scale)
{
    float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;

    if (inverse == 0.0f)
        return 0;
    return (int)__fadd_rn(__fadd_rn(__fmul_rn(v, inverse), 12582912.0f), -12582912.0f);
}

/* As E4M3; all zeros when the scale is 0 or NaN. */
static __device__ __forceinline__ int f8_quantise(float v, float scale)
{
    float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;

    return inverse == 0.0f ? 0 : phx_f8_bits(__fmul_rn(v, inverse));
}

#endif
