/* SPDX-License-Identifier: Apache-2.0
 * Attention on tensor cores over a bf16 cache, and what joins the pieces of any cache. */
#include "kernels/cuda/attention_tiles.cuh"

enum { JOIN_WARPS = 4, JOIN_PARTS = 32 };

/* One warp joins the leaves of a part, or takes the part as it is. */
template <int DIM>
static __device__ inline void gather_part(const struct cuda_attention &a, const struct cut &c, int32_t slot,
                                          int32_t part, float *acc, float *ml)
{
    int32_t lane = (int32_t)threadIdx.x % LANES, per = CUDA_PART_LEAVES / c.n_leaves;
    int32_t from = part * per > c.first ? part * per : c.first;
    int32_t end = (part + 1) * per < c.first + c.n ? (part + 1) * per : c.first + c.n;
    float   m = NOTHING, l = 0, sum[DIM / LANES] = {0};

    for (int32_t i = from; i < end; i++) {
        const float *piece = find_slot(a, DIM, slot + i - c.first, (int32_t)blockIdx.y);
        const float *tail = piece + a.slot_queries * DIM + 2 * blockIdx.x;
        struct joint how = join(m, tail[0]);

        m = how.m;
        l = mix(how, l, tail[1]);
#pragma unroll
        for (int j = 0; j < DIM / LANES; j++)
            sum[j] = mix(how, sum[j], piece[blockIdx.x * DIM + j * LANES + lane]);
    }
#pragma unroll
    for (int j = 0; j < DIM / LANES; j++)
        acc[j * LANES + lane] = sum[j];
    if (lane == 0) {
        ml[0] = m;
        ml[1] = l;
    }
}

/* A block per query of a unit: JOIN_PARTS parts at a time, in order. */
template <int DIM>
static __global__ void __launch_bounds__(JOIN_WARPS *LANES) join_pieces(const struct cuda_attention a)
{
    phx_begin();
    __shared__ float acc[JOIN_PARTS][DIM];
    __shared__ float ml[JOIN_PARTS][2];
    struct span s = find_span(a, (int32_t)blockIdx.z, (int32_t)blockIdx.y);
    struct cut  c = find_cut(a, s);
    int32_t     query = s.first + (int32_t)blockIdx.x, d = (int32_t)threadIdx.x;
    int32_t     warp = (int32_t)threadIdx.x / LANES, head = s.head + query % s.n_heads;
    int32_t     part = s.begin / CUDA_PART_TOKENS, end = (s.end - 1) / CUDA_PART_TOKENS + 1;
    float       m, l, sum = 0;

    if (query >= s.n)
        return;
    open_with_sink(a, head, &m, &l);
    for (; part < end; part += JOIN_PARTS) {
        int32_t n = end - part < JOIN_PARTS ? end - part : JOIN_PARTS;

        for (int32_t i = warp; i < n; i += JOIN_WARPS)
            gather_part<DIM>(a, c, a.units[blockIdx.z].slot, part + i, acc[i], ml[i]);
        __syncthreads();
        for (int32_t i = 0; i < n; i++) {
            struct joint how = join(m, ml[i][0]);

            m = how.m;
            l = mix(how, l, ml[i][1]);
            sum = mix(how, sum, d < DIM ? acc[i][d] : 0.0f);
        }
        __syncthreads();
    }
    if (d < a.kv.head_dim)
        a.out[(s.row + query / s.n_heads) * a.out_stride + (int64_t)head * a.kv.head_dim + d] =
            make_canonical(sum * (1.0f / l));
}

/* ---- launchers -------------------------------------------------------------------------------- */

extern "C" int phx_cuda_attend_tiles(cudaStream_t stream, const struct cuda_attention *a, int32_t dim)
{
    switch (a->kv.kind) {
    case CUDA_KV_I8: return phx_cuda_attend_bytes(stream, a, dim);
    case CUDA_KV_F8: return phx_cuda_attend_f8(stream, a, dim);
    default: return launch_kind<CUDA_KV_BF16>(stream, a, dim);
    }
}

extern "C" int phx_cuda_attend_join(cudaStream_t stream, const struct cuda_attention *a, int32_t dim)
{
    dim3 grid((unsigned)a->slot_queries, (unsigned)a->n_kv, (unsigned)a->n_units);
    void (*kernel)(const struct cuda_attention) = dim == 64 ? join_pieces<64> : join_pieces<128>;

    return (int)PHX_LAUNCH(kernel, grid, JOIN_WARPS * LANES, 0, stream, *a);
}
