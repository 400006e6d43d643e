/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what the kernels of the products share: the order of segments and slices, and joining. */
#ifndef PHX_KERNELS_CUDA_MATMUL_CUH
#define PHX_KERNELS_CUDA_MATMUL_CUH

#include "kernels/cuda/matmul.h"
#include "kernels/cuda/weight.cuh"

enum { SLICE_LEVELS = 3 /* sums of slices that wait for their neighbours: log2(PHX_SLICES_MAX) */ };

/* Blocks of a segment. */
template <class W> struct segment_of {
    enum { BLOCKS = CUDA_SEGMENT_BLOCKS, IS_I8 = 0 };
};
template <> struct segment_of<cuda_i8> {
    enum { BLOCKS = CUDA_GROUP_BLOCKS, IS_I8 = 1 };
};

/* Blocks first .. end - 1.  An empty slice is one empty segment. */
struct segment {
    int32_t slice, first, end;
    int32_t group; /* segments with blocks before this one: of I8 the group */
    bool    starts_slice, ends_slice;
};

static __device__ __forceinline__ struct segment first_segment(const struct cuda_cut &cut, int blocks)
{
    int32_t end = min(cut.block_end[0], (int32_t)blocks);

    return {0, 0, end, 0, true, end == cut.block_end[0]};
}

/* The one behind; its slice is n_slices when there is none. */
static __device__ __forceinline__ struct segment next_segment(const struct cuda_cut &cut, int blocks, struct segment s)
{
    s.group += s.end > s.first ? 1 : 0;
    s.slice += s.ends_slice ? 1 : 0;
    s.starts_slice = s.ends_slice;
    s.first = s.end;
    if (s.slice < cut.n_slices) {
        s.end = min(cut.block_end[s.slice], s.first + blocks);
        s.ends_slice = s.end == cut.block_end[s.slice];
    }
    return s;
}

/* The tree of adjacent pairs, slice by slice: before slice s, as many sums wait as s has bits; `merge_count` of them
 * join the slice, the latest first, and but for the last slice what comes out waits in turn. */
static __device__ __forceinline__ int waiting_count(int32_t slice)
{
    return __popc((unsigned)slice);
}

static __device__ __forceinline__ int merge_count(int32_t slice, int32_t n_slices)
{
    return slice + 1 == n_slices ? waiting_count(slice) : __ffs(slice + 1) - 1;
}

/* ---- joining in shared memory: kernels whose warps share out the segments -------------------- */

/* Sums of a segment that a warp leaves: [x row][OUTPUTS and some, so that no two lanes of a store share a bank]. */
template <int OUTPUTS> struct part_of {
    enum { STRIDE = OUTPUTS + 4 };
};

/* What a block of the grid is about: a tile of 16 outputs from `output` on, others `step` outputs apart behind it, rows from
 * `row` on. */
struct corner {
    int32_t output, row, step;
};

/* Output i of the block's. */
static __device__ __forceinline__ int32_t output_of(const struct corner &at, int i)
{
    return at.output + i / CUDA_TILE_ROWS * at.step + i % CUDA_TILE_ROWS;
}

/* Before the block's turn: the weights of its row tiles, and their biases. */
template <int ROW_TILES> static __device__ __forceinline__ void ask_ahead(const struct cuda_product &a, const struct corner &at)
{
    if (threadIdx.x > 0 || blockIdx.y > 0)
        return;
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
        if ((int32_t)blockIdx.x * ROW_TILES + m < a.ahead.n_tiles) {
            int32_t output = output_of(at, m * CUDA_TILE_ROWS);

            phx_prefetch(a.w.data + (size_t)(output / CUDA_TILE_ROWS) * a.w.tile_bytes, a.ahead.bytes);
            if (a.bias != NULL)
                phx_prefetch_line(a.bias + output);
        }
}

static __device__ __forceinline__ int state_floats(int n_outputs, int32_t n_slices)
{
    return n_outputs * (n_slices > 1 ? 1 + SLICE_LEVELS : 1);
}

/* w scale * x scale of an output's group. */
static __device__ __forceinline__ float i8_factor(const struct cuda_product &a, int32_t output, int32_t row, int32_t group)
{
    const unsigned char *tile = a.w.data + (size_t)(output / CUDA_TILE_ROWS) * a.w.tile_bytes;
    int32_t              rows = (a.n_rows + CUDA_X_ROWS - 1) / CUDA_X_ROWS * CUDA_X_ROWS;

    return __fmul_rn(cuda_i8_scales(tile, a.w.cut)[group * CUDA_TILE_ROWS + output % CUDA_TILE_ROWS],
                     a.x_scale[(int64_t)group * rows + row]);
}

/* A segment's sum joins its slice's. */
template <bool IS_I8>
static __device__ __forceinline__ float add_segment(const struct cuda_product &a, const struct segment &s, float sum,
                                                    float part, int32_t output, int32_t row)
{
    if (!IS_I8)
        return s.starts_slice ? part : __fadd_rn(sum, part);
    sum = s.starts_slice ? 0.0f : sum;
    return s.end > s.first ? __fmaf_rn(part, i8_factor(a, output, row, s.group), sum) : sum;
}

/* The segments of a round, one per warp from s on, join the outputs in order; the last writes them, if there is an out.  state:
 * see state_floats(): the slice's sum, in the end the output without its bias; then those that wait. */
template <bool IS_I8, int BLOCKS, int OUTPUTS, int ROWS>
static __device__ void join_round(const struct cuda_product &a, const struct corner &at, const struct segment &round,
                                  const float *part, float *state)
{
    enum { N = OUTPUTS * ROWS, STRIDE = part_of<OUTPUTS>::STRIDE };
    int n_warps = (int)blockDim.x / PHX_WARP;

    for (int i = (int)threadIdx.x; i < N; i += (int)blockDim.x) {
        int32_t        output = output_of(at, i % OUTPUTS), row = at.row + i / OUTPUTS;
        float          sum = state[i];
        struct segment s = round;

        if (output >= a.w.n || row >= a.n_rows)
            continue;
        for (int w = 0; w < n_warps && s.slice < a.w.cut.n_slices; w++) {
            sum = add_segment<IS_I8>(a, s, sum, part[(w * ROWS + i / OUTPUTS) * STRIDE + i % OUTPUTS], output, row);
            if (s.ends_slice) {
                int waiting = waiting_count(s.slice);

                for (int m = merge_count(s.slice, a.w.cut.n_slices); m > 0; m--)
                    sum = __fadd_rn(state[waiting-- * N + i], sum);
                if (s.slice + 1 < a.w.cut.n_slices)
                    state[(1 + waiting) * N + i] = sum;
                else if (a.out != NULL)
                    a.out[row * a.out_stride + output] = a.bias != NULL ? __fadd_rn(sum, a.bias[output]) : sum;
            }
            s = next_segment(a.w.cut, BLOCKS, s);
        }
        state[i] = sum;
    }
}

/* This warp's segment of a round, empty when there is none; *next is the round behind. */
template <int BLOCKS>
static __device__ __forceinline__ struct segment share_segment(const struct cuda_cut &cut, const struct segment &round,
                                                               struct segment *next)
{
    int            n_warps = (int)blockDim.x / PHX_WARP, warp = (int)threadIdx.x / PHX_WARP;
    struct segment mine = {0, 0, 0, 0, false, false};

    *next = round;
    for (int w = 0; w < n_warps && next->slice < cut.n_slices; w++) {
        if (w == warp)
            mine = *next;
        *next = next_segment(cut, BLOCKS, *next);
    }
    return mine;
}

/* ---- on the host ----------------------------------------------------------------------------- */

/* How many warps a block of the grid needs for the segments of a product. */
static inline int count_warps(const struct cuda_cut &cut, int blocks, int warps_max)
{
    int64_t n = 0;
    int32_t begin = 0;

    for (int32_t s = 0; s < cut.n_slices; begin = cut.block_end[s++])
        n += cut.block_end[s] > begin ? (cut.block_end[s] - begin + blocks - 1) / blocks : 1;
    return n < warps_max ? (int)n : warps_max;
}

static inline unsigned count_pieces(int32_t n, int each)
{
    return (unsigned)((n + each - 1) / each);
}

#endif
