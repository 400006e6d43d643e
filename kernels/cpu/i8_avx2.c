/* SPDX-License-Identifier: Apache-2.0
 * Widened to 16 bits: a lane's four products are two sums of two until the end. */
#define V16_AVX2
#include "kernels/cpu/i8.h"
#include "kernels/cpu/v16.h"

typedef struct {
    __m256i part[4]; /* lanes 4p .. 4p+3, two sums each */
} vi;
typedef struct {
    __m256i part[4];
} vi_weights;

INLINE vi vi_zero(void)
{
    __m256i z = _mm256_setzero_si256();

    return (vi){{z, z, z, z}};
}
INLINE vi_weights vi_load(const unsigned char *p)
{
    vi_weights w;

    for (int i = 0; i < 4; i++)
        w.part[i] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(p + i * 16)));
    return w;
}
INLINE vi vi_dot(vi acc, vi_weights w, int32_t four)
{
    __m256i x = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));

    for (int i = 0; i < 4; i++)
        acc.part[i] = _mm256_add_epi32(acc.part[i], _mm256_madd_epi16(w.part[i], x));
    return acc;
}
INLINE v16 vi_finish(vi acc, int32_t sum)
{
    __m256i low = _mm256_hadd_epi32(acc.part[0], acc.part[1]), high = _mm256_hadd_epi32(acc.part[2], acc.part[3]);

    (void)sum; /* for instructions that have no signed product */
    low = _mm256_permute4x64_epi64(low, 0xd8);
    high = _mm256_permute4x64_epi64(high, 0xd8);
    return v16_make(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high));
}

#define I8_TABLE i8_avx2
#include "kernels/cpu/body_i8.h"
