/* SPDX-License-Identifier: Apache-2.0
 * The instruction multiplies unsigned by signed: weights are raised by 128, and 128 times the sum of the row's group
 * is taken off again. */
#define V16_AVX512
#include "kernels/cpu/i8.h"
#include "kernels/cpu/v16.h"

typedef __m512i vi;
typedef __m512i vi_weights;

INLINE vi vi_zero(void)
{
    return _mm512_setzero_si512();
}
INLINE vi_weights vi_load(const unsigned char *p)
{
    return _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8((char)0x80));
}
INLINE vi vi_dot(vi acc, vi_weights w, int32_t four)
{
    return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(four));
}
INLINE v16 vi_finish(vi acc, int32_t sum)
{
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(acc, _mm512_set1_epi32(sum * 128)));
}

#define I8_TABLE i8_vnni
#include "kernels/cpu/body_i8.h"
