/* SPDX-License-Identifier: Apache-2.0
 * Attention on tensor cores over a bf16 cache; attention.h has the arithmetic.  One kernel for decoding and
 * prefill: the warps of a block pass over leaves in shared memory, two in flight, each with its own queries
 * (one warp of 16 when decoding, four of 16 or 32 in a prefill), so a query's bits are the same in both. */
#include "kernels/cuda/device.cuh"

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

/* The d of accumulator (i, e) of a lane. */
static __device__ inline int32_t dim_of(int i, int e)
{
    return i / 8 * 64 + (int32_t)threadIdx.x % 4 * 16 + e % 2 * 8 + i % 8;
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

/* Where a query of a piece keeps its sums; m and l follow those of all queries of the slot. */
static __device__ inline float *find_slot(const struct cuda_attention &a, int32_t dim, int32_t slot, int32_t kv)
{
    return a.pieces + ((int64_t)slot * a.n_kv + kv) * a.slot_queries * (dim + 2);
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
    v.begin = first_seen(a, position_of(s, s.first));
    v.end = position_of(s, s.first + a.unit_queries - 1) + 1;
    return v;
}

/* The queries of each warp pass the leaves of the block; without pieces parts are joined on the way. */
template <int DIM, int MT, int THREADS>
static __device__ inline void walk(const struct cuda_attention &a, struct leaves all, const struct view &see,
                                   const struct limits &limits, int32_t in_unit, unsigned char *stages,
                                   struct lane_words<DIM, MT, THREADS> w, struct band<DIM, MT> *b)
{
    enum { STAGE_BYTES = 2 * CUDA_LEAF_TOKENS * DIM * 2 };

    for (int32_t leaf = all.first - 1; leaf <= all.last; leaf++) {
        int32_t              pos = leaf * CUDA_LEAF_TOKENS;
        const unsigned char *here = stages + (uint32_t)leaf % STAGES * STAGE_BYTES;

        if (leaf < all.last)
            load_leaf<DIM, THREADS>(a, see, stages + (uint32_t)(leaf + 1) % STAGES * STAGE_BYTES, pos + CUDA_LEAF_TOKENS);
        phx_cp_async_commit();
        if (leaf < all.first)
            continue;
        phx_cp_async_wait<1>();
        __syncthreads();
        if (limits.n > 0 && pos <= limits.last_max && pos + CUDA_LEAF_TOKENS > limits.first_min)
            attend_leaf(a, in_unit, limits, w, b, here, pos);
        if (a.split == CUDA_SPLIT_NONE && limits.n > 0 && (leaf == all.last || (leaf + 1) % CUDA_PART_LEAVES == 0))
            close_part(b, w);
        __syncthreads();
    }
}

template <int DIM, int MT, int WARPS>
static __global__ void __launch_bounds__(WARPS *LANES, WARPS == 1 ? 6 : 2) attend_tiles(const struct cuda_attention a)
{
    PHX_SHARED(unsigned char, stages);
    enum { THREADS = WARPS * LANES, STAGES_BYTES = STAGES * 2 * CUDA_LEAF_TOKENS * DIM * 2 };
    __shared__ struct view   see;
    __shared__ struct limits limits[WARPS];
    struct span              s = own_span(a);
    int32_t                  warp = (int32_t)threadIdx.x / LANES, in_unit = warp * MT * ROWS;
    struct band<DIM, MT>     b;
    struct lane_words<DIM, MT, THREADS> w = {(float *)(void *)(stages + STAGES_BYTES) + threadIdx.x};

    if (s.first >= s.n || (a.split != CUDA_SPLIT_NONE && (int32_t)blockIdx.z >= find_cut(a, s).n))
        return;
    if (threadIdx.x == 0)
        see = find_view(a, s);
    if (threadIdx.x % LANES == 0)
        limits[warp] = find_limits(a, s, s.first + in_unit, MT * ROWS);
    for (int r = 0; r < w.QUERIES; r++)
        *w.last(r) = position_of(s, s.first + in_unit + r * 8 + (int32_t)threadIdx.x % LANES / 4);
    if (a.split == CUDA_SPLIT_NONE)
        open_whole(a, s, s.first + in_unit, w);
    load_queries(a, s, s.first + in_unit, &b);
    empty_part(&b, w);
    __syncthreads();
    walk(a, find_leaves(a, s, see), see, limits[warp], in_unit, stages, w, &b);
    s = own_span(a); /* not kept in registers during the walk */
    if (a.split == CUDA_SPLIT_NONE)
        write_whole(a, s, s.first + in_unit, w);
    else
        write_piece(a, find_slot(a, DIM, a.units[own_unit()].slot + (int32_t)blockIdx.z, (int32_t)blockIdx.y), in_unit,
                    limits[warp].n, b, w);
}

/* ---- joining pieces --------------------------------------------------------------------------- */

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

template <int DIM, int MT, int WARPS>
static int launch_tiles(cudaStream_t stream, const struct cuda_attention *a)
{
    typedef struct lane_words<DIM, MT, WARPS * LANES> words;
    dim3   grid((unsigned)a->n_units, (unsigned)a->n_kv, (unsigned)a->n_pieces);
    size_t n_words = a->split == CUDA_SPLIT_NONE ? words::N_WITH_WHOLE : words::N;
    size_t bytes = STAGES * 2 * CUDA_LEAF_TOKENS * DIM * 2 + WARPS * LANES * n_words * 4;
    void (*kernel)(const struct cuda_attention) = attend_tiles<DIM, MT, WARPS>;

    return (int)PHX_LAUNCH(kernel, grid, WARPS * LANES, bytes, stream, *a);
}

extern "C" int phx_cuda_attend_tiles(cudaStream_t stream, const struct cuda_attention *a, int32_t dim)
{
    if (a->unit_queries == CUDA_UNIT_QUERIES)
        return dim == 64 ? launch_tiles<64, 1, 1>(stream, a) : launch_tiles<128, 1, 1>(stream, a);
    return dim == 64 ? launch_tiles<64, 2, 4>(stream, a) : launch_tiles<128, 1, 4>(stream, a);
}

extern "C" int phx_cuda_attend_join(cudaStream_t stream, const struct cuda_attention *a, int32_t dim)
{
    dim3 grid((unsigned)a->slot_queries, (unsigned)a->n_kv, (unsigned)a->n_units);
    void (*kernel)(const struct cuda_attention) = dim == 64 ? join_pieces<64> : join_pieces<128>;

    return (int)PHX_LAUNCH(kernel, grid, JOIN_WARPS * LANES, 0, stream, *a);
}
