/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cpu: sixteen int8, or E4M3 (kernels/f8.h), as floats.  Behind v16.h, for the same instruction sets. */
#ifndef PHX_KERNELS_CPU_V16_BYTES_H
#define PHX_KERNELS_CPU_V16_BYTES_H

#include "kernels/cpu/v16.h"
#include "kernels/f8.h"

#if defined(V16_AVX512)
INLINE v16 v16_load_i8(const signed char *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
INLINE v16 v16_load_f8(const uint8_t *p)
{
    __m512i x = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m512i sign = _mm512_slli_epi32(_mm512_and_si512(x, _mm512_set1_epi32(0x80)), 24);
    __m512i rest = _mm512_slli_epi32(_mm512_and_si512(x, _mm512_set1_epi32(0x7f)), 20);

    return _mm512_mul_ps(_mm512_castsi512_ps(_mm512_or_si512(sign, rest)), _mm512_set1_ps(0x1p120f));
}
#elif defined(V16_AVX2)
INLINE __m256 v8_load_f8(const uint8_t *p)
{
    __m256i x = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    __m256i sign = _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x80)), 24);
    __m256i rest = _mm256_slli_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0x7f)), 20);

    return _mm256_mul_ps(_mm256_castsi256_ps(_mm256_or_si256(sign, rest)), _mm256_set1_ps(0x1p120f));
}
INLINE v16 v16_load_f8(const uint8_t *p)
{
    return v16_make(v8_load_f8(p), v8_load_f8(p + 8));
}
INLINE __m256 v8_load_i8(const signed char *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
INLINE v16 v16_load_i8(const signed char *p)
{
    return v16_make(v8_load_i8(p), v8_load_i8(p + 8));
}
#else
INLINE v16 v16_load_i8(const signed char *p) { V16_EACH((float)p[i]); }
INLINE v16 v16_load_f8(const uint8_t *p) { V16_EACH(phx_f8_float(p[i])); }
#endif

#endif
