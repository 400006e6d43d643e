/* SPDX-License-Identifier: Apache-2.0
 * States of a softmax, and which queries see what; included by the tiled kernels of attention alone. */
#ifndef PHX_KERNELS_CUDA_ATTENTION_SPAN_CUH
#define PHX_KERNELS_CUDA_ATTENTION_SPAN_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/cuda/attention.h"

enum { LANES = PHX_WARP, ROWS = CUDA_UNIT_QUERIES };

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

/* One zero, and a NaN for all that is no number: which leaves were left out shows in no bit. */
static __device__ inline float make_canonical(float x)
{
    return x - x == 0.0f ? x + 0.0f : NAN;
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

/* What the queries of a block see, [begin, end), what all of them see, and where it lies.  In shared memory, as the
 * limits of a warp are: registers are for sums. */
struct view {
    const int32_t *table; /* of the sequence */
    int32_t        begin, end, all_begin, all_end, kv_head;
};

#endif
