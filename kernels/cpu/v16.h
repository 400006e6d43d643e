/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cpu: sixteen floats and what the loops do with them, for the instruction set chosen
 * by V16_AVX512, V16_AVX2 or neither.  Every operation is exact or correctly rounded, so the three
 * versions give the same bits.  Only isa_*.c include it. */
#ifndef PHX_KERNELS_CPU_V16_H
#define PHX_KERNELS_CPU_V16_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline, unused))

/* The matrix unit takes denormals for zeros and rounds to nearest, whatever the thread's mode is; vector code
 * with the same results needs that mode. */
#if defined(__SSE2__)
#include <xmmintrin.h>
INLINE unsigned enter_matrix_mode(void)
{
    unsigned mode = _mm_getcsr();

    _mm_setcsr(0x9fc0); /* flush to zero, denormals are zeros, exceptions masked */
    return mode;
}
INLINE void leave_matrix_mode(unsigned mode) { _mm_setcsr(mode); }
#else
INLINE unsigned enter_matrix_mode(void) { return 0; }
INLINE void leave_matrix_mode(unsigned mode) { (void)mode; }
#endif

enum { BF16_BOTTOM = (127 - 60) << 23, BF16_TOP = (127 + 60) << 23 };

static const float MX_VALUES[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                    -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

#if defined(V16_AVX512)
#include <immintrin.h>

typedef __m512 v16;

#define V16_COUNT _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)

INLINE v16 v16_zero(void) { return _mm512_setzero_ps(); }
INLINE v16 v16_set(float a) { return _mm512_set1_ps(a); }
INLINE v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
/* 32 bytes from low, 32 from high */
INLINE v16 v16_load_halves(const void *low, const void *high)
{
    __m512i a = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)low));

    return _mm512_castsi512_ps(_mm512_inserti64x4(a, _mm256_loadu_si256((const __m256i *)high), 1));
}
INLINE v16 v16_and(v16 a, v16 b) { return _mm512_and_ps(a, b); }
INLINE v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
INLINE v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
INLINE v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
INLINE v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
INLINE v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
/* a > b ? x : y */
INLINE v16 v16_select_gt(v16 a, v16 b, v16 x, v16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), y, x);
}
INLINE v16 v16_load_n(const float *p, int n)
{
    return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1u), p);
}
INLINE void v16_store_n(float *p, v16 a, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), a);
}
/* 16 dwords of two bf16: the low halves, the high halves */
INLINE v16 v16_load_bf16_low(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
INLINE v16 v16_load_bf16_high(const void *p)
{
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi32((int)0xffff0000)));
}
INLINE v16 v16_load_bf16(const uint16_t *p)
{
    __m512i d = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));

    return _mm512_castsi512_ps(_mm512_slli_epi32(d, 16));
}
/* To the nearest bf16, ties to even; below 2^-60 to 0, above 2^60 to infinity: so far from the ends of the
 * range no product or sum with a tame weight leaves it. */
INLINE v16 v16_round_bf16(v16 x)
{
    __m512i b = _mm512_castps_si512(x), size = _mm512_and_si512(b, _mm512_set1_epi32(0x7fffffff));
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(b, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_add_epi32(_mm512_add_epi32(b, _mm512_set1_epi32(0x7fff)), odd);

    r = _mm512_mask_mov_epi32(r, _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(BF16_TOP)),
                              _mm512_or_si512(_mm512_andnot_si512(_mm512_set1_epi32(0x7fffffff), b),
                                              _mm512_set1_epi32(0x7f800000)));
    r = _mm512_mask_mov_epi32(r, _mm512_cmpgt_epi32_mask(size, _mm512_set1_epi32(0x7f800000)),
                              _mm512_set1_epi32(0x7fc00000));
    r = _mm512_maskz_and_epi32(_mm512_cmpge_epi32_mask(size, _mm512_set1_epi32(BF16_BOTTOM)), r,
                               _mm512_set1_epi32((int)0xffff0000));
    return _mm512_castsi512_ps(r);
}
INLINE v16 v16_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
/* the E2M1 value of nibble number i of each of 16 dwords */
INLINE v16 v16_mx_value(const void *p, int i)
{
    __m512i d = _mm512_srli_epi32(_mm512_loadu_si512(p), (unsigned)(4 * i));

    return _mm512_permutexvar_ps(d, _mm512_loadu_ps(MX_VALUES));
}
/* 2^(s-127) of 16 scale bytes; 0 -> 2^-127, 255 -> NaN */
INLINE v16 v16_mx_scale(const uint8_t *p)
{
    __m512i s = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    __m512i bits = _mm512_slli_epi32(s, 23);

    bits = _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(s, _mm512_setzero_si512()), bits,
                                   _mm512_set1_epi32(0x00400000));
    bits = _mm512_mask_blend_epi32(_mm512_cmpeq_epi32_mask(s, _mm512_set1_epi32(255)), bits,
                                   _mm512_set1_epi32(0x7fc00000));
    return _mm512_castsi512_ps(bits);
}
/* 16 dwords: bf16 of a (rounded to nearest, ties to even) low, of b high; both in [2^-126, 2^127], 0 or NaN */
INLINE v16 v16_pair_bf16(v16 a, v16 b)
{
#if defined(__AVX512BF16__)
    const __m512i both = _mm512_or_si512(_mm512_slli_epi32(V16_COUNT, 16), V16_COUNT);
    const __m512i order = _mm512_or_si512(both, _mm512_set1_epi32(16 << 16));

    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(b, a)));
#else
    const __m512i one = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);
    __m512i       x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);

    x = _mm512_add_epi32(_mm512_add_epi32(x, half), _mm512_and_si512(_mm512_srli_epi32(x, 16), one));
    y = _mm512_add_epi32(_mm512_add_epi32(y, half), _mm512_and_si512(_mm512_srli_epi32(y, 16), one));
    return _mm512_castsi512_ps(_mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(x, 16), y));
#endif
}
/* r[i] lane j to r[j] lane i */
INLINE void v16_transpose(v16 r[16])
{
    v16 t[16];

    for (int i = 0; i < 16; i += 4) {
        __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(r[i], r[i + 1]));
        __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(r[i], r[i + 1]));
        __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(r[i + 2], r[i + 3]));
        __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(r[i + 2], r[i + 3]));

        t[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        t[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        t[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        t[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) {
        v16 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        v16 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);

        r[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
/* p * 2^n where n is a whole number, n = z - magic, and the result is normal */
INLINE v16 v16_scale_whole(v16 p, v16 n, v16 z, float magic)
{
    (void)z;
    (void)magic;
    return _mm512_scalef_ps(p, n);
}
/* a * 2^n where n = bits(z) - bits(magic), n in -126..127 */
INLINE v16 v16_scale_by(v16 a, v16 z, float magic)
{
    __m512i n = _mm512_sub_epi32(_mm512_castps_si512(z), _mm512_castps_si512(v16_set(magic)));
    __m512i bits = _mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23);

    return _mm512_mul_ps(a, _mm512_castsi512_ps(bits));
}
#elif defined(V16_AVX2)
#include <immintrin.h>

typedef struct {
    __m256 a, b;
} v16;

INLINE v16 v16_make(__m256 a, __m256 b)
{
    v16 r = {a, b};
    return r;
}
INLINE v16 v16_zero(void) { return v16_make(_mm256_setzero_ps(), _mm256_setzero_ps()); }
INLINE v16 v16_set(float x) { return v16_make(_mm256_set1_ps(x), _mm256_set1_ps(x)); }
INLINE v16 v16_load(const float *p) { return v16_make(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
INLINE void v16_store(float *p, v16 x)
{
    _mm256_storeu_ps(p, x.a);
    _mm256_storeu_ps(p + 8, x.b);
}
INLINE v16 v16_load_halves(const void *low, const void *high)
{
    return v16_make(_mm256_loadu_ps((const float *)low), _mm256_loadu_ps((const float *)high));
}
INLINE v16 v16_and(v16 x, v16 y)
{
    return v16_make(_mm256_and_ps(x.a, y.a), _mm256_and_ps(x.b, y.b));
}
INLINE v16 v16_add(v16 x, v16 y)
{
    return v16_make(_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b));
}
INLINE v16 v16_sub(v16 x, v16 y)
{
    return v16_make(_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b));
}
INLINE v16 v16_mul(v16 x, v16 y)
{
    return v16_make(_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b));
}
INLINE v16 v16_div(v16 x, v16 y)
{
    return v16_make(_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b));
}
INLINE v16 v16_fma(v16 x, v16 y, v16 z)
{
    return v16_make(_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b));
}
INLINE v16 v16_select_gt(v16 x, v16 y, v16 p, v16 q)
{
    return v16_make(_mm256_blendv_ps(q.a, p.a, _mm256_cmp_ps(x.a, y.a, _CMP_GT_OQ)),
                    _mm256_blendv_ps(q.b, p.b, _mm256_cmp_ps(x.b, y.b, _CMP_GT_OQ)));
}
INLINE v16 v16_load_n(const float *p, int n)
{
    float t[16] = {0};

    if (n == 16)
        return v16_load(p);
    memcpy(t, p, (size_t)n * sizeof(float));
    return v16_load(t);
}
INLINE void v16_store_n(float *p, v16 x, int n)
{
    float t[16];

    v16_store(n == 16 ? p : t, x);
    if (n < 16)
        memcpy(p, t, (size_t)n * sizeof(float));
}
INLINE v16 v16_load_bf16_low(const void *p)
{
    const __m256i *q = p;

    return v16_make(_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(q), 16)),
                    _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256(q + 1), 16)));
}
INLINE v16 v16_load_bf16_high(const void *p)
{
    const __m256i *q = p;
    __m256i        mask = _mm256_set1_epi32((int)0xffff0000);

    return v16_make(_mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(q), mask)),
                    _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256(q + 1), mask)));
}
INLINE __m256 v8_load_bf16(const uint16_t *p)
{
    __m256i d = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));

    return _mm256_castsi256_ps(_mm256_slli_epi32(d, 16));
}
INLINE v16 v16_load_bf16(const uint16_t *p)
{
    return v16_make(v8_load_bf16(p), v8_load_bf16(p + 8));
}
INLINE __m256 v8_round_bf16(__m256 x)
{
    const __m256i infinity = _mm256_set1_epi32(0x7f800000), sign = _mm256_set1_epi32((int)0x80000000);
    __m256i b = _mm256_castps_si256(x), size = _mm256_andnot_si256(sign, b);
    __m256i odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_add_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(0x7fff)), odd);

    r = _mm256_blendv_epi8(r, _mm256_or_si256(_mm256_and_si256(sign, b), infinity),
                           _mm256_cmpgt_epi32(size, _mm256_set1_epi32(BF16_TOP)));
    r = _mm256_blendv_epi8(r, _mm256_set1_epi32(0x7fc00000), _mm256_cmpgt_epi32(size, infinity));
    r = _mm256_and_si256(r, _mm256_set1_epi32((int)0xffff0000));
    return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(BF16_BOTTOM), size), r));
}
INLINE v16 v16_round_bf16(v16 x) { return v16_make(v8_round_bf16(x.a), v8_round_bf16(x.b)); }
INLINE v16 v16_load_f16(const uint16_t *p)
{
    return v16_make(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                    _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8))));
}
/* the magnitude by the low three bits, the sign from the fourth */
INLINE __m256 v8_mx_value(const void *p, int i)
{
    __m256i s = _mm256_srli_epi32(_mm256_loadu_si256(p), 4 * i);
    __m256  m = _mm256_permutevar8x32_ps(_mm256_loadu_ps(MX_VALUES), s);
    __m256i sign = _mm256_and_si256(_mm256_slli_epi32(s, 28), _mm256_set1_epi32((int)0x80000000));

    return _mm256_xor_ps(m, _mm256_castsi256_ps(sign));
}
INLINE v16 v16_mx_value(const void *p, int i)
{
    return v16_make(v8_mx_value(p, i), v8_mx_value((const char *)p + 32, i));
}
INLINE __m256 v8_mx_scale(const uint8_t *p)
{
    __m256i s = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    __m256i bits = _mm256_slli_epi32(s, 23);

    bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x00400000),
                              _mm256_cmpeq_epi32(s, _mm256_setzero_si256()));
    bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7fc00000),
                              _mm256_cmpeq_epi32(s, _mm256_set1_epi32(255)));
    return _mm256_castsi256_ps(bits);
}
INLINE v16 v16_mx_scale(const uint8_t *p)
{
    return v16_make(v8_mx_scale(p), v8_mx_scale(p + 8));
}
INLINE __m256 v8_scale_by(__m256 x, __m256 z, float magic)
{
    __m256i n = _mm256_sub_epi32(_mm256_castps_si256(z),
                                 _mm256_castps_si256(_mm256_set1_ps(magic)));
    __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23);

    return _mm256_mul_ps(x, _mm256_castsi256_ps(bits));
}
INLINE v16 v16_scale_by(v16 x, v16 z, float magic)
{
    return v16_make(v8_scale_by(x.a, z.a, magic), v8_scale_by(x.b, z.b, magic));
}
INLINE v16 v16_scale_whole(v16 p, v16 n, v16 z, float magic)
{
    (void)n;
    return v16_scale_by(p, z, magic);
}
INLINE __m256i v8_round_normal(__m256 x)
{
    __m256i b = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(b, 16), _mm256_set1_epi32(1));

    return _mm256_add_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(0x7fff)), odd);
}
INLINE __m256 v8_pair_bf16(__m256 a, __m256 b)
{
    return _mm256_castsi256_ps(
        _mm256_blend_epi16(_mm256_srli_epi32(v8_round_normal(a), 16), v8_round_normal(b), 0xaa));
}
INLINE v16 v16_pair_bf16(v16 a, v16 b)
{
    return v16_make(v8_pair_bf16(a.a, b.a), v8_pair_bf16(a.b, b.b));
}
INLINE void v8_transpose(__m256 r[8])
{
    __m256 t[8];

    for (int i = 0; i < 8; i += 4) {
        __m256 a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        __m256 c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);

        t[i] = _mm256_shuffle_ps(a, c, 0x44);
        t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44);
        t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
INLINE void v16_transpose(v16 r[16])
{
    __m256 q[2][2][8]; /* [rows from 0 or 8][lanes from 0 or 8] */

    for (int i = 0; i < 16; i++) {
        q[i / 8][0][i % 8] = r[i].a;
        q[i / 8][1][i % 8] = r[i].b;
    }
    for (int i = 0; i < 4; i++)
        v8_transpose(q[i / 2][i % 2]);
    for (int i = 0; i < 16; i++)
        r[i] = v16_make(q[0][i / 8][i % 8], q[1][i / 8][i % 8]);
}
#else /* plain C: the reference */

typedef struct {
    float f[16];
} v16;

#define V16_EACH(expression)                 \
    v16 r;                                   \
    for (int i = 0; i < 16; i++)             \
        r.f[i] = (expression);               \
    return r

INLINE v16 v16_set(float a) { V16_EACH(a); }
INLINE v16 v16_zero(void) { V16_EACH(0.0f); }
INLINE v16 v16_load(const float *p) { V16_EACH(p[i]); }
INLINE void v16_store(float *p, v16 a) { memcpy(p, a.f, sizeof(a.f)); }
INLINE v16 v16_add(v16 a, v16 b) { V16_EACH(a.f[i] + b.f[i]); }
INLINE v16 v16_sub(v16 a, v16 b) { V16_EACH(a.f[i] - b.f[i]); }
INLINE v16 v16_mul(v16 a, v16 b) { V16_EACH(a.f[i] * b.f[i]); }
INLINE v16 v16_div(v16 a, v16 b) { V16_EACH(a.f[i] / b.f[i]); }
INLINE v16 v16_fma(v16 a, v16 b, v16 c) { V16_EACH(fmaf(a.f[i], b.f[i], c.f[i])); }
INLINE v16 v16_select_gt(v16 a, v16 b, v16 x, v16 y) { V16_EACH(a.f[i] > b.f[i] ? x.f[i] : y.f[i]); }
INLINE v16 v16_load_n(const float *p, int n) { V16_EACH(i < n ? p[i] : 0.0f); }
INLINE void v16_store_n(float *p, v16 a, int n) { memcpy(p, a.f, (size_t)n * sizeof(float)); }
INLINE float float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}
INLINE uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}
INLINE uint32_t dword_at(const void *p, int i)
{
    uint32_t d;

    memcpy(&d, (const char *)p + (size_t)i * 4, sizeof(d));
    return d;
}
INLINE v16 v16_load_halves(const void *low, const void *high)
{
    V16_EACH(float_of(i < 8 ? dword_at(low, i) : dword_at(high, i - 8)));
}
INLINE v16 v16_and(v16 a, v16 b) { V16_EACH(float_of(bits_of(a.f[i]) & bits_of(b.f[i]))); }
INLINE v16 v16_load_bf16_low(const void *p) { V16_EACH(float_of(dword_at(p, i) << 16)); }
INLINE v16 v16_load_bf16_high(const void *p) { V16_EACH(float_of(dword_at(p, i) & 0xffff0000u)); }
INLINE v16 v16_load_bf16(const uint16_t *p) { V16_EACH(float_of((uint32_t)p[i] << 16)); }
INLINE float round_bf16(float f)
{
    uint32_t b = bits_of(f), size = b & 0x7fffffffu;

    if (size > 0x7f800000u)
        return float_of(0x7fc00000u);
    if (size > (uint32_t)BF16_TOP)
        return float_of((b & 0x80000000u) | 0x7f800000u);
    return size < (uint32_t)BF16_BOTTOM ? 0.0f : float_of((b + 0x7fffu + ((b >> 16) & 1u)) & 0xffff0000u);
}
INLINE v16 v16_round_bf16(v16 x) { V16_EACH(round_bf16(x.f[i])); }
INLINE float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;

    if (e == 31)
        return float_of(sign | 0x7f800000u | (m << 13));
    if (e == 0)
        return float_of(sign | bits_of((float)m * 0x1p-24f));
    return float_of(sign | ((e + 112u) << 23) | (m << 13));
}
INLINE v16 v16_load_f16(const uint16_t *p) { V16_EACH(half_to_float(p[i])); }
INLINE v16 v16_mx_value(const void *p, int k)
{
    V16_EACH(MX_VALUES[(dword_at(p, i) >> (4 * k)) & 15u]);
}
INLINE v16 v16_mx_scale(const uint8_t *p)
{
    V16_EACH(float_of(p[i] == 0     ? 0x00400000u
                      : p[i] == 255 ? 0x7fc00000u
                                    : (uint32_t)p[i] << 23));
}
INLINE v16 v16_scale_by(v16 a, v16 z, float magic)
{
    V16_EACH(a.f[i] * float_of((bits_of(z.f[i]) - bits_of(magic) + 127u) << 23));
}
INLINE v16 v16_scale_whole(v16 p, v16 n, v16 z, float magic)
{
    (void)n;
    return v16_scale_by(p, z, magic);
}
INLINE uint32_t round_normal(float f)
{
    uint32_t b = bits_of(f);

    return b + 0x7fffu + ((b >> 16) & 1u);
}
INLINE v16 v16_pair_bf16(v16 a, v16 b)
{
    V16_EACH(float_of((round_normal(a.f[i]) >> 16) | (round_normal(b.f[i]) & 0xffff0000u)));
}
INLINE void v16_transpose(v16 r[16])
{
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < i; j++) {
            float t = r[i].f[j];

            r[i].f[j] = r[j].f[i];
            r[j].f[i] = t;
        }
}
#endif

/* The lanes by the fixed tree of halves 8, 4, 2, 1: their sum, and the largest (a > b ? a : b). */
#if defined(V16_AVX512) || defined(V16_AVX2)
INLINE float v8_sum(__m256 a)
{
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
}
INLINE float v8_largest(__m256 a)
{
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));

    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_shuffle_ps(q, q, 1)));
}
#endif
#if defined(V16_AVX512)
INLINE float v16_sum(v16 a)
{
    return v8_sum(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}
INLINE float v16_largest(v16 a)
{
    return v8_largest(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1)));
}
#elif defined(V16_AVX2)
INLINE float v16_sum(v16 x) { return v8_sum(_mm256_add_ps(x.a, x.b)); }
INLINE float v16_largest(v16 x) { return v8_largest(_mm256_max_ps(x.a, x.b)); }
#else
INLINE float v16_sum(v16 a)
{
    for (int h = 8; h > 0; h /= 2)
        for (int i = 0; i < h; i++)
            a.f[i] = a.f[i] + a.f[i + h];
    return a.f[0];
}
INLINE float v16_largest(v16 a)
{
    for (int h = 8; h > 0; h /= 2)
        for (int i = 0; i < h; i++)
            a.f[i] = a.f[i] > a.f[i + h] ? a.f[i] : a.f[i + h];
    return a.f[0];
}
#endif

/* e^x: x = n ln2 + r, a polynomial of degree 6 in r (Cephes expf), times 2^n.  Below -87 the result is 0,
 * above 88 it is e^88; NaN stays NaN.  Relative error below 2e-7. */
INLINE v16 v16_exp(v16 x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    const v16   low = v16_set(-87.0f), high = v16_set(88.0f);
    v16         c = v16_select_gt(x, high, high, x);
    v16         z, n, r, p;

    c = v16_select_gt(low, c, low, c);
    z = v16_fma(c, v16_set(1.44269504088896341f), v16_set(magic));
    n = v16_sub(z, v16_set(magic));
    r = v16_fma(n, v16_set(-0.693359375f), c);
    r = v16_fma(n, v16_set(2.12194440e-4f), r);
    p = v16_set(1.9875691500e-4f);
    p = v16_fma(p, r, v16_set(1.3981999507e-3f));
    p = v16_fma(p, r, v16_set(8.3334519073e-3f));
    p = v16_fma(p, r, v16_set(4.1665795894e-2f));
    p = v16_fma(p, r, v16_set(1.6666665459e-1f));
    p = v16_fma(p, r, v16_set(5.0000001201e-1f));
    p = v16_fma(v16_mul(r, r), p, r);
    p = v16_add(p, v16_set(1.0f));
    p = v16_scale_by(p, z, magic);
    return v16_select_gt(low, x, v16_zero(), p);
}

/* e^x for x <= 0 to a relative error of 2e-5, and 0 below -41: what is not 0 rounds to a bf16 that is not 0. */
INLINE v16 v16_exp_weight(v16 x)
{
    const float magic = 12582912.0f;
    const v16   low = v16_set(-41.0f);
    v16         c = v16_select_gt(low, x, low, x);
    v16         z = v16_fma(c, v16_set(1.44269504088896341f), v16_set(magic));
    v16         n = v16_sub(z, v16_set(magic));
    v16         r = v16_fma(n, v16_set(-0.69314718056f), c);
    v16         p = v16_set(0.0417921117f);

    p = v16_fma(p, r, v16_set(0.1674197408f));
    p = v16_fma(p, r, v16_set(0.5f));
    p = v16_fma(p, r, v16_set(1.0f));
    p = v16_fma(p, r, v16_set(1.0f));
    p = v16_scale_whole(p, n, z, magic);
    return v16_select_gt(low, x, v16_zero(), p);
}

#endif
