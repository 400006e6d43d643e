/* SPDX-License-Identifier: Apache-2.0
 * What follows a product of few rows, by the blocks that have its outputs.  A thread has at most one thing to do in the end and
 * reads what it needs for that before the weights, which take longer. */
#include "kernels/cuda/ending.cuh"
#include "kernels/cuda/glu.cuh"
#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/matmul_ends.h"
#include "kernels/cuda/matmul_stream.cuh"

enum { ROWS = CUDA_X_ROWS, PAIRS = CUDA_TILE_ROWS, PAIR_OUTPUTS = 2 * PAIRS };

static __device__ __forceinline__ float find_bias(const float *bias, int32_t output)
{
    return bias != NULL ? bias[output] : 0.0f;
}

/* An output of a block, with its bias. */
static __device__ __forceinline__ float finish(const struct cuda_product &a, const float *state, int i, float bias)
{
    return a.bias != NULL ? __fadd_rn(state[i], bias) : state[i];
}

/* ---- rotation and cache ------------------------------------------------------------------------ */

/* A thread's pair: outputs `output` and `output` + half of a row; i, i + gap in the block. */
struct rotation {
    int32_t row, output, i, gap, seq; /* seq: -2 of no pair */
    float   cos, sin, bias[2];
    int64_t place; /* in the cache, of keys */
};

/* Heads of less than 32 numbers lie side by side in the block; of others it has 16 of each half. */
static __device__ __forceinline__ struct corner find_heads(int32_t dim)
{
    int32_t block = (int32_t)blockIdx.x, of_half = dim / PAIR_OUTPUTS;

    if (dim < PAIR_OUTPUTS)
        return {block * PAIR_OUTPUTS, 0, CUDA_TILE_ROWS};
    return {block / of_half * dim + block % of_half * CUDA_TILE_ROWS, 0, dim / 2};
}

static __device__ __forceinline__ struct rotation load_rotation(const struct cuda_product &a, const struct cuda_rope_write &c,
                                                                const struct corner &at)
{
    int32_t         dim = c.write.kv.head_dim, half = dim / 2, gap = min(dim, (int32_t)PAIR_OUTPUTS) / 2;
    int32_t         pair = (int32_t)threadIdx.x % PAIRS, column = pair / gap * 2 * gap + pair % gap, head;
    struct rotation r = {(int32_t)threadIdx.x / PAIRS, output_of(at, column), 0, gap, -2, 0, 0, {0, 0}, 0};

    r.i = r.row * PAIR_OUTPUTS + column;
    if (r.row >= a.n_rows || r.output >= a.w.n)
        return r;
    r.seq = r.row < c.write.spans.n_rows_total ? c.write.spans.seq_of_row[r.row] : -1;
    r.bias[0] = find_bias(a.bias, r.output);
    r.bias[1] = find_bias(a.bias, r.output + half);
    if (r.seq < 0)
        return r;
    head = r.output / dim;
    if (head < c.n_heads + c.write.kv.kv_heads) {
        int64_t pos = c.write.spans.pos_of_row[r.row];

        r.cos = c.cos[pos * c.cos_stride + r.output % dim];
        r.sin = c.sin[pos * c.sin_stride + r.output % dim];
    }
    if (head >= c.n_heads)
        r.place = kv_place(c.write, r.row, r.seq, r.output - c.n_heads * dim - (head < c.n_heads + c.write.kv.kv_heads
                                                                                    ? 0 : c.write.kv.kv_heads * dim));
    return r;
}

static __device__ __forceinline__ void store_rotation(const struct cuda_product &a, const struct cuda_rope_write &c,
                                                      const struct rotation &r, const float *state)
{
    int32_t half = c.write.kv.head_dim / 2, head = r.output / c.write.kv.head_dim;
    float   first, second, *x = c.x + r.row * c.x_stride + r.output;
    bool    is_query = head < c.n_heads, is_value = head >= c.n_heads + c.write.kv.kv_heads;

    if (r.seq < -1)
        return;
    first = finish(a, state, r.i, r.bias[0]);
    second = finish(a, state, r.i + r.gap, r.bias[1]);
    if (!is_value && r.seq >= 0) {
        float turned = fmaf(-second, r.sin, first * r.cos);

        second = fmaf(first, r.sin, second * r.cos);
        first = turned;
    }
    if (is_query) {
        x[0] = first;
        x[half] = second;
    } else if (r.seq >= 0) {
        int64_t place = r.place + (is_value ? c.write.kv.v_offset : 0);

        kv_put(c.write.kv, place, first);
        kv_put(c.write.kv, place + half, second);
    }
}

template <class W>
static __global__ void __launch_bounds__(CUDA_END_THREADS, 2)
    rotate_product(const __grid_constant__ struct cuda_product a, const __grid_constant__ struct cuda_rope_write rope)
{
    PHX_SHARED(float, part);
    float          *state = part + count_parts<2, 1>(END_WARPS);
    struct corner   at = find_heads(rope.write.kv.head_dim);
    struct rotation r;

    ask_ahead<2>(a, at);
    phx_begin();
    r = load_rotation(a, rope, at);
    stream_outputs<W, plain_rows, 2, 1>(a, at, part, state);
    store_rotation(a, rope, r, state);
}

/* ---- gated units ------------------------------------------------------------------------------- */

template <class W>
static __global__ void __launch_bounds__(CUDA_END_THREADS, 2)
    gate_product(const __grid_constant__ struct cuda_product a, const __grid_constant__ struct cuda_glu_end glu)
{
    PHX_SHARED(float, part);
    float        *state = part + count_parts<2, 1>(END_WARPS);
    int32_t       half = a.w.n / 2, row = (int32_t)threadIdx.x / PAIRS, pair = (int32_t)threadIdx.x % PAIRS;
    struct corner at = {(int32_t)blockIdx.x * CUDA_TILE_ROWS, 0, half};
    int32_t       output = at.output + pair, i = row * PAIR_OUTPUTS + pair;
    float         bias[2];

    ask_ahead<2>(a, at);
    phx_begin();
    bias[0] = find_bias(a.bias, output);
    bias[1] = find_bias(a.bias, half + output);
    stream_outputs<W, plain_rows, 2, 1>(a, at, part, state);
    if (row < a.n_rows)
        glu.out[row * glu.out_stride + output] =
            cuda_glu(finish(a, state, i, bias[0]), finish(a, state, i + PAIRS, bias[1]), glu.kind, glu.limit);
}

/* ---- sum and norm ------------------------------------------------------------------------------ */

template <class W, int ROW_TILES>
static __global__ void __launch_bounds__(CUDA_END_THREADS, 2)
    end_product(const __grid_constant__ struct cuda_product a, const __grid_constant__ struct cuda_ending end)
{
    PHX_SHARED(float, part);
    enum { OUTPUTS = ROW_TILES * CUDA_TILE_ROWS };
    float        *state = part + count_parts<ROW_TILES, 1>(END_WARPS);
    struct corner at = {(int32_t)blockIdx.x * OUTPUTS, 0, CUDA_TILE_ROWS};
    int32_t       row = (int32_t)threadIdx.x / OUTPUTS, output = at.output + (int32_t)threadIdx.x % OUTPUTS;
    bool          is_mine = row < min(a.n_rows, (int32_t)ROWS) && output < a.w.n;
    float        *x = end.call.x + row * end.call.x_stride + output;
    float         before, bias;

    ask_ahead<ROW_TILES>(a, at);
    if (threadIdx.x == 0 && blockIdx.x == 0 && end.call.norm != NULL)
        phx_prefetch(end.call.gain, (uint32_t)end.call.n * (uint32_t)sizeof(float)); /* for the last block */
    phx_begin();
    before = is_mine ? *x : 0.0f;
    bias = is_mine ? find_bias(end.call.bias, output) : 0.0f;
    stream_outputs<W, plain_rows, ROW_TILES, 1>(a, at, part, state);
    if (is_mine) {
        float v = state[threadIdx.x];

        *x = __fadd_rn(before, end.call.bias != NULL ? __fadd_rn(v, bias) : v);
    }
    end_rows<4>(end.call, end.counters, gridDim.x);
}

/* ---- on the host ------------------------------------------------------------------------------- */

int phx_cuda_matmul_rotate(cudaStream_t stream, const struct cuda_product *a, const struct cuda_rope_write *rope)
{
    return PHX_LAUNCH(rotate_product<cuda_bf16>, count_pieces(a->w.n, PAIR_OUTPUTS), CUDA_END_THREADS,
                      (count_shared_bytes<2, 1>(a, END_WARPS)), stream, *a, *rope);
}

int phx_cuda_matmul_gate(cudaStream_t stream, const struct cuda_product *a, const struct cuda_glu_end *glu)
{
    return PHX_LAUNCH(gate_product<cuda_bf16>, count_pieces(a->w.n / 2, PAIRS), CUDA_END_THREADS,
                      (count_shared_bytes<2, 1>(a, END_WARPS)), stream, *a, *glu);
}

int phx_cuda_matmul_end(cudaStream_t stream, const struct cuda_product *a, const struct cuda_ending *end, int row_tiles)
{
    if (row_tiles == 2)
        return PHX_LAUNCH((end_product<cuda_bf16, 2>), count_pieces(a->w.n, 32), CUDA_END_THREADS,
                          (count_shared_bytes<2, 1>(a, END_WARPS)), stream, *a, *end);
    return PHX_LAUNCH((end_product<cuda_bf16, 1>), count_pieces(a->w.n, 16), CUDA_END_THREADS,
                      (count_shared_bytes<1, 1>(a, END_WARPS)), stream, *a, *end);
}
