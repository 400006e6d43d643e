/* SPDX-License-Identifier: Apache-2.0
 * Pieces of a unit (attention.h) and how they become its result; included by the tiled kernels of attention alone. */
#ifndef PHX_KERNELS_CUDA_ATTENTION_JOIN_CUH
#define PHX_KERNELS_CUDA_ATTENTION_JOIN_CUH

#include "kernels/cuda/attention_span.cuh"

/* Where a query of a piece keeps its sums; m and l follow those of all queries of the slot. */
static __device__ inline float *find_slot(const struct cuda_attention &a, int32_t dim, int32_t slot, int32_t kv)
{
    return a.pieces + ((int64_t)slot * a.n_kv + kv) * a.slot_queries * (dim + 2);
}

/* How the leaves that a sequence's rows see are cut: pieces of n_leaves, aligned to position 0. */
struct cut {
    int32_t first, n, n_leaves; /* the first piece is leaves first * n_leaves ... */
};

static __device__ inline struct cut find_cut(const struct cuda_attention &a, const struct span &s)
{
    struct cut c;

    c.n_leaves = a.split == CUDA_SPLIT_LEAVES ? 1 : CUDA_PART_LEAVES;
    c.first = s.begin / CUDA_LEAF_TOKENS / c.n_leaves;
    c.n = (s.end - 1) / CUDA_LEAF_TOKENS / c.n_leaves - c.first + 1;
    return c;
}

/* Of a block of one warp, when its piece is written: whether all others of the unit have been written, too.  The last
 * one leaves the counter as it was before the first. */
static __device__ inline bool is_last_piece(const struct cuda_attention &a, int32_t n_pieces)
{
    int32_t is_last = 0;

    __threadfence();
    __syncwarp();
    if (threadIdx.x == 0) {
        uint32_t *counter = a.counters + own_unit() * a.n_kv + (int32_t)blockIdx.y;

        is_last = atomicAdd(counter, 1u) + 1u == (uint32_t)n_pieces;
        if (is_last)
            *counter = 0;
    }
    is_last = phx_shfl(is_last, 0);
    __threadfence();
    return is_last != 0;
}

/* Four d of a state. */
struct sums {
    float m, l, acc[4];
};

static __device__ inline void join_sums(struct sums *s, float m, float l, const float acc[4])
{
    struct joint how = join(s->m, m);

    s->m = how.m;
    s->l = mix(how, s->l, l);
#pragma unroll
    for (int i = 0; i < 4; i++)
        s->acc[i] = mix(how, s->acc[i], acc[i]);
}

/* The pieces of a query into *whole, in order, AHEAD of them on their way; d4: this lane's four d. */
template <int DIM>
static __device__ inline void join_query(const struct cuda_attention &a, const struct cut &c, int32_t slot, int32_t in_unit,
                                         int32_t d4, struct sums *whole)
{
    enum { AHEAD = CUDA_JOIN_AHEAD };
    struct sums empty = {NOTHING, 0, {0, 0, 0, 0}}, part = empty;

#pragma unroll 1
    for (int32_t from = 0; from < c.n; from += AHEAD) {
        float2 ml[AHEAD];
        float4 acc[AHEAD];

#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const float *piece = find_slot(a, DIM, slot + min(from + i, c.n - 1), (int32_t)blockIdx.y);

            ml[i] = phx_load_fresh((const float2 *)(piece + a.slot_queries * DIM) + in_unit);
            acc[i] = phx_load_fresh((const float4 *)(piece + in_unit * DIM) + d4);
        }
#pragma unroll
        for (int i = 0; i < AHEAD; i++) {
            const float four[4] = {acc[i].x, acc[i].y, acc[i].z, acc[i].w};

            if (from + i >= c.n)
                continue;
            join_sums(&part, ml[i].x, ml[i].y, four);
            if (from + i + 1 < c.n && (c.first + from + i + 1) * c.n_leaves % CUDA_PART_LEAVES != 0)
                continue;
            join_sums(whole, part.m, part.l, part.acc);
            part = empty;
        }
    }
}

/* The result of a unit's queries, by one warp: as many at a time as it has fours of d for. */
template <int DIM> static __device__ inline void join_unit(const struct cuda_attention &a, const struct span &s, int32_t slot)
{
    enum { FOURS = DIM / 4, AT_ONCE = LANES / FOURS };
    int32_t    lane = (int32_t)threadIdx.x, d4 = lane % FOURS, n = min(s.n - s.first, a.unit_queries);
    struct cut c = find_cut(a, s);

    for (int32_t from = 0; from < n; from += AT_ONCE) {
        int32_t     in_unit = min(from + lane / FOURS, n - 1), query = s.first + in_unit, head = s.head + query % s.n_heads;
        float      *out = a.out + (s.row + query / s.n_heads) * a.out_stride + (int64_t)head * a.kv.head_dim + d4 * 4;
        struct sums whole = {0, 0, {0, 0, 0, 0}};

        open_with_sink(a, head, &whole.m, &whole.l);
        join_query<DIM>(a, c, slot, in_unit, d4, &whole);
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (d4 * 4 + i < a.kv.head_dim && from + lane / FOURS < n)
                out[i] = make_canonical(whole.acc[i] * (1.0f / whole.l));
    }
}

#endif
