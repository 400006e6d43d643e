/* SPDX-License-Identifier: Apache-2.0
 * What one warp does with one leaf of keys and values in shared memory; included by attention.cu alone.
 *
 * Fragments.  Lane = 4 g + t.  In a score the k index of a product is a permuted d, so that a lane reads 8 d of
 * a key at once: step 2 i has d = 32 i + 8 t + {0,1 | 2,3}, step 2 i + 1 has {4,5 | 6,7}.  A score's outputs
 * are the weights' A fragment of the second product as they stand.  There column c of n-tile (h, i) is
 * d = 64 h + 8 c + i, so a lane reads 8 d of a position at once and owns d = 64 h + 16 t + 0..15 of a query. */
#ifndef PHX_KERNELS_CUDA_ATTENTION_LEAF_CUH
#define PHX_KERNELS_CUDA_ATTENTION_LEAF_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/cuda/attention.h"

enum {
    LANES = PHX_WARP,
    ROWS = CUDA_UNIT_QUERIES,
    SLAB = 16, /* positions of one product; all of them lie in one block of the cache */
    SLABS = CUDA_LEAF_TOKENS / SLAB,
    KEY_TILES = CUDA_LEAF_TOKENS / 8
};

static const float LOG2_E = 1.4426950408889634f;
static const float NOTHING = -1e30f; /* the maximum of no score: finite, so inf - inf never happens */

/* ---- states ---------------------------------------------------------------------------------- */

/* How a state with maximum m and one with maximum n become one. */
struct joint {
    float m, a, b;
};

static __device__ inline struct joint join(float m, float n)
{
    struct joint j;

    j.m = fmaxf(m, n);
    j.a = phx_exp2((m - j.m) * LOG2_E);
    j.b = phx_exp2((n - j.m) * LOG2_E);
    return j;
}

static __device__ inline float mix(struct joint j, float x, float y)
{
    return fmaf(y, j.b, x * j.a);
}

/* The state before the first part: the sink counts as a score without a value. */
static __device__ inline void open_with_sink(const struct cuda_attention &a, int32_t head, float *m, float *l)
{
    float sink = a.sinks != NULL ? a.sinks[head] : -INFINITY;

    *m = fmaxf(sink, NOTHING);
    *l = sink > -INFINITY ? 1.0f : 0.0f;
}

/* One zero and one NaN: which leaves were left out shows in no bit. */
static __device__ inline float make_canonical(float x)
{
    return x == x ? x + 0.0f : NAN;
}

/* ---- which queries see what ------------------------------------------------------------------- */

/* The queries of a unit at one kv head. */
struct span {
    int32_t seq, kv_head, head; /* the first local head of kv_head */
    int32_t n_heads, n, first;  /* heads there, queries of the sequence there, the unit's first query */
    int32_t row, pos;           /* of the sequence's first row */
    int32_t begin, end;         /* positions that its rows see: [begin, end) */
};

static __device__ inline int32_t first_seen(const struct cuda_attention &a, int32_t pos)
{
    return a.window > 0 && pos - a.window + 1 > 0 ? pos - a.window + 1 : 0;
}

static __device__ inline struct span find_span(const struct cuda_attention &a, int32_t unit, int32_t kv)
{
    struct cuda_attention_unit u = a.units[unit];
    struct span                s;
    int32_t                    head, end, n_rows = a.spans.n_rows[u.seq];

    s.seq = u.seq;
    s.first = u.first;
    s.kv_head = a.kv_begin + kv;
    head = (a.kv_first + s.kv_head) * a.group - a.head_first;
    end = head + a.group;
    s.head = head > 0 ? head : 0;
    s.n_heads = (end < a.n_heads ? end : a.n_heads) - s.head;
    s.n = n_rows * s.n_heads;
    s.row = a.spans.row[u.seq];
    s.pos = a.spans.pos[u.seq];
    s.begin = first_seen(a, s.pos);
    s.end = s.pos + n_rows;
    return s;
}

/* Of this block; the longest walks begin first. */
static __device__ inline int32_t own_unit()
{
    return (int32_t)(gridDim.x - 1 - blockIdx.x);
}

static __device__ inline struct span own_span(const struct cuda_attention &a)
{
    return find_span(a, own_unit(), (int32_t)blockIdx.y);
}

/* The position of a query; one that is not there sees what the last does. */
static __device__ inline int32_t position_of(const struct span &s, int32_t query)
{
    return s.pos + (query < s.n ? query : s.n - 1) / s.n_heads;
}

/* What the queries of a block see, [begin, end), and where it lies.  In shared memory, as the limits of a warp are:
 * registers are for sums. */
struct view {
    const int32_t *table; /* of the sequence */
    int32_t        begin, end, kv_head;
};

/* ---- leaves in shared memory ------------------------------------------------------------------ */

/* Byte offset of 8 d of a position of a leaf: no two lanes of a quarter warp read the same banks. */
template <int DIM> static __device__ inline uint32_t place(uint32_t position, uint32_t eighth)
{
    uint32_t turn = (position & 6u) ^ ((position & 1u) << 2);

    return position * (DIM * 2) + ((eighth ^ turn) << 4);
}

/* Starts to bring keys and values of the leaf at pos; what nobody of the block sees becomes 0: memory that was
 * never written, or by an earlier owner of the block, may hold anything. */
template <int DIM, int THREADS>
static __device__ inline void load_leaf(const struct cuda_attention &a, const struct view &see, unsigned char *to,
                                        int32_t pos)
{
    enum { EIGHTHS = DIM / 8, STEP = THREADS / EIGHTHS }; /* positions that the block brings at once */
    const uint16_t *data = (const uint16_t *)a.kv.data;
    int32_t         begin = see.begin, end = see.end, shift = a.kv.block_tokens == 16 ? 4 : 5; /* no others */
    int32_t         in = (int32_t)threadIdx.x / EIGHTHS, eighth = (int32_t)threadIdx.x % EIGHTHS;
    int64_t         base[SLABS];

#pragma unroll
    for (int i = 0; i < SLABS; i++) {
        int32_t at = pos + i * SLAB;

        base[i] = 0;
        if (at < end && at + SLAB > begin)
            base[i] = cuda_kv_at(&a.kv, see.table[at >> shift], see.kv_head, at & (a.kv.block_tokens - 1));
    }
#pragma unroll
    for (int i = 0; i < SLABS; i++)
#pragma unroll
        for (int j = 0; j < SLAB; j += STEP) {
            int32_t         at = pos + i * SLAB + j + in;
            bool            is_seen = at >= begin && at < end && eighth * 8 < a.kv.head_dim;
            const uint16_t *from = data + (is_seen ? base[i] + (int64_t)(j + in) * a.kv.head_dim + eighth * 8 : 0);
            unsigned char  *k = to + place<DIM>((uint32_t)(i * SLAB + j + in), (uint32_t)eighth);

            phx_cp_async16_if(k, from, is_seen);
            phx_cp_async16_if(k + CUDA_LEAF_TOKENS * DIM * 2, from + (is_seen ? a.kv.v_offset : 0), is_seen);
        }
}

static __device__ inline uint4 read_eight(const unsigned char *from)
{
    return *(const uint4 *)from;
}

/* A sign bit is set where one of two bf16 is an infinity or a NaN. */
static __device__ inline uint32_t find_wild(uint32_t pair)
{
    return (pair & 0x7f807f80u) + 0x00800080u;
}

/* Whether a value of the leaf is an infinity or a NaN; the whole warp asks. */
template <int DIM> static __device__ inline bool has_wild(const unsigned char *values)
{
    uint32_t wild = 0;

#pragma unroll 4
    for (uint32_t i = threadIdx.x % LANES; i < CUDA_LEAF_TOKENS * DIM / 8; i += LANES) {
        uint4 v = read_eight(values + i * 16);

        wild |= find_wild(v.x) | find_wild(v.y) | find_wild(v.z) | find_wild(v.w);
    }
    return phx_ballot((wild & 0x80008000u) != 0) != 0;
}

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

template <int DIM, int MT>
static __device__ inline void load_queries(const struct cuda_attention &a, const struct span &s, int32_t first,
                                           struct band<DIM, MT> *b)
{
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
            for (int i = 0; i < DIM / 32; i++)
#pragma unroll
                for (int w = 0; w < 4; w++)
                    b->q[mt][2 * i + w / 2][r + 2 * (w % 2)] = load_query(a, q, 32 * i + 8 * t + 2 * w);
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

/* s = q k of all positions of the leaf. */
template <int DIM, int MT>
static __device__ inline void score_leaf(const struct band<DIM, MT> &b, const unsigned char *keys,
                                         float s[MT][KEY_TILES][4])
{
    uint32_t lane = threadIdx.x % LANES, g = lane / 4, t = lane % 4;

#pragma unroll
    for (int n = 0; n < KEY_TILES; n++) {
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                s[mt][n][e] = 0;
#pragma unroll
        for (int i = 0; i < DIM / 32; i++) {
            uint4    k = read_eight(keys + place<DIM>((uint32_t)n * 8 + g, (uint32_t)i * 4 + t));
            uint32_t even[2] = {k.x, k.y}, odd[2] = {k.z, k.w};

#pragma unroll
            for (int mt = 0; mt < MT; mt++) {
                phx_mma_bf16(s[mt][n], b.q[mt][2 * i], even);
                phx_mma_bf16(s[mt][n], b.q[mt][2 * i + 1], odd);
            }
        }
    }
}

/* What a query does not see has no score. */
template <int DIM, int MT, int THREADS>
static __device__ inline void hide_scores(const struct cuda_attention &a, struct lane_words<DIM, MT, THREADS> w,
                                          int32_t pos, float s[MT][KEY_TILES][4])
{
    int32_t t = (int32_t)threadIdx.x % 4;

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

/* Scores become the A fragments of rounded weights; *top their maxima. */
template <int MT>
static __device__ inline void weigh_leaf(float s[MT][KEY_TILES][4], uint32_t p[MT][SLABS][4], float top[MT][2])
{
#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float m = NOTHING, shift;

#pragma unroll
            for (int n = 0; n < KEY_TILES; n++)
                m = fmaxf(m, fmaxf(s[mt][n][2 * r], s[mt][n][2 * r + 1]));
            m = fmaxf(m, phx_shfl_xor(m, 1));
            m = fmaxf(m, phx_shfl_xor(m, 2));
            top[mt][r] = m;
            shift = -(m * LOG2_E);
#pragma unroll
            for (int n = 0; n < KEY_TILES; n++) {
                float x = phx_exp2(fmaf(s[mt][n][2 * r], LOG2_E, shift));
                float y = phx_exp2(fmaf(s[mt][n][2 * r + 1], LOG2_E, shift));

                p[mt][n / 2][r + 2 * (n % 2)] = phx_bf16_pair(x, y);
            }
        }
    }
}

/* The sums of the rounded weights: a product with ones. */
template <int MT> static __device__ inline void sum_weights(const uint32_t p[MT][SLABS][4], float sum[MT][2])
{
    const uint32_t ones[2] = {0x3f803f80u, 0x3f803f80u};

#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
        float d[4] = {0, 0, 0, 0};

#pragma unroll
        for (int j = 0; j < SLABS; j++)
            phx_mma_bf16(d, p[mt][j], ones);
        sum[mt][0] = d[0];
        sum[mt][1] = d[2];
    }
}

/* B fragments of 8 n-tiles: the pair of positions (x, y) of 8 d. */
static __device__ inline void pair_up(const uint4 &x, const uint4 &y, uint32_t to[8])
{
    const uint32_t u[4] = {x.x, x.y, x.z, x.w}, v[4] = {y.x, y.y, y.z, y.w};

#pragma unroll
    for (int i = 0; i < 4; i++) {
        to[2 * i] = (u[i] & 0xffffu) | (v[i] << 16);
        to[2 * i + 1] = (u[i] >> 16) | (v[i] & 0xffff0000u);
    }
}

/* The one query of the warp for which add_values works, and what it sees of the leaf. */
struct lone_query {
    int32_t query, begin, end;
};

static __device__ inline uint4 read_value(const unsigned char *from, bool is_seen)
{
    uint4 zero = {0, 0, 0, 0};

    return is_seen ? read_eight(from) : zero;
}

/* acc = acc a + (p v) b for all queries, or for one alone with values only where it sees them. */
template <int DIM, int MT, bool IS_ALONE>
static __device__ inline void add_values(struct band<DIM, MT> *b, const unsigned char *values,
                                         const uint32_t p[MT][SLABS][4], const struct joint how[MT][2],
                                         struct lone_query one)
{
    uint32_t lane = threadIdx.x % LANES, g = lane / 4, t = lane % 4;

#pragma unroll
    for (int h = 0; h < DIM / 64; h++) {
        float d[MT][8][4];

#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    d[mt][i][e] = 0;
#pragma unroll
        for (int j = 0; j < SLABS; j++) {
            uint32_t low[8], high[8];
            uint4    v[4];

#pragma unroll
            for (int r = 0; r < 4; r++) {
                uint32_t at = (uint32_t)j * SLAB + 2 * t + (uint32_t)(r % 2 + r / 2 * 8);

                v[r] = read_value(values + place<DIM>(at, (uint32_t)h * 8 + g),
                                  !IS_ALONE || ((int32_t)at >= one.begin && (int32_t)at < one.end));
            }
            pair_up(v[0], v[1], low);
            pair_up(v[2], v[3], high);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                uint32_t pair[2] = {low[i], high[i]};

#pragma unroll
                for (int mt = 0; mt < MT; mt++)
                    phx_mma_bf16(d[mt][i], p[mt][j], pair);
            }
        }
#pragma unroll
        for (int mt = 0; mt < MT; mt++)
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    if (!IS_ALONE || mt * ROWS + e / 2 * 8 + (int32_t)g == one.query)
                        b->acc[mt][h * 8 + i][e] = mix(how[mt][e / 2], b->acc[mt][h * 8 + i][e], d[mt][i][e]);
    }
}

/* A value that is no number, where not every query sees it: 0 times it must not reach the others.  The leaf is
 * multiplied for each query alone, with the same operations in the same order.  The registers of q are used
 * meanwhile: it is read again. */
template <int DIM, int MT>
static __device__ inline void add_wild(const struct cuda_attention &a, int32_t in_unit, struct band<DIM, MT> *b,
                                       const unsigned char *values, int32_t pos, const uint32_t p[MT][SLABS][4],
                                       const struct joint how[MT][2])
{
    struct span s = own_span(a);

#pragma unroll 1
    for (int32_t i = 0; i < MT * ROWS; i++) {
        int32_t           last = position_of(s, s.first + in_unit + i);
        struct lone_query one = {i, first_seen(a, last) - pos, last + 1 - pos};

        add_values<DIM, MT, true>(b, values, p, how, one);
    }
    load_queries(a, s, s.first + in_unit, b);
}

/* Joins the leaf at pos to the part of the warp's queries; in_unit is the first of them. */
template <int DIM, int MT, int THREADS>
static __device__ inline void attend_leaf(const struct cuda_attention &a, int32_t in_unit, const struct limits &limits,
                                          struct lane_words<DIM, MT, THREADS> w, struct band<DIM, MT> *b,
                                          const unsigned char *leaf, int32_t pos)
{
    const unsigned char *values = leaf + CUDA_LEAF_TOKENS * DIM * 2;
    bool                 is_edge = pos < limits.first_max || pos + CUDA_LEAF_TOKENS - 1 > limits.last_min;
    uint32_t             p[MT][SLABS][4];
    float                scores[MT][KEY_TILES][4], top[MT][2], sum[MT][2];
    struct joint         how[MT][2];

    score_leaf(*b, leaf, scores);
    if (is_edge)
        hide_scores(a, w, pos, scores);
    weigh_leaf<MT>(scores, p, top);
    sum_weights<MT>(p, sum);
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float *m = w.m(2 * mt + r), *l = w.l(2 * mt + r);

            how[mt][r] = join(*m, top[mt][r]);
            *m = how[mt][r].m;
            *l = mix(how[mt][r], *l, sum[mt][r]);
        }
    if (is_edge && has_wild<DIM>(values)) {
        add_wild<DIM, MT>(a, in_unit, b, values, pos, p, how);
    } else {
        struct lone_query all = {0, 0, 0};

        add_values<DIM, MT, false>(b, values, p, how, all);
    }
}

#endif
