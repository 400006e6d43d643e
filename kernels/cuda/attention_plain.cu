/* SPDX-License-Identifier: Apache-2.0
 * Attention in float32 for every shape: one block per row and head.  Tiles of 32 positions, aligned to
 * position 0, go round the warps of the block; a lane scores one position (a chain over d) and then owns some
 * d (chains over positions).  The states of the warps join in order behind the sink's. */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/attention.h"
#include "kernels/f8.h"

enum {
    LANES = 32,
    WARPS = 4,
    TILE = LANES,
    PAIRS_MAX = CUDA_ATTENTION_DIM_MAX / (2 * LANES) /* pairs of d that a lane owns */
};

static const float LOG2_E = 1.4426950408889634f;
static const float NOTHING = -1e30f; /* the maximum of no score: finite, so inf - inf never happens */

/* Where the position's key lies in the cache. */
static __device__ inline int64_t find_key(const struct cuda_attention &a, const int32_t *table, int32_t kv_head,
                                          int32_t pos)
{
    return cuda_kv_at(&a.kv, table[pos / a.kv.block_tokens], kv_head, pos % a.kv.block_tokens);
}

/* Elements at, at + 1 of the cache, without their scale; KIND is an enum cuda_kv_kind. */
template <int KIND>
static __device__ inline float2 load_pair(const struct cuda_attention &a, int64_t at)
{
    float2 f;

    if (KIND == CUDA_KV_I8) {
        f.x = (float)((const int8_t *)a.kv.data)[at];
        f.y = (float)((const int8_t *)a.kv.data)[at + 1];
    } else if (KIND == CUDA_KV_F8) {
        f.x = phx_f8_float(((const uint8_t *)a.kv.data)[at]);
        f.y = phx_f8_float(((const uint8_t *)a.kv.data)[at + 1]);
    } else if (KIND == CUDA_KV_BF16) {
        uint32_t bits = *(const uint32_t *)((const uint16_t *)a.kv.data + at);

        f.x = phx_bf16_float((uint16_t)(bits & 0xffff));
        f.y = phx_bf16_float((uint16_t)(bits >> 16));
    } else {
        f = *(const float2 *)((const float *)a.kv.data + at);
    }
    return f;
}

/* Of the position's key, or, `behind` v_offset, of its value. */
template <int KIND>
static __device__ inline float load_scale(const struct cuda_attention &a, const int32_t *table, int32_t kv_head,
                                          int32_t pos, int64_t behind)
{
    if (KIND != CUDA_KV_I8 && KIND != CUDA_KV_F8)
        return 1.0f;
    return *(const float *)((const unsigned char *)a.kv.data + behind +
                            cuda_kv_scale_at(&a.kv, table[pos / a.kv.block_tokens], kv_head, pos % a.kv.block_tokens));
}

/* What a warp has seen so far; a lane owns d = 2 * lane + 64 * i and the next. */
struct plain_state {
    float  m, l;
    float2 acc[PAIRS_MAX];
};

template <int KIND>
static __device__ inline float score(const struct cuda_attention &a, const float *q, int64_t at)
{
    float s = 0;

    for (int32_t d = 0; d < a.kv.head_dim; d += 2) {
        float2 k = load_pair<KIND>(a, at + d);

        s = fmaf(q[d], k.x, s);
        s = fmaf(q[d + 1], k.y, s);
    }
    return s;
}

/* The positions [begin, end) of the tile at pos. */
template <int KIND>
static __device__ inline void attend_tile(const struct cuda_attention &a, struct plain_state *st,
                                          const float *q, const int32_t *table, int32_t kv_head,
                                          int32_t pos, int32_t begin, int32_t end)
{
    int32_t lane = (int32_t)threadIdx.x % LANES;
    bool    is_seen = lane >= begin && lane < end;
    float   s = -INFINITY, m, p, shrink;

    if (is_seen)
        s = score<KIND>(a, q, find_key(a, table, kv_head, pos + lane)) * (a.is_rounded ? 1.0f : a.scale) *
            load_scale<KIND>(a, table, kv_head, pos + lane, 0);
    m = fmaxf(st->m, phx_warp_max(s));
    p = phx_exp2((s - m) * LOG2_E);
    shrink = phx_exp2((st->m - m) * LOG2_E);
    st->l = fmaf(st->l, shrink, phx_warp_sum(p));
    st->m = m;
#pragma unroll
    for (int i = 0; i < PAIRS_MAX; i++) {
        st->acc[i].x *= shrink;
        st->acc[i].y *= shrink;
    }
    for (int32_t j = begin; j < end; j++) {
        int64_t at = find_key(a, table, kv_head, pos + j) + a.kv.v_offset;
        float   w = phx_shfl(p, j) * load_scale<KIND>(a, table, kv_head, pos + j, a.kv.v_offset);

#pragma unroll
        for (int i = 0; i < PAIRS_MAX; i++) {
            int32_t d = 2 * (lane + i * LANES);

            if (d < a.kv.head_dim) {
                float2 v = load_pair<KIND>(a, at + d);

                st->acc[i].x = fmaf(w, v.x, st->acc[i].x);
                st->acc[i].y = fmaf(w, v.y, st->acc[i].y);
            }
        }
    }
}

/* acc / l of the states of all warps, joined in order. */
static __device__ inline void join_warps(const struct cuda_attention &a, float sink,
                                         const float (*acc)[CUDA_ATTENTION_DIM_MAX],
                                         const float (*ml)[2], float *out)
{
    float m = fmaxf(sink, NOTHING), l = sink > -INFINITY ? 1.0f : 0.0f;

    for (int32_t d = (int32_t)threadIdx.x; d < a.kv.head_dim; d += WARPS * LANES) {
        float m_d = m, l_d = l, sum = 0;

#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            float top = fmaxf(m_d, ml[w][0]);
            float shrink = phx_exp2((m_d - top) * LOG2_E), weight = phx_exp2((ml[w][0] - top) * LOG2_E);

            l_d = fmaf(ml[w][1], weight, l_d * shrink);
            sum = fmaf(acc[w][d], weight, sum * shrink);
            m_d = top;
        }
        out[d] = sum / l_d;
    }
}

template <int KIND>
static __global__ void __launch_bounds__(WARPS *LANES) attend_plain(const struct cuda_attention a)
{
    phx_begin();
    __shared__ float q[CUDA_ATTENTION_DIM_MAX];
    __shared__ float acc[WARPS][CUDA_ATTENTION_DIM_MAX];
    __shared__ float ml[WARPS][2];
    int32_t row = (int32_t)blockIdx.x, head = (int32_t)blockIdx.y, seq = a.spans.seq_of_row[row];
    int32_t warp = (int32_t)threadIdx.x / LANES, lane = (int32_t)threadIdx.x % LANES;
    int32_t kv_head = (a.head_first + head) / a.group - a.kv_first;
    int32_t last, first;
    struct plain_state st;

    if (seq < 0) /* a row that no sequence owns: the whole block leaves */
        return;
    last = a.spans.pos_of_row[row];
    first = a.window > 0 && last - a.window + 1 > 0 ? last - a.window + 1 : 0;
    for (int32_t d = (int32_t)threadIdx.x; d < a.kv.head_dim; d += WARPS * LANES) {
        float x = a.q[row * a.q_stride + (int64_t)head * a.kv.head_dim + d];

        q[d] = a.is_rounded ? phx_bf16_float(phx_bf16_bits(x * a.scale)) : x;
    }
    __syncthreads();
    st.m = NOTHING;
    st.l = 0;
#pragma unroll
    for (int i = 0; i < PAIRS_MAX; i++)
        st.acc[i].x = st.acc[i].y = 0;
    for (int32_t tile = first / TILE; tile <= last / TILE; tile++) {
        int32_t pos = tile * TILE, begin = first - pos, end = last + 1 - pos;

        if (tile % WARPS != warp)
            continue;
        attend_tile<KIND>(a, &st, q, a.spans.table + (int64_t)seq * a.spans.table_stride, kv_head, pos,
                             begin > 0 ? begin : 0, end < TILE ? end : TILE);
    }
#pragma unroll
    for (int i = 0; i < PAIRS_MAX; i++) {
        acc[warp][2 * (lane + i * LANES)] = st.acc[i].x;
        acc[warp][2 * (lane + i * LANES) + 1] = st.acc[i].y;
    }
    ml[warp][0] = st.m;
    ml[warp][1] = st.l;
    __syncthreads();
    join_warps(a, a.sinks != NULL ? a.sinks[head] : -INFINITY, acc, ml,
               a.out + row * a.out_stride + (int64_t)head * a.kv.head_dim);
}

extern "C" int phx_cuda_attend_plain(cudaStream_t stream, const struct cuda_attention *a)
{
    dim3 grid((unsigned)a->spans.n_rows_total, (unsigned)a->n_heads, 1);
    void (*kernel)(const struct cuda_attention) = a->kv.kind == CUDA_KV_I8     ? attend_plain<CUDA_KV_I8>
                                                  : a->kv.kind == CUDA_KV_F8   ? attend_plain<CUDA_KV_F8>
                                                  : a->kv.kind == CUDA_KV_BF16 ? attend_plain<CUDA_KV_BF16>
                                                                               : attend_plain<CUDA_KV_F32>;

    return (int)PHX_LAUNCH(kernel, grid, WARPS * LANES, 0, stream, *a);
}
