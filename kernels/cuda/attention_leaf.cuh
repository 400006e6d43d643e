/* SPDX-License-Identifier: Apache-2.0
 * What one warp does with one leaf of keys and values in shared memory; included by attention_tiles.cuh alone.
 *
 * Fragments.  Lane = 4 g + t.  In a score the k index of a product is a permuted d, so that a lane reads 16 bytes of
 * a key at once.  bf16: step 2 i has d = 32 i + 8 t + {0,1 | 2,3}, step 2 i + 1 has {4,5 | 6,7}; 8 bits: step 4 i + j
 * has d = 64 i + 16 t + 4 j + {0,1 | 2,3}.  A score's outputs are the weights' A fragment of the second product as
 * they stand.  There column c of n-tile (h, i) is d = 64 h + 8 c + i, so a lane reads 8 d of a position at once and
 * owns d = 64 h + 16 t + 0..15 of a query. */
#ifndef PHX_KERNELS_CUDA_ATTENTION_LEAF_CUH
#define PHX_KERNELS_CUDA_ATTENTION_LEAF_CUH

#include "kernels/cuda/attention_store.cuh"

enum { KEY_TILES = CUDA_LEAF_TOKENS / 8 };

/* ---- a warp's queries ------------------------------------------------------------------------- */

/* What the queries of a warp see: the first of them [first_min, last_min], the last [first_max, last_max]. */
struct limits {
    int32_t first_min, first_max, last_min, last_max;
    int32_t n; /* queries that are there */
};

/* MT times 16 queries and their part, sums without m and l.  Index [..][e]: query g for e < 2, else g + 8. */
template <int DIM, int MT> struct band {
    uint32_t q[MT][DIM / 16][4];
    float    acc[MT][DIM / 8][4];
};

/* The rest of what a lane knows of its queries r = 2 mt, 2 mt + 1 (g and g + 8) lies in shared memory too: words of
 * a thread in steps of THREADS. */
template <int DIM, int MT, int THREADS> struct lane_words {
    enum { QUERIES = MT * 2, SUMS = MT * DIM / 2, N = QUERIES * 3, N_WITH_WHOLE = QUERIES * 5 + SUMS };
    float *at;

    __device__ float   *m(int r) const { return at + r * THREADS; } /* of the part */
    __device__ float   *l(int r) const { return at + (QUERIES + r) * THREADS; }
    __device__ int32_t *last(int r) const { return (int32_t *)(at + (2 * QUERIES + r) * THREADS); }
    __device__ float   *whole_m(int r) const { return at + (3 * QUERIES + r) * THREADS; } /* of the parts before */
    __device__ float   *whole_l(int r) const { return at + (4 * QUERIES + r) * THREADS; }
    __device__ float   *sum(int i) const { return at + (5 * QUERIES + i) * THREADS; } /* their acc, as in a band */
};

template <int DIM, int MT, int THREADS>
static __device__ inline void empty_part(struct band<DIM, MT> *b, struct lane_words<DIM, MT, THREADS> w)
{
#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
#pragma unroll
        for (int r = 2 * mt; r < 2 * mt + 2; r++) {
            *w.m(r) = NOTHING;
            *w.l(r) = 0;
        }
#pragma unroll
        for (int i = 0; i < DIM / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                b->acc[mt][i][e] = 0;
    }
}

/* Two d of a query, scaled and rounded; 0 where there is none. */
static __device__ inline uint32_t load_query(const struct cuda_attention &a, const float *q, int32_t d)
{
    if (q == NULL || d >= a.kv.head_dim)
        return 0;
    return phx_bf16_pair(q[d] * a.scale, q[d + 1] * a.scale);
}

template <int KIND, int DIM, int MT>
static __device__ inline void load_queries(const struct cuda_attention &a, const struct span &s, int32_t first,
                                           struct band<DIM, MT> *b)
{
    enum { STEPS = leaf<KIND, DIM>::STEPS_AT_ONCE };
    int32_t lane = (int32_t)threadIdx.x % LANES, g = lane / 4, t = lane % 4;

#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int32_t      at = first + mt * ROWS + r * 8 + g;
            const float *q = NULL;

            if (at < s.n)
                q = a.q + (s.row + at / s.n_heads) * a.q_stride + (int64_t)(s.head + at % s.n_heads) * a.kv.head_dim;
#pragma unroll
            for (int i = 0; i < DIM / 16; i++)
#pragma unroll
                for (int w = 0; w < 2; w++)
                    b->q[mt][i][r + 2 * w] =
                        load_query(a, q, (i / STEPS * 4 + t) * (4 * STEPS) + i % STEPS * 4 + 2 * w);
        }
}

static __device__ inline struct limits find_limits(const struct cuda_attention &a, const struct span &s, int32_t first,
                                                   int32_t n)
{
    struct limits l;

    l.n = s.n - first < n ? s.n - first : n;
    l.last_min = position_of(s, first);
    l.last_max = position_of(s, first + n - 1);
    l.first_min = first_seen(a, l.last_min);
    l.first_max = first_seen(a, l.last_max);
    return l;
}

/* ---- a leaf ----------------------------------------------------------------------------------- */

/* The scales of two adjacent positions. */
static __device__ inline float2 read_scales(const unsigned char *scales, uint32_t position)
{
    return *(const float2 *)(scales + position * 4);
}

/* s = q k of all positions of the leaf. */
template <int KIND, int DIM, int MT>
static __device__ inline void score_leaf(const struct band<DIM, MT> &b, const unsigned char *keys,
                                         float s[MT][KEY_TILES][4])
{
    typedef leaf<KIND, DIM> layout;
    enum { STEPS = layout::STEPS_AT_ONCE };
    uint32_t lane = (uint32_t)phx_opaque((int32_t)threadIdx.x) % LANES, g = lane / 4, t = lane % 4;

#pragma unroll
    for (int n = 0; n < KEY_TILES; n++) {
        if (layout::HAS_SCALES)
            __syncwarp(); /* nothing is read ahead: registers are for sums */
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[mt][n][e] = 0;
#pragma unroll
        for (int i = 0; i < DIM / layout::DIMS_AT_ONCE / 4; i++) {
            uint4 k = read_chunk(keys + place<layout::ROW>((uint32_t)n * 8 + g, (uint32_t)i * 4 + t));

#pragma unroll
            for (int j = 0; j < STEPS; j++) {
                uint32_t pair[2];

                take_key<KIND>(k, j, pair);
#pragma unroll
                for (int mt = 0; mt < MT; mt++)
                    phx_mma_bf16(s[mt][n], b.q[mt][i * STEPS + j], pair);
            }
        }
        if (layout::HAS_SCALES) {
            float2 scale = read_scales(keys + layout::SCALES, (uint32_t)n * 8 + 2 * t);

#pragma unroll
            for (int mt = 0; mt < MT; mt++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    s[mt][n][e] *= e % 2 == 0 ? scale.x : scale.y;
        }
    }
}

/* What a query does not see has no score. */
template <int DIM, int MT, int THREADS>
static __device__ inline void hide_scores(const struct cuda_attention &a, struct lane_words<DIM, MT, THREADS> w,
                                          int32_t pos, float s[MT][KEY_TILES][4])
{
    int32_t t = phx_opaque((int32_t)threadIdx.x) % 4;

#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
            int32_t last = *w.last(2 * mt + e / 2), first = first_seen(a, last), at = pos + 2 * t + e % 2;

#pragma unroll
            for (int n = 0; n < KEY_TILES; n++)
                if (at + n * 8 < first || at + n * 8 > last)
                    s[mt][n][e] = -INFINITY;
        }
}

/* Scores become the A fragments of rounded weights, times the values' scales where there are some; *top are the
 * scores' maxima, *sum the sums of the rounded weights: a product with ones. */
template <int KIND, int DIM, int MT>
static __device__ inline void weigh_leaf(const float s[MT][KEY_TILES][4], const unsigned char *keys,
                                         uint32_t p[MT][SLABS][4], float top[MT][2], float sum[MT][2])
{
    typedef leaf<KIND, DIM> layout;
    const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};
    uint32_t       t = (uint32_t)phx_opaque((int32_t)threadIdx.x) % 4;

#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
        float d[4] = {0, 0, 0, 0}, shift[2];

        __syncwarp();

#pragma unroll
        for (int r = 0; r < 2; r++) {
            float m = NOTHING;

#pragma unroll
            for (int n = 0; n < KEY_TILES; n++)
                m = fmaxf(m, fmaxf(s[mt][n][2 * r], s[mt][n][2 * r + 1]));
            m = fmaxf(m, phx_shfl_xor(m, 1));
            m = fmaxf(m, phx_shfl_xor(m, 2));
            top[mt][r] = m;
            shift[r] = -(m * LOG2_E);
        }
#pragma unroll
        for (int j = 0; j < SLABS; j++) {
            uint32_t plain[4];

#pragma unroll
            for (int i = 0; i < 4; i++) {
                int   n = 2 * j + i / 2, r = i % 2;
                float x = phx_exp2(fmaf(s[mt][n][2 * r], LOG2_E, shift[r]));
                float y = phx_exp2(fmaf(s[mt][n][2 * r + 1], LOG2_E, shift[r]));

                plain[i] = p[mt][j][i] = phx_bf16_pair(x, y);
                if (layout::HAS_SCALES) {
                    float2 scale = read_scales(keys + layout::SCALES, CUDA_LEAF_TOKENS + (uint32_t)n * 8 + 2 * t);

                    p[mt][j][i] = phx_bf16_pair(s[mt][n][2 * r] != -INFINITY ? x * scale.x : 0.0f,
                                                s[mt][n][2 * r + 1] != -INFINITY ? y * scale.y : 0.0f);
                }
            }
            phx_mma_bf16(d, plain, ones);
        }
        sum[mt][0] = d[0];
        sum[mt][1] = d[2];
    }
}

/* acc = acc a + (p v) b for all queries, TILES n-tiles at a time: what is added takes registers. */
template <int KIND, int DIM, int MT>
static __device__ inline void add_values(struct band<DIM, MT> *b, const unsigned char *values,
                                         const uint32_t p[MT][SLABS][4], const struct joint how[MT][2])
{
    enum { TILES = KIND != CUDA_KV_BF16 && MT > 1 ? 4 : 8 };
    uint32_t lane = (uint32_t)phx_opaque((int32_t)threadIdx.x) % LANES, g = lane / 4, t = lane % 4;

#pragma unroll
    for (int first = 0; first < DIM / 8; first += TILES) {
        float d[MT][TILES][4];

#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
            for (int i = 0; i < TILES; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    d[mt][i][e] = 0;
#pragma unroll
        for (int j = 0; j < SLABS; j++) {
            uint32_t          low[TILES], high[TILES];
            dims<KIND, TILES> v[4];

            if (KIND != CUDA_KV_BF16)
                __syncwarp(); /* as in score_leaf */
#pragma unroll
            for (int r = 0; r < 4; r++)
                v[r] = read_value<KIND, DIM, TILES>(values, (uint32_t)j * SLAB + 2 * t + (uint32_t)(r % 2 + r / 2 * 8),
                                                    (uint32_t)(first / 8 * (64 / TILES) + first % 8 / TILES) + g * (8 / TILES));
            pair_up(v[0], v[1], low);
            pair_up(v[2], v[3], high);
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                uint32_t pair[2] = {low[i], high[i]};

#pragma unroll
                for (int mt = 0; mt < MT; mt++)
                    phx_mma_bf16(d[mt][i], p[mt][j], pair);
            }
        }
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
            for (int i = 0; i < TILES; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    b->acc[mt][first + i][e] = mix(how[mt][e / 2], b->acc[mt][first + i][e], d[mt][i][e]);
    }
}

/* The d of accumulator (i, e) of a lane. */
static __device__ inline int32_t dim_of(int i, int e)
{
    return i / 8 * 64 + (int32_t)threadIdx.x % 4 * 16 + e % 2 * 8 + i % 8;
}

/* The bits of [begin, end) among the 32 from 32 * which on. */
static __device__ inline uint32_t mask_of(int32_t begin, int32_t end, int32_t which)
{
    int32_t from = max(begin - 32 * which, 0), to = min(end - 32 * which, 32);

    return from < to ? (0xffffffffu >> (32 - to)) & (0xffffffffu << from) : 0u;
}

/* A query that sees a value which was taken out has no number there. */
template <int DIM, int MT, int THREADS>
static __device__ inline void mark_wild(const struct cuda_attention &a, struct lane_words<DIM, MT, THREADS> w,
                                        struct band<DIM, MT> *b, const struct wild<CUDA_KV_BF16, DIM> &wild, int32_t pos)
{
#pragma unroll
    for (int r = 0; r < 2 * MT; r++) {
        int32_t  last = *w.last(r), begin = first_seen(a, last) - pos, end = last + 1 - pos;
        uint32_t low = mask_of(begin, end, 0), high = mask_of(begin, end, 1);

#pragma unroll
        for (int i = 0; i < DIM / 8; i++)
#pragma unroll
            for (int e = r % 2 * 2; e < r % 2 * 2 + 2; e++) {
                const uint32_t *at = wild.positions[dim_of(i, e)];

                if (((at[0] & low) | (at[1] & high)) != 0)
                    b->acc[r / 2][i][e] = NAN;
            }
    }
}

/* Joins the leaf at pos to the part of the warp's queries. */
template <int KIND, int DIM, int MT, int THREADS>
static __device__ inline void attend_leaf(const struct cuda_attention &a, const struct limits &limits,
                                          struct lane_words<DIM, MT, THREADS> w, struct band<DIM, MT> *b,
                                          const unsigned char *keys, int32_t pos)
{
    uint32_t     p[MT][SLABS][4];
    float        scores[MT][KEY_TILES][4], top[MT][2], sum[MT][2];
    struct joint how[MT][2];

    score_leaf<KIND>(*b, keys, scores);
    if (pos < limits.first_max || pos + CUDA_LEAF_TOKENS - 1 > limits.last_min)
        hide_scores(a, w, pos, scores);
    weigh_leaf<KIND, DIM, MT>(scores, keys, p, top, sum);
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float *m = w.m(2 * mt + r), *l = w.l(2 * mt + r);

            how[mt][r] = join(*m, top[mt][r]);
            *m = how[mt][r].m;
            *l = mix(how[mt][r], *l, sum[mt][r]);
        }
    add_values<KIND, DIM, MT>(b, keys + leaf<KIND, DIM>::VALUES, p, how);
}

#endif
