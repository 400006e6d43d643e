/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: products of few pairs per expert, where reading the weights is what one waits for: a block of the grid owns
 * 32 output rows of one tile of pairs.  Its warps take the segments in turn, 64 k ahead of the sums, and every weight
 * goes straight from memory into the registers of the one lane that needs it.  The segments' sums meet in shared
 * memory, in order. */
#ifndef PHX_KERNELS_CUDA_MOE_STREAM_CUH
#define PHX_KERNELS_CUDA_MOE_STREAM_CUH

#include "kernels/cuda/moe.cuh"

enum {
    WARPS_MAX = 8,
    ROW_TILES = 2,
    ROWS = ROW_TILES * 16,
    PAIR_STRIDE = 36    /* floats from a pair's 32 sums to the next: no two lanes of a store share a bank */
};

/* What a block shares: the warps' parts, and sums of all segments. */
template <int PAIR_TILES> struct stream_shared {
    enum { PART_FLOATS = PAIR_TILES * 8 * PAIR_STRIDE };
    float part[WARPS_MAX * PART_FLOATS], sum[PAIR_TILES * 8 * ROWS];
};

/* Blocks of k that a warp has in flight behind those being summed, and blocks of the grid on a processor: as many as
 * the registers bear. */
template <class W> struct stream_plan {
    enum { AHEAD = 1, RESIDENT = 2 };
};
template <> struct stream_plan<cuda_mxfp4> {
    enum { AHEAD = 2, RESIDENT = 3 };
};

/* What a warp reads for some blocks. */
template <class W, int PAIR_TILES> struct stream_chunk {
    typename W::raw w[stream_plan<W>::AHEAD][ROW_TILES];
    uint4           x[stream_plan<W>::AHEAD][PAIR_TILES];
};

/* Where a warp reads. */
template <int PAIR_TILES> struct stream_source {
    const unsigned char *w[ROW_TILES];
    const uint4         *x[PAIR_TILES]; /* the lane's first, NULL of a pair that is not there */
    int                  lane;
};

template <class W, int PAIR_TILES>
static __device__ __forceinline__ void load_chunk(stream_chunk<W, PAIR_TILES> &c,
                                                  const stream_source<PAIR_TILES> &from,
                                                  const struct moe_segment &s, int32_t block)
{
#pragma unroll
    for (int i = 0; i < stream_plan<W>::AHEAD; i++)
        if (block + i < s.end) {
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++)
                W::load(c.w[i][m], from.w[m], block + i, from.lane);
#pragma unroll
            for (int p = 0; p < PAIR_TILES; p++)
                c.x[i][p] = from.x[p] != NULL ? __ldca(from.x[p] + (block + i) * 4) : make_uint4(0, 0, 0, 0);
        }
}

template <class W, int PAIR_TILES>
static __device__ __forceinline__ void add_chunk(float acc[ROW_TILES][PAIR_TILES][4],
                                                 const stream_chunk<W, PAIR_TILES> &c,
                                                 const struct moe_segment &s, int32_t block)
{
#pragma unroll
    for (int i = 0; i < stream_plan<W>::AHEAD; i++)
        if (block + i < s.end) {
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++) {
                uint32_t a[2][4];

                W::decode(a, c.w[i][m]);
#pragma unroll
                for (int p = 0; p < PAIR_TILES; p++) {
                    uint32_t first[2] = {c.x[i][p].x, c.x[i][p].y}, second[2] = {c.x[i][p].z, c.x[i][p].w};

                    phx_mma_bf16(acc[m][p], a[0], first);
                    phx_mma_bf16(acc[m][p], a[1], second);
                }
            }
        }
}

/* One segment: the sums of 32 rows x all pairs, into part[pair][row]. */
template <class W, int PAIR_TILES>
static __device__ void sum_segment(float *part, const stream_source<PAIR_TILES> &from, const struct moe_segment &s)
{
    float                       acc[ROW_TILES][PAIR_TILES][4] = {};
    stream_chunk<W, PAIR_TILES> now, next;
    int                         g = from.lane / 4, t = from.lane % 4;

    load_chunk(next, from, s, s.first);
    for (int32_t block = s.first; block < s.end; block += stream_plan<W>::AHEAD) {
        now = next;
        load_chunk(next, from, s, block + stream_plan<W>::AHEAD);
        add_chunk(acc, now, s, block);
    }
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int p = 0; p < PAIR_TILES; p++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                part[(p * 8 + 2 * t + c % 2) * PAIR_STRIDE + m * 16 + c / 2 * 8 + g] = acc[m][p][c];
}

/* The row of an expert that row r of the block's 32 is. */
static __device__ inline int32_t find_row(const struct cuda_moe_product &a, int r)
{
    if (a.act != NULL)
        return (int32_t)blockIdx.x * 16 + r % 16 + (r < 16 ? 0 : a.w.n / 2);
    return (int32_t)blockIdx.x * ROWS + r;
}

static __device__ inline float find_bias(const struct cuda_moe_product &a, int32_t expert, int32_t row)
{
    return a.bias != NULL ? a.bias[expert * a.bias_stride + row] : 0.0f;
}

/* glu of the finished sums [pair][32]. */
static __device__ void write_act(const struct cuda_moe_product &a, const struct cuda_moe_tile &tile, const float *sum)
{
    for (int i = (int)threadIdx.x; i < tile.n * 16; i += (int)blockDim.x) {
        int     pair = i / 16, r = i % 16;
        int32_t f = (int32_t)blockIdx.x * 16 + r;
        float   gate = __fadd_rn(sum[pair * ROWS + r], find_bias(a, tile.expert, f));
        float   up = __fadd_rn(sum[pair * ROWS + 16 + r], find_bias(a, tile.expert, a.w.n / 2 + f));

        a.act[(tile.first + pair) * a.act_stride + f / CUDA_BLOCK_K * CUDA_BLOCK_K +
              moe_place_of_k(f % CUDA_BLOCK_K)] = phx_bf16_bits(cuda_glu(gate, up, a.kind, a.limit));
    }
}

/* Adds the segments of a round in order; a slice that ends is written, unless glu takes it. */
static __device__ void add_round(const struct cuda_moe_product &a, const struct cuda_moe_tile &tile,
                                 struct moe_segment s, const float *part, int part_floats, float *sum)
{
    int n_warps = (int)blockDim.x / PHX_WARP;

    for (int w = 0; w < n_warps && s.slice < a.w.cut.n_slices; w++, s = moe_next_segment(a.w.cut, s))
        for (int i = (int)threadIdx.x; i < tile.n * ROWS; i += (int)blockDim.x) {
            int     pair = i / ROWS, r = i % ROWS;
            int32_t row = find_row(a, r);

            sum[i] += part[w * part_floats + pair * PAIR_STRIDE + r];
            if (!s.ends_slice || a.act != NULL)
                continue;
            if (row < a.w.n)
                a.out[((int64_t)(tile.first + pair) * a.w.cut.n_slices + s.slice) * a.w.n + row] =
                    a.bias != NULL ? __fadd_rn(sum[i], find_bias(a, tile.expert, row)) : sum[i];
            sum[i] = 0;
        }
}

/* Of a block whose tile there is. */
template <class W, int PAIR_TILES>
static __device__ __forceinline__ void stream_tile(const struct cuda_moe_product &a, struct stream_shared<PAIR_TILES> &shared)
{
    enum { PART_FLOATS = stream_shared<PAIR_TILES>::PART_FLOATS };
    float                    *part = shared.part, *sum = shared.sum;
    int                       warp = (int)threadIdx.x / PHX_WARP, lane = (int)threadIdx.x % PHX_WARP;
    int                       n_warps = (int)blockDim.x / PHX_WARP;
    struct cuda_moe_tile      tile;
    stream_source<PAIR_TILES> from;
    struct moe_segment        round = moe_first_segment(a.w.cut);

    tile = a.tiles[blockIdx.y];
    from.lane = lane;
    for (int m = 0; m < ROW_TILES; m++) {
        int32_t row_tile = find_row(a, m * 16) / 16;

        from.w[m] = a.w.data + (size_t)tile.expert * a.w.expert_bytes +
                    (size_t)(row_tile * 16 < a.w.n ? row_tile : 0) * a.w.tile_bytes;
    }
    for (int p = 0; p < PAIR_TILES; p++) {
        int     pair = p * 8 + lane / 4;
        int32_t row = pair >= tile.n ? 0 : a.row != NULL ? a.row[tile.first + pair] : tile.first + pair;

        from.x[p] = pair < tile.n ? (const uint4 *)((const uint16_t *)a.x + row * a.x_stride) + lane % 4 : NULL;
    }
    for (int i = (int)threadIdx.x; i < PAIR_TILES * 8 * ROWS; i += (int)blockDim.x)
        sum[i] = 0;
    while (round.slice < a.w.cut.n_slices) {
        struct moe_segment mine = {a.w.cut.n_slices, 0, 0, true}, next = round;

        for (int w = 0; w < n_warps && next.slice < a.w.cut.n_slices; w++) {
            mine = w == warp ? next : mine;
            next = moe_next_segment(a.w.cut, next);
        }
        sum_segment<W>(part + warp * PART_FLOATS, from, mine);
        __syncthreads();
        add_round(a, tile, round, part, PART_FLOATS, sum);
        __syncthreads();
        round = next;
    }
    if (a.act != NULL)
        write_act(a, tile, sum);
}

#endif
