/* SPDX-License-Identifier: Apache-2.0
 * The down product of few rows, and all that follows it in a layer. */
#include "kernels/cuda/ending.cuh"
#include "kernels/cuda/moe_stream.cuh"

static_assert((int)WARPS_MAX * PHX_WARP == (int)CUDA_END_THREADS, "a block that can norm");
static_assert((int)ROWS * CUDA_END_ROWS_MAX <= (int)CUDA_END_THREADS, "a thread has one output");

/* What the row gets of it: biases of its experts, and the sum. */
static __device__ __forceinline__ void end_output(const struct cuda_add_norm_call &c, int32_t row, int32_t i, float v)
{
    const int32_t *ids = c.ids + row * c.ids_stride;
    const float   *gates = c.gates + row * c.gates_stride;
    float         *x = c.x + row * c.x_stride + i;

    for (int32_t from = 0; from < c.top_k; from += MOE_AT_ONCE) {
        float bias[MOE_AT_ONCE];

#pragma unroll
        for (int j = 0; j < MOE_AT_ONCE; j++)
            bias[j] = from + j < c.top_k ? c.expert_bias[ids[from + j] * c.expert_stride + i] : 0.0f;
#pragma unroll
        for (int j = 0; j < MOE_AT_ONCE; j++)
            if (from + j < c.top_k)
                v = __fmaf_rn(gates[from + j], bias[j], v);
    }
    if (c.bias != NULL)
        v = __fadd_rn(v, c.bias[i]);
    *x = __fadd_rn(*x, v);
}

/* Brings what the last block will want nearer. */
static __device__ __forceinline__ void ask_for_end(const struct cuda_add_norm_call &c, int32_t expert)
{
    int32_t i = (int32_t)blockIdx.x * ROWS;

    if (threadIdx.x > 0 || c.x == NULL || i >= c.n)
        return;
    if (c.expert_bias != NULL)
        phx_prefetch_line(c.expert_bias + expert * c.expert_stride + i);
    if (c.norm != NULL)
        phx_prefetch_line(c.gain + i);
}

template <class W, int PAIR_TILES>
static __global__ void __launch_bounds__(WARPS_MAX *PHX_WARP, PAIR_TILES == 1 ? (int)stream_plan<W>::RESIDENT : 2)
    finish_tiles(const __grid_constant__ struct cuda_moe_product a, const __grid_constant__ struct cuda_moe_finish f)
{
    phx_begin();
    __shared__ struct stream_shared<PAIR_TILES> shared;
    int32_t i = (int32_t)blockIdx.x * ROWS + (int32_t)threadIdx.x % ROWS, row = (int32_t)threadIdx.x / ROWS;

    if ((int32_t)blockIdx.y >= *a.n_tiles)
        return;
    ask_for_end(f.end.call, a.tiles[blockIdx.y].expert);
    stream_tile<W, PAIR_TILES>(a, shared);
    if (!is_last_block(f.end.counters + 1 + blockIdx.x, (uint32_t)*a.n_tiles)) /* of those that have these outputs */
        return;
    if (row < f.join.n_rows && i < f.join.n) {
        float v = moe_join_output<true>(f.join, row, i);

        if (f.end.call.x != NULL)
            end_output(f.end.call, row, i, v);
        else
            f.join.out[row * f.join.out_stride + i] = v;
    }
    end_rows<2>(f.end.call, f.end.counters, gridDim.x);
}

template <class W> static int launch(cudaStream_t stream, const struct cuda_moe_product *a, const struct cuda_moe_finish *f)
{
    dim3 grid((unsigned)((a->w.n + ROWS - 1) / ROWS), (unsigned)a->tiles_max);

    if (a->tile_pairs == 8)
        return PHX_LAUNCH((finish_tiles<W, 1>), grid, CUDA_END_THREADS, 0, stream, *a, *f);
    return PHX_LAUNCH((finish_tiles<W, 2>), grid, CUDA_END_THREADS, 0, stream, *a, *f);
}

int phx_cuda_moe_finish(cudaStream_t stream, const struct cuda_moe_product *a, const struct cuda_moe_finish *f)
{
    return a->w.dtype == PHX_DTYPE_MXFP4 ? launch<cuda_mxfp4>(stream, a, f) : launch<cuda_bf16>(stream, a, f);
}
