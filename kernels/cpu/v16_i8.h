/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cpu: sixteen int8 as floats.  Behind v16.h, for the same instruction sets. */
#ifndef PHX_KERNELS_CPU_V16_I8_H
#define PHX_KERNELS_CPU_V16_I8_H

#include "kernels/cpu/v16.h"

#if defined(V16_AVX512)
INLINE v16 v16_load_i8(const signed char *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
#elif defined(V16_AVX2)
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
#endif

#endif
