/* SPDX-License-Identifier: Apache-2.0
 * Products of many pairs per expert: a block of the grid owns 128 output rows of one tile of 32 or 64 pairs.  A warp
 * has 32 of the rows and all pairs; weights come straight from memory, each by the one lane that needs it, a block
 * of 32 k ahead; activations pass through shared memory, some stages of 64 k ahead. */
#include "kernels/cuda/moe.cuh"

enum {
    WARPS = 4,
    THREADS = WARPS * PHX_WARP,
    ROW_TILES = 2,     /* of a warp */
    STAGES = 4,
    STAGE_BLOCKS = 2,
    STAGE_CHUNKS = STAGE_BLOCKS * 4 /* pieces of 16 bytes of a pair in a stage */
};

/* The sums of a lane: of one segment, and, in shared memory because they are seldom needed, of the slice so far. */
template <int PAIR_TILES> struct tile_sums {
    float  segment[ROW_TILES][PAIR_TILES][4];
    float *slice; /* the thread's first; find_sum() */
};

template <int PAIR_TILES> static __device__ __forceinline__ int find_sum(int m, int p, int c)
{
    return ((m * PAIR_TILES + p) * 4 + c) * THREADS;
}

/* Where piece c of a pair lies in its stage: odd pairs have their halves swapped, so that the eight lanes that read
 * 16 bytes at once find them in different banks. */
static __device__ __forceinline__ int find_piece(int pair, int c)
{
    return pair * STAGE_CHUNKS + (c ^ (pair % 2 * 4));
}

/* Stage i of the activations of all pairs; behind the last block, and of pairs that are not there (x NULL), zeros. */
template <int PAIR_TILES>
static __device__ __forceinline__ void load_stage(uint4 *stage, const uint4 *const *x, int32_t n_blocks, int32_t i)
{
    enum { PIECES = PAIR_TILES * 8 * STAGE_CHUNKS };

#pragma unroll
    for (int first = 0; first < PIECES; first += THREADS) {
        int          piece = first + (int)threadIdx.x, pair = piece / STAGE_CHUNKS, c = piece % STAGE_CHUNKS;
        const uint4 *from = x[pair];
        bool         is_there = from != NULL && i * STAGE_BLOCKS + c / 4 < n_blocks;

        phx_cp_async16_if(stage + find_piece(pair, c), is_there ? from + (i * STAGE_CHUNKS + c) : x[0], is_there);
    }
    phx_cp_async_commit();
}

template <class W, int PAIR_TILES>
static __device__ __forceinline__ void add_block(tile_sums<PAIR_TILES> &sums, const typename W::raw w[ROW_TILES],
                                                 const uint4 *stage, int half, int lane)
{
    uint32_t a[ROW_TILES][2][4];

#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
        W::decode(a[m], w[m]);
#pragma unroll
    for (int p = 0; p < PAIR_TILES; p++) {
        uint4    x = stage[find_piece(p * 8 + lane / 4, half * 4 + lane % 4)];
        uint32_t first[2] = {x.x, x.y}, second[2] = {x.z, x.w};

#pragma unroll
        for (int m = 0; m < ROW_TILES; m++) {
            phx_mma_bf16(sums.segment[m][p], a[m][0], first);
            phx_mma_bf16(sums.segment[m][p], a[m][1], second);
        }
    }
}

/* What a warp's rows are. */
struct tile_rows {
    int32_t first[ROW_TILES]; /* the row tile's first row */
    int     lane;
};

static __device__ inline float find_bias(const struct cuda_moe_product &a, int32_t expert, int32_t row)
{
    return a.bias != NULL ? a.bias[expert * a.bias_stride + row] : 0.0f;
}

template <int PAIR_TILES>
static __device__ void write_slice(const struct cuda_moe_product &a, const struct cuda_moe_tile &tile,
                                   const struct tile_rows &rows, int32_t slice, float *v)
{
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
        for (int c = 0; c < 4; c++) {
            int32_t row = rows.first[m] + c / 2 * 8 + rows.lane / 4;
            float   bias = row < a.w.n ? find_bias(a, tile.expert, row) : 0.0f;

            for (int p = 0; p < PAIR_TILES; p++) {
                int    pair = p * 8 + rows.lane % 4 * 2 + c % 2;
                float *sum = v + find_sum<PAIR_TILES>(m, p, c);

                if (row < a.w.n && pair < tile.n)
                    a.out[((int64_t)(tile.first + pair) * a.w.cut.n_slices + slice) * a.w.n + row] =
                        a.bias != NULL ? __fadd_rn(*sum, bias) : *sum;
                *sum = 0;
            }
        }
}

/* glu of the warp's 16 gate rows and 16 up rows.  Lanes of even and odd rows exchange, so that each has four
 * adjacent values of one pair. */
template <int PAIR_TILES>
static __device__ void write_act(const struct cuda_moe_product &a, const struct cuda_moe_tile &tile,
                                 const struct tile_rows &rows, const float *v)
{
    int     g = rows.lane / 4, is_odd = g % 2;
    int32_t f = rows.first[0] + g;
    bool    is_row = f < a.w.n / 2; /* so is f + 8 */
    float   gate_bias[2], up_bias[2];

#pragma unroll
    for (int i = 0; i < 2; i++) {
        gate_bias[i] = is_row ? find_bias(a, tile.expert, f + i * 8) : 0.0f;
        up_bias[i] = is_row ? find_bias(a, tile.expert, a.w.n / 2 + f + i * 8) : 0.0f;
    }
    for (int p = 0; p < PAIR_TILES; p++) {
        uint32_t value[2], other; /* [pair]: row f in the lower half, row f + 8 in the upper */
        int      pair = p * 8 + rows.lane % 4 * 2 + is_odd;

#pragma unroll
        for (int c = 0; c < 2; c++)
            value[c] = phx_bf16_pair(
                cuda_glu(__fadd_rn(v[find_sum<PAIR_TILES>(0, p, c)], gate_bias[0]),
                        __fadd_rn(v[find_sum<PAIR_TILES>(1, p, c)], up_bias[0]), a.kind, a.limit),
                cuda_glu(__fadd_rn(v[find_sum<PAIR_TILES>(0, p, 2 + c)], gate_bias[1]),
                        __fadd_rn(v[find_sum<PAIR_TILES>(1, p, 2 + c)], up_bias[1]), a.kind, a.limit));
        other = phx_shfl_xor(is_odd ? value[0] : value[1], 4);
        if (is_row && pair < tile.n) {
            uint32_t even = is_odd ? other : value[0], odd = is_odd ? value[1] : other;
            uint16_t *to = a.act + (tile.first + pair) * a.act_stride +
                           f / CUDA_BLOCK_K * CUDA_BLOCK_K +
                           moe_place_of_k((f - is_odd) % CUDA_BLOCK_K);

            *(uint2 *)to = make_uint2((even & 0xffffu) | odd << 16, even >> 16 | (odd & 0xffff0000u));
        }
    }
}

/* The segment that ends at `block` joins its slice; a slice that ends is written, unless glu takes it. */
template <int PAIR_TILES>
static __device__ __forceinline__ void end_segments(const struct cuda_moe_product &a, const struct cuda_moe_tile &tile,
                                                    const struct tile_rows &rows, int32_t block,
                                                    struct moe_segment &s, tile_sums<PAIR_TILES> &sums)
{
    while (s.slice < a.w.cut.n_slices && s.end == block) {
#pragma unroll
        for (int i = 0; i < ROW_TILES * PAIR_TILES * 4; i++) {
            int m = i / (PAIR_TILES * 4), p = i / 4 % PAIR_TILES, c = i % 4;

            sums.slice[find_sum<PAIR_TILES>(m, p, c)] += sums.segment[m][p][c];
            sums.segment[m][p][c] = 0;
        }
        if (s.ends_slice && a.act == NULL)
            write_slice<PAIR_TILES>(a, tile, rows, s.slice, sums.slice);
        s = moe_next_segment(a.w.cut, s);
    }
}

template <class W, int PAIR_TILES>
static __global__ void __launch_bounds__(THREADS, PAIR_TILES == 8 ? 2 : 3)
    multiply_tiles(const __grid_constant__ struct cuda_moe_product a)
{
    phx_begin();
    enum { STAGE_PIECES = PAIR_TILES * 8 * STAGE_CHUNKS };
    PHX_SHARED(uint4, stages);
    __shared__ const uint4 *x[PAIR_TILES * 8]; /* rows; a tile has a first pair */
    int                   warp = (int)threadIdx.x / PHX_WARP, lane = (int)threadIdx.x % PHX_WARP;
    struct cuda_moe_tile  tile;
    struct tile_rows      rows;
    const unsigned char  *w[ROW_TILES];
    typename W::raw       now[ROW_TILES], next[ROW_TILES];
    tile_sums<PAIR_TILES> sums = {};
    struct moe_segment    segment = moe_first_segment(a.w.cut);
    int32_t               n_stages = (a.w.cut.n_blocks + STAGE_BLOCKS - 1) / STAGE_BLOCKS;

    sums.slice = (float *)(stages + STAGES * STAGE_PIECES) + threadIdx.x;
    for (int i = 0; i < ROW_TILES * PAIR_TILES * 4; i++)
        sums.slice[i * THREADS] = 0;

    if ((int32_t)blockIdx.y >= *a.n_tiles)
        return;
    tile = a.tiles[blockIdx.y];
    for (int pair = (int)threadIdx.x; pair < PAIR_TILES * 8; pair += THREADS) {
        int32_t row = pair >= tile.n ? 0 : a.row != NULL ? a.row[tile.first + pair] : tile.first + pair;

        x[pair] = pair < tile.n ? (const uint4 *)((const uint16_t *)a.x + row * a.x_stride) : NULL;
    }
    __syncthreads();
    rows.lane = lane;
    for (int m = 0; m < ROW_TILES; m++) {
        int32_t unit = (int32_t)blockIdx.x * WARPS + warp;

        rows.first[m] = a.act != NULL ? unit * 16 + m * (a.w.n / 2) : (unit * ROW_TILES + m) * 16;
        w[m] = a.w.data + (size_t)tile.expert * a.w.expert_bytes +
               (size_t)(rows.first[m] < a.w.n ? rows.first[m] / 16 : 0) * a.w.tile_bytes;
        if (a.w.cut.n_blocks > 0)
            W::load(next[m], w[m], 0, lane);
    }
    for (int i = 0; i < STAGES - 1; i++)
        load_stage<PAIR_TILES>(stages + i * STAGE_PIECES, x, a.w.cut.n_blocks, i);
    end_segments<PAIR_TILES>(a, tile, rows, 0, segment, sums);
    for (int32_t i = 0; i < n_stages; i++) {
        phx_cp_async_wait<STAGES - 2>();
        __syncthreads(); /* stage i is there, and all are done with the one before */
        load_stage<PAIR_TILES>(stages + (i + STAGES - 1) % STAGES * STAGE_PIECES, x, a.w.cut.n_blocks, i + STAGES - 1);
#pragma unroll
        for (int half = 0; half < STAGE_BLOCKS; half++) {
            int32_t block = i * STAGE_BLOCKS + half;

            if (block >= a.w.cut.n_blocks)
                break;
#pragma unroll
            for (int m = 0; m < ROW_TILES; m++) {
                now[m] = next[m];
                if (block + 1 < a.w.cut.n_blocks)
                    W::load(next[m], w[m], block + 1, lane);
            }
            add_block<W, PAIR_TILES>(sums, now, stages + i % STAGES * STAGE_PIECES, half, lane);
            end_segments<PAIR_TILES>(a, tile, rows, block + 1, segment, sums);
        }
    }
    phx_cp_async_wait<0>();
    if (a.act != NULL)
        write_act<PAIR_TILES>(a, tile, rows, sums.slice);
}

template <class W> static int launch(cudaStream_t stream, const struct cuda_moe_product *a)
{
    int32_t units = a->act != NULL ? (a->w.n / 2 + 15) / 16 : (a->w.n + ROW_TILES * 16 - 1) / (ROW_TILES * 16);
    dim3    grid((unsigned)((units + WARPS - 1) / WARPS), (unsigned)a->tiles_max);
    size_t  pairs = (size_t)a->tile_pairs;
    size_t  shared_bytes = (size_t)STAGES * STAGE_CHUNKS * 16 * pairs + WARPS * ROW_TILES * 16 * pairs * sizeof(float);

    if (a->tile_pairs == 32)
        return PHX_LAUNCH((multiply_tiles<W, 4>), grid, THREADS, shared_bytes, stream, *a);
    return PHX_LAUNCH((multiply_tiles<W, 8>), grid, THREADS, shared_bytes, stream, *a);
}

int phx_cuda_moe_tile(cudaStream_t stream, const struct cuda_moe_product *a)
{
    if (a->w.dtype == PHX_DTYPE_MXFP4)
        return launch<cuda_mxfp4>(stream, a);
    return launch<cuda_bf16>(stream, a);
}
