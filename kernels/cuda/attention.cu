/* SPDX-License-Identifier: Apache-2.0
 * Attention on tensor cores over a bf16 cache; attention.h has the arithmetic.  One kernel for decoding and
 * prefill: the warps of a block pass over leaves in shared memory, two in flight, each with its own queries
 * (one warp of 16 when decoding, four of 16 or 32 in a prefill), so a query's bits are the same in both. */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/attention_leaf.cuh"

enum { STAGES = 2 };

/* ---- parts ------------------------------------------------------------------------------------ */

/* The joined parts of a warp's queries lie in shared memory, out of the way of the leaves: floats of a thread in
 * steps of THREADS, first acc as in a band, then m, then l. */
template <int DIM, int MT> static constexpr int whole_floats()
{
    return MT * DIM / 2 + 2 * MT * 2;
}

template <int DIM, int MT, int THREADS>
static __device__ inline void open_whole(const struct cuda_attention &a, const struct span &s, int32_t first,
                                         float *whole)
{
    int32_t g = (int32_t)threadIdx.x % LANES / 4;

    for (int i = 0; i < MT * DIM / 2; i++)
        whole[i * THREADS] = 0;
    whole += MT * DIM / 2 * THREADS;
    for (int i = 0; i < MT * 2; i++) {
        int32_t at = first + i * 8 + g;

        open_with_sink(a, s.head + (at < s.n ? at : s.n - 1) % s.n_heads, &whole[i * THREADS],
                       &whole[(MT * 2 + i) * THREADS]);
    }
}

/* Joins the part to the whole and begins the next. */
template <int DIM, int MT, int THREADS>
static __device__ inline void close_part(struct band<DIM, MT> *b, float *whole)
{
    float *m = whole + MT * DIM / 2 * THREADS, *l = m + MT * 2 * THREADS;

#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
        struct joint how[2];

#pragma unroll
        for (int r = 0; r < 2; r++) {
            int at = (mt * 2 + r) * THREADS;

            how[r] = join(m[at], b->m[mt][r]);
            m[at] = how[r].m;
            l[at] = mix(how[r], l[at], b->l[mt][r]);
        }
#pragma unroll
        for (int i = 0; i < DIM / 8; i++)
#pragma unroll
            for (int e = 0; e < 4; e++) {
                float *sum = whole + ((mt * DIM / 8 + i) * 4 + e) * THREADS;

                *sum = mix(how[e / 2], *sum, b->acc[mt][i][e]);
            }
    }
    empty_part(b);
}

/* The d of accumulator (i, e) of a lane. */
static __device__ inline int32_t dim_of(int i, int e)
{
    return i / 8 * 64 + (int32_t)threadIdx.x % 4 * 16 + e % 2 * 8 + i % 8;
}

template <int DIM, int MT, int THREADS>
static __device__ inline void write_whole(const struct cuda_attention &a, const struct span &s, int32_t first,
                                          const float *whole)
{
    const float *l = whole + (MT * DIM / 2 + MT * 2) * THREADS;

    for (int row = 0; row < MT * 2; row++) {
        int32_t at = first + row * 8 + (int32_t)threadIdx.x % LANES / 4;
        float   scale = 1.0f / l[row * THREADS];
        float  *out = a.out + (s.row + at / s.n_heads) * a.out_stride + (int64_t)(s.head + at % s.n_heads) * a.kv.head_dim;

        if (at >= s.n)
            return;
        for (int i = 0; i < DIM / 8; i++)
            for (int e = row % 2 * 2; e < row % 2 * 2 + 2; e++)
                if (dim_of(i, e) < a.kv.head_dim)
                    out[dim_of(i, e)] = make_canonical(whole[((row / 2 * DIM / 8 + i) * 4 + e) * THREADS] * scale);
    }
}

/* Where a query of a piece keeps its sums; m and l follow those of all queries of the slot. */
static __device__ inline float *find_slot(const struct cuda_attention &a, int32_t dim, int32_t slot, int32_t kv)
{
    return a.pieces + ((int64_t)slot * a.n_kv + kv) * a.slot_queries * (dim + 2);
}

template <int DIM, int MT>
static __device__ inline void write_piece(const struct cuda_attention &a, float *slot, int32_t in_unit,
                                          const struct band<DIM, MT> &b)
{
    int32_t lane = (int32_t)threadIdx.x % LANES;

#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
        for (int r = 0; r < 2; r++) {
            int32_t at = in_unit + mt * ROWS + r * 8 + lane / 4;

            if (mt * ROWS + r * 8 + lane / 4 >= b.n)
                continue;
#pragma unroll
            for (int i = 0; i < DIM / 8; i++)
#pragma unroll
                for (int e = 2 * r; e < 2 * r + 2; e++)
                    slot[at * DIM + dim_of(i, e)] = b.acc[mt][i][e];
            if (lane % 4 == 0) {
                slot[a.slot_queries * DIM + 2 * at] = b.m[mt][r];
                slot[a.slot_queries * DIM + 2 * at + 1] = b.l[mt][r];
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

/* What the queries of a block see: [begin, end); the leaves [first, last] of it are the block's. */
struct view {
    int32_t begin, end, first, last;
};

static __device__ inline struct view find_view(const struct cuda_attention &a, const struct span &s)
{
    struct view v;

    v.begin = first_seen(a, position_of(s, s.first));
    v.end = position_of(s, s.first + a.unit_queries - 1) + 1;
    v.first = v.begin / CUDA_LEAF_TOKENS;
    v.last = (v.end - 1) / CUDA_LEAF_TOKENS;
    if (a.split != CUDA_SPLIT_NONE) {
        struct cut c = find_cut(a, s);
        int32_t    from = (c.first + (int32_t)blockIdx.z) * c.n_leaves;

        v.first = from > v.first ? from : v.first;
        v.last = from + c.n_leaves - 1 < v.last ? from + c.n_leaves - 1 : v.last;
    }
    return v;
}

/* The queries of each warp pass the leaves of the block; with a whole, parts are joined on the way. */
template <int DIM, int MT, int WARPS>
static __device__ inline void walk(const struct cuda_attention &a, const struct span &s, const struct view &v,
                                   int32_t first, unsigned char *stages, struct band<DIM, MT> *b, float *whole)
{
    enum { THREADS = WARPS * LANES, STAGE_BYTES = 2 * CUDA_LEAF_TOKENS * DIM * 2 };

    if (v.first <= v.last)
        load_leaf<DIM, THREADS>(a, s, stages, v.first * CUDA_LEAF_TOKENS, v.begin, v.end);
    phx_cp_async_commit();
    for (int32_t leaf = v.first; leaf <= v.last; leaf++) {
        int32_t              pos = leaf * CUDA_LEAF_TOKENS;
        const unsigned char *here = stages + (leaf - v.first) % STAGES * STAGE_BYTES;

        if (leaf < v.last)
            load_leaf<DIM, THREADS>(a, s, stages + (leaf + 1 - v.first) % STAGES * STAGE_BYTES,
                                    pos + CUDA_LEAF_TOKENS, v.begin, v.end);
        phx_cp_async_commit();
        phx_cp_async_wait<1>();
        __syncthreads();
        if (b->n > 0 && pos <= b->last_max && pos + CUDA_LEAF_TOKENS > b->first_min)
            attend_leaf(a, s, first, b, here, pos);
        if (whole != NULL && b->n > 0 && (leaf == v.last || (leaf + 1) % CUDA_PART_LEAVES == 0))
            close_part<DIM, MT, THREADS>(b, whole);
        __syncthreads();
    }
}

template <int DIM, int MT, int WARPS>
static __global__ void __launch_bounds__(WARPS *LANES, WARPS == 1 ? 6 : 2) attend_tiles(const struct cuda_attention a)
{
    PHX_SHARED(unsigned char, stages);
    enum { THREADS = WARPS * LANES, STAGES_BYTES = STAGES * 2 * CUDA_LEAF_TOKENS * DIM * 2 };
    int32_t              unit = (int32_t)(gridDim.x - 1 - blockIdx.x); /* the longest walks begin first */
    struct span          s = find_span(a, unit, (int32_t)blockIdx.y);
    int32_t              in_unit = (int32_t)threadIdx.x / LANES * MT * ROWS;
    bool                 is_whole = a.split == CUDA_SPLIT_NONE;
    struct band<DIM, MT> b;
    float               *whole = NULL;

    if (s.first >= s.n || (!is_whole && (int32_t)blockIdx.z >= find_cut(a, s).n))
        return;
    open_band(a, s, s.first + in_unit, &b);
    if (is_whole) {
        whole = (float *)(void *)(stages + STAGES_BYTES) + threadIdx.x;
        open_whole<DIM, MT, THREADS>(a, s, s.first + in_unit, whole);
    }
    walk<DIM, MT, WARPS>(a, s, find_view(a, s), s.first + in_unit, stages, &b, whole);
    s = find_span(a, unit, (int32_t)blockIdx.y); /* not kept in registers during the walk */
    if (is_whole)
        write_whole<DIM, MT, THREADS>(a, s, s.first + in_unit, whole);
    else
        write_piece(a, find_slot(a, DIM, a.units[unit].slot + (int32_t)blockIdx.z, (int32_t)blockIdx.y), in_unit,
                    b);
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
    enum { BYTES = STAGES * 2 * CUDA_LEAF_TOKENS * DIM * 2 + WARPS * LANES * whole_floats<DIM, MT>() * 4 };
    dim3 grid((unsigned)a->n_units, (unsigned)a->n_kv, (unsigned)a->n_pieces);
    void (*kernel)(const struct cuda_attention) = attend_tiles<DIM, MT, WARPS>;

    return (int)PHX_LAUNCH(kernel, grid, WARPS * LANES, BYTES, stream, *a);
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
