/* SPDX-License-Identifier: Apache-2.0
 * E4M3 as caches store it (OCP 8-bit floating point, "FN"): sign, four bits of exponent with a bias of 7, three of
 * fraction; no infinities, the largest number is 448.  For C, CUDA and the emulated device alike. */
#ifndef PHX_KERNELS_F8_H
#define PHX_KERNELS_F8_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define PHX_F8_FUNCTION static __host__ __device__ inline
#else
#define PHX_F8_FUNCTION static inline
#endif

#define PHX_F8_MAX 448.0f

/* The nearest, ties to even; what is larger than 448 becomes 448.  x is finite. */
PHX_F8_FUNCTION uint8_t phx_f8_bits(float x)
{
    uint32_t bits, sign, code;
    float    units;

    memcpy(&bits, &x, sizeof(bits));
    sign = bits >> 31 << 7;
    bits &= 0x7fffffffu;
    if (bits < 0x3c800000u) { /* below 2^-6: units of 2^-9, rounded where 1.5 * 2^23 has its ones */
        memcpy(&units, &bits, sizeof(units));
        units = units * 512.0f + 12582912.0f;
        memcpy(&code, &units, sizeof(code));
        return (uint8_t)(sign | (code & 15u));
    }
    code = ((bits + 0x7ffffu + (bits >> 20 & 1u)) >> 20) - (120u << 3);
    return (uint8_t)(sign | (code < 0x7eu ? code : 0x7eu));
}

/* Exactly: the fields stand where float32 has its own, less a factor of 2^120. */
PHX_F8_FUNCTION float phx_f8_float(uint8_t code)
{
    uint32_t bits = (code & 0x80u) << 24 | (code & 0x7fu) << 20;
    float    x;

    memcpy(&x, &bits, sizeof(x));
    return x * 0x1p120f;
}

#endif
