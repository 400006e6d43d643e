/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: eight 4-bit floats (E2M1: sign, two bits of exponent, one of mantissa) in a word, placed so
 * that shifts and masks alone make bf16 of them.  Register r (0 to 3) of the lane, half h: in bits of half h of the word
 *
 *   r 0   sign 15   exponent 8, 7   mantissa 6
 *   r 1   sign 12   exponent 5, 4   mantissa 3
 *   r 2   sign  9   exponent 2, 1   mantissa 0
 *   r 3   sign 14   exponent 13, 11 mantissa 10
 *
 * Seen as bf16, sign 15, exponent 8 and 7, mantissa 6 is the value times 2^-126 (a denormal included), so one
 * multiplication by a power of two applies the block's scale, exactly. */
#ifndef PHX_KERNELS_CUDA_MXFP4_CUH
#define PHX_KERNELS_CUDA_MXFP4_CUH

#include "kernels/cuda/device.cuh"

enum {
    MX_SCALE_ONE_STEP = 128, /* up to here 2^(scale - 1) is a bf16 */
    MX_SCALE_NAN = 255       /* the CPU's scale is infinite here: so it is here */
};

/* Where the four bits of register r, half 0, go: for packing. */
static __device__ __forceinline__ uint32_t mx_place(int r, uint32_t nibble)
{
    uint32_t size = nibble & 7u, sign = nibble >> 3;

    switch (r) {
    case 0: return sign << 15 | size << 6;
    case 1: return sign << 12 | size << 3;
    case 2: return sign << 9 | size;
    default: return sign << 14 | (size & 4u) << 11 | (size & 3u) << 10;
    }
}

/* The bits of registers 0 and 2 (rows 0 to 7 of the tile); the others are those of registers 1 and 3. */
static __device__ __forceinline__ uint32_t mx_low_row_mask()
{
    return 0x83c783c7u;
}

/* The word's values times 2^-126, as pairs of bf16. */
static __device__ __forceinline__ void mx_expand(uint32_t a[4], uint32_t word)
{
    const uint32_t mask = 0x81c081c0u;

    a[0] = word & mask;
    a[1] = word << 3 & mask;
    a[2] = word << 6 & mask;
    a[3] = (word << 1 & 0x80008000u) | (word >> 5 & 0x01000100u) | (word >> 4 & 0x00c000c0u);
}

/* Two bf16 of 2^(exponent - 127); 0 is 2^-127, 255 infinity. */
static __device__ __forceinline__ uint32_t mx_power(uint32_t exponent)
{
    uint32_t bits = exponent > 0 ? exponent << 7 : 0x40u;

    return bits | bits << 16;
}

/* What undoes the 2^-126 and applies a scale byte: 2^(scale - 1), or its part up to 2^127. */
static __device__ __forceinline__ uint32_t mx_factor(uint32_t scale)
{
    return mx_power(min(scale, (uint32_t)MX_SCALE_ONE_STEP) + 126u);
}

/* Its rest, for scales above MX_SCALE_ONE_STEP. */
static __device__ __forceinline__ uint32_t mx_rest(uint32_t scale)
{
    return scale == MX_SCALE_NAN ? mx_power(255) : mx_power(max(scale, (uint32_t)MX_SCALE_ONE_STEP) - 1u);
}

/* The a operands of both steps of a block: words of the lane, scale bytes of its rows g (lower) and g + 8. */
static __device__ __forceinline__ void mx_decode(uint32_t a[2][4], uint2 words, uint32_t scales)
{
    uint32_t low = scales & 0xffu, high = scales >> 8 & 0xffu, factor[2] = {mx_factor(low), mx_factor(high)};

    mx_expand(a[0], words.x);
    mx_expand(a[1], words.y);
#pragma unroll
    for (int i = 0; i < 8; i++)
        a[i / 4][i % 4] = phx_bf16_mul2(a[i / 4][i % 4], factor[i % 2]);
    if (low > MX_SCALE_ONE_STEP || high > MX_SCALE_ONE_STEP) {
        uint32_t rest[2] = {mx_rest(low), mx_rest(high)};

#pragma unroll
        for (int i = 0; i < 8; i++)
            a[i / 4][i % 4] = phx_bf16_mul2(a[i / 4][i % 4], rest[i % 2]);
    }
}

#endif
