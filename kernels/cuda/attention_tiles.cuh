/* SPDX-License-Identifier: Apache-2.0
 * Attention on tensor cores over a cache of bf16 or bytes; attention.h has the arithmetic.  One kernel for
 * decoding and prefill: the warps of a block pass over leaves in shared memory, two in flight, each with its own
 * queries (one warp of 16 when decoding, four of 16 or 32 in a prefill), so a query's bits are the same in both. */
#ifndef PHX_KERNELS_CUDA_ATTENTION_TILES_CUH
#define PHX_KERNELS_CUDA_ATTENTION_TILES_CUH

#include "kernels/cuda/attention_join.cuh"
#include "kernels/cuda/attention_leaf.cuh"

enum { STAGES = 2 };

/* ---- parts ------------------------------------------------------------------------------------ */

template <int DIM, int MT, int THREADS>
static __device__ inline void open_whole(const struct cuda_attention &a, const struct span &s, int32_t first,
                                         struct lane_words<DIM, MT, THREADS> w)
{
    for (int r = 0; r < w.QUERIES; r++) {
        int32_t at = first + r * 8 + (int32_t)threadIdx.x % LANES / 4;

        open_with_sink(a, s.head + (at < s.n ? at : s.n - 1) % s.n_heads, w.whole_m(r), w.whole_l(r));
    }
    for (int i = 0; i < w.SUMS; i++)
        *w.sum(i) = 0;
}

/* Joins the part to the whole and begins the next. */
template <int DIM, int MT, int THREADS>
static __device__ inline void close_part(struct band<DIM, MT> *b, struct lane_words<DIM, MT, THREADS> w)
{
#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
        struct joint how[2];

#pragma unroll
        for (int i = 0; i < 2; i++) {
            int r = mt * 2 + i;

            how[i] = join(*w.whole_m(r), *w.m(r));
            *w.whole_m(r) = how[i].m;
            *w.whole_l(r) = mix(how[i], *w.whole_l(r), *w.l(r));
        }
#pragma unroll
        for (int i = 0; i < DIM / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float *sum = w.sum((mt * DIM / 8 + i) * 4 + e);

                *sum = mix(how[e / 2], *sum, b->acc[mt][i][e]);
            }
    }
    empty_part(b, w);
}

template <int DIM, int MT, int THREADS>
static __device__ inline void write_whole(const struct cuda_attention &a, const struct span &s, int32_t first,
                                          struct lane_words<DIM, MT, THREADS> w)
{
    for (int r = 0; r < w.QUERIES; r++) {
        int32_t at = first + r * 8 + (int32_t)threadIdx.x % LANES / 4;
        float   scale = 1.0f / *w.whole_l(r);
        float  *out = a.out + (s.row + at / s.n_heads) * a.out_stride + (int64_t)(s.head + at % s.n_heads) * a.kv.head_dim;

        if (at >= s.n)
            return;
        for (int i = 0; i < DIM / 8; i++)
            for (int e = r % 2 * 2; e < r % 2 * 2 + 2; e++)
                if (dim_of(i, e) < a.kv.head_dim)
                    out[dim_of(i, e)] = make_canonical(*w.sum((r / 2 * DIM / 8 + i) * 4 + e) * scale);
    }
}

template <int DIM, int MT, int THREADS>
static __device__ inline void write_piece(const struct cuda_attention &a, float *slot, int32_t in_unit, int32_t n,
                                          const struct band<DIM, MT> &b, struct lane_words<DIM, MT, THREADS> w)
{
    int32_t lane = (int32_t)threadIdx.x % LANES;

#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int32_t in = mt * ROWS + r * 8 + lane / 4, at = in_unit + in;

            if (in >= n)
                continue;
#pragma unroll
            for (int i = 0; i < DIM / 8; i++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++)
                    slot[at * DIM + dim_of(i, e)] = b.acc[mt][i][e];
            if (lane % 4 == 0) {
                slot[a.slot_queries * DIM + 2 * at] = *w.m(mt * 2 + r);
                slot[a.slot_queries * DIM + 2 * at + 1] = *w.l(mt * 2 + r);
            }
        }
}

/* ---- the walk --------------------------------------------------------------------------------- */

/* The leaves [first, last] of a block: what its queries see of them, or of its piece. */
struct leaves {
    int32_t first, last;
};

static __device__ inline struct leaves find_leaves(const struct cuda_attention &a, const struct span &s,
                                                   const struct view &see)
{
    struct leaves l = {see.begin / CUDA_LEAF_TOKENS, (see.end - 1) / CUDA_LEAF_TOKENS};

    if (a.split != CUDA_SPLIT_NONE) {
        struct cut c = find_cut(a, s);
        int32_t    from = (c.first + (int32_t)blockIdx.z) * c.n_leaves;

        l.first = from > l.first ? from : l.first;
        l.last = from + c.n_leaves - 1 < l.last ? from + c.n_leaves - 1 : l.last;
    }
    return l;
}

static __device__ inline struct view find_view(const struct cuda_attention &a, const struct span &s)
{
    struct view v;

    v.table = a.spans.table + (int64_t)s.seq * a.spans.table_stride;
    v.kv_head = s.kv_head;
    v.all_end = position_of(s, s.first) + 1;
    v.end = position_of(s, s.first + a.unit_queries - 1) + 1;
    v.begin = first_seen(a, v.all_end - 1);
    v.all_begin = first_seen(a, v.end - 1);
    return v;
}

/* What a block keeps beside its leaves. */
template <int KIND, int DIM, int WARPS> struct desk {
    struct view            see;
    struct limits          limits[WARPS];
    struct wild<KIND, DIM> wild;
};

/* The leaf at pos, of which the block has all: the warp's queries, if they see something of it. */
template <int KIND, int DIM, int MT, int WARPS>
static __device__ inline void pass_leaf(const struct cuda_attention &a, struct desk<KIND, DIM, WARPS> *desk,
                                        unsigned char *leaf_at, int32_t pos,
                                        struct lane_words<DIM, MT, WARPS * LANES> w, struct band<DIM, MT> *b)
{
    const struct limits &limits = desk->limits[threadIdx.x / LANES];
    bool is_seen = limits.n > 0 && pos <= limits.last_max && pos + CUDA_LEAF_TOKENS > limits.first_min, is_wild = false;

    if constexpr (KIND == CUDA_KV_BF16)
        if (pos < desk->see.all_begin || pos + CUDA_LEAF_TOKENS > desk->see.all_end)
            is_wild = take_out_wild<DIM, WARPS * LANES>(leaf_at + leaf<KIND, DIM>::VALUES, &desk->wild);
    if (is_seen)
        attend_leaf<KIND>(a, limits, w, b, leaf_at, pos);
    if constexpr (KIND == CUDA_KV_BF16)
        if (is_wild) {
            if (is_seen)
                mark_wild(a, w, b, desk->wild, pos);
            __syncthreads();
            desk->wild.is_any = 0;
        }
}

/* The queries of each warp pass the leaves of the block; without pieces parts are joined on the way. */
template <int KIND, int DIM, int MT, int WARPS>
static __device__ inline void walk(const struct cuda_attention &a, struct leaves all, struct desk<KIND, DIM, WARPS> *desk,
                                   unsigned char *stages, struct lane_words<DIM, MT, WARPS * LANES> w, struct band<DIM, MT> *b)
{
    enum { STAGE_BYTES = leaf<KIND, DIM>::BYTES };
    int32_t block = find_block(a, desk->see, all.first * CUDA_LEAF_TOKENS); /* read a leaf ahead of their use */

    for (int32_t i = all.first - 1; i <= all.last; i++) {
        int32_t        pos = i * CUDA_LEAF_TOKENS;
        unsigned char *here = stages + (uint32_t)i % STAGES * STAGE_BYTES;

        if (i < all.last) {
            load_leaf<KIND, DIM, WARPS * LANES>(a, desk->see, stages + (uint32_t)(i + 1) % STAGES * STAGE_BYTES,
                                                pos + CUDA_LEAF_TOKENS, block);
            block = i + 1 < all.last ? find_block(a, desk->see, pos + 2 * CUDA_LEAF_TOKENS) : 0;
        }
        phx_cp_async_commit();
        if (i < all.first)
            continue;
        phx_cp_async_wait<1>();
        __syncthreads();
        pass_leaf(a, desk, here, pos, w, b);
        if (a.split == CUDA_SPLIT_NONE && desk->limits[threadIdx.x / LANES].n > 0 &&
            (i == all.last || (i + 1) % CUDA_PART_LEAVES == 0))
            close_part(b, w);
        __syncthreads();
    }
}

template <int KIND, int DIM, int MT, int WARPS>
static __global__ void __launch_bounds__(WARPS *LANES, WARPS == 1 ? 6 : 2) attend_tiles(const struct cuda_attention a)
{
    if (a.sinks != NULL && (int32_t)threadIdx.x * LANES < a.n_heads)
        phx_prefetch_line(a.sinks + threadIdx.x * LANES);
    phx_begin();
    PHX_SHARED(unsigned char, stages);
    enum { THREADS = WARPS * LANES };
    __shared__ struct desk<KIND, DIM, WARPS> desk;
    struct span              s = own_span(a);
    int32_t                  warp = (int32_t)threadIdx.x / LANES, in_unit = warp * MT * ROWS;
    struct band<DIM, MT>     b;
    struct lane_words<DIM, MT, THREADS> w = {(float *)(void *)(stages + STAGES * leaf<KIND, DIM>::BYTES) + threadIdx.x};

    if (s.first >= s.n || (a.split != CUDA_SPLIT_NONE && (int32_t)blockIdx.z >= find_cut(a, s).n))
        return;
    if (threadIdx.x == 0) {
        desk.see = find_view(a, s);
        desk.wild.is_any = 0;
    }
    if (threadIdx.x % LANES == 0)
        desk.limits[warp] = find_limits(a, s, s.first + in_unit, MT * ROWS);
    for (int r = 0; r < w.QUERIES; r++)
        *w.last(r) = position_of(s, s.first + in_unit + r * 8 + (int32_t)threadIdx.x % LANES / 4);
    if (a.split == CUDA_SPLIT_NONE)
        open_whole(a, s, s.first + in_unit, w);
    load_queries<KIND>(a, s, s.first + in_unit, &b);
    empty_part(&b, w);
    __syncthreads();
    walk(a, find_leaves(a, s, desk.see), &desk, stages, w, &b);
    s = own_span(a); /* not kept in registers during the walk */
    if (a.split == CUDA_SPLIT_NONE) {
        write_whole(a, s, s.first + in_unit, w);
        return;
    }
    write_piece(a, find_slot(a, DIM, a.units[own_unit()].slot + (int32_t)blockIdx.z, (int32_t)blockIdx.y), in_unit,
                desk.limits[warp].n, b, w);
    if (WARPS == 1 && a.counters != NULL && is_last_piece(a, find_cut(a, s).n))
        join_unit<DIM>(a, s, a.units[own_unit()].slot);
}

template <int KIND, int DIM, int MT, int WARPS>
static int launch_tiles(cudaStream_t stream, const struct cuda_attention *a)
{
    typedef struct lane_words<DIM, MT, WARPS * LANES> words;
    dim3   grid((unsigned)a->n_units, (unsigned)a->n_kv, (unsigned)a->n_pieces);
    size_t n_words = a->split == CUDA_SPLIT_NONE ? words::N_WITH_WHOLE : words::N;
    size_t bytes = STAGES * leaf<KIND, DIM>::BYTES + WARPS * LANES * n_words * 4;
    void (*kernel)(const struct cuda_attention) = attend_tiles<KIND, DIM, MT, WARPS>;

    return (int)PHX_LAUNCH(kernel, grid, WARPS * LANES, bytes, stream, *a);
}

/* All four kernels of a kind of cache. */
template <int KIND> static int launch_kind(cudaStream_t stream, const struct cuda_attention *a, int32_t dim)
{
    if (a->unit_queries == CUDA_UNIT_QUERIES)
        return dim == 64 ? launch_tiles<KIND, 64, 1, 1>(stream, a) : launch_tiles<KIND, 128, 1, 1>(stream, a);
    return dim == 64 ? launch_tiles<KIND, 64, 2, 4>(stream, a) : launch_tiles<KIND, 128, 1, 4>(stream, a);
}

#endif
