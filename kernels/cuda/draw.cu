/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/draw.h"
#include "kernels/draw.h"

enum { THREADS = 256, WARPS = THREADS / PHX_WARP };

static_assert(PHX_DRAW_COLUMNS_MAX / PHX_DRAW_BLOCK <= PHX_DRAW_BLOCK, "the sums of all blocks share the weights' memory");

/* Of the block of threads; shared: WARPS floats. */
static __device__ __forceinline__ float block_max(float v, float *shared)
{
    int lane = (int)threadIdx.x % PHX_WARP, warp = (int)threadIdx.x / PHX_WARP;

    v = phx_warp_max(v);
    if (lane == 0)
        shared[warp] = v;
    __syncthreads();
    return phx_warp_max(shared[lane % WARPS]);
}

static __device__ __forceinline__ int32_t block_size(const struct cuda_draw_call &c, int32_t first)
{
    return c.n - first < PHX_DRAW_BLOCK ? c.n - first : PHX_DRAW_BLOCK;
}

static __global__ void __launch_bounds__(THREADS) largest_kernel(const struct cuda_draw_call c)
{
    phx_begin();
    __shared__ float shared[WARPS];
    int32_t          draw = (int32_t)blockIdx.y, first = (int32_t)blockIdx.x * PHX_DRAW_BLOCK, n = block_size(c, first);
    const float     *logits = c.logits + c.draws[draw].row * c.logits_stride + first;
    float            m = -INFINITY;

    for (int32_t i = (int32_t)threadIdx.x; i < n; i += THREADS) {
        float x = logits[i];

        m = fmaxf(m, x < INFINITY ? x : INFINITY); /* NaN becomes infinite */
    }
    m = block_max(m, shared);
    if (threadIdx.x == 0)
        c.largest[(int64_t)draw * c.n_blocks + blockIdx.x] = m;
}

/* Of a whole row. */
static __device__ __forceinline__ float find_largest(const struct cuda_draw_call &c, int32_t draw, float *shared)
{
    float m = -INFINITY;

    for (int32_t i = (int32_t)threadIdx.x; i < c.n_blocks; i += THREADS)
        m = fmaxf(m, c.largest[(int64_t)draw * c.n_blocks + i]);
    return block_max(m, shared);
}

/* Some banks in between, so that chains that start a run apart do not meet. */
static __device__ __forceinline__ int32_t place_of(int32_t i)
{
    return i + i / PHX_DRAW_RUN;
}

enum { PLACES = PHX_DRAW_BLOCK + PHX_DRAW_RUNS };

/* The weights of the n logits of a block, and zeros behind them. */
static __device__ __forceinline__ void weigh(double *weight, const float *logits, int32_t n, double largest, double scale)
{
    for (int32_t i = (int32_t)threadIdx.x; i < PHX_DRAW_BLOCK; i += THREADS)
        weight[place_of(i)] = i < n ? phx_draw_weight(logits[i], largest, scale) : 0.0;
    __syncthreads();
}

static __global__ void __launch_bounds__(THREADS) sums_kernel(const struct cuda_draw_call c)
{
    phx_begin();
    __shared__ double weight[PLACES];
    __shared__ double lane[PHX_DRAW_LANES];
    __shared__ float  shared[WARPS];
    int32_t           draw = (int32_t)blockIdx.y, first = (int32_t)blockIdx.x * PHX_DRAW_BLOCK;
    const float      *logits = c.logits + c.draws[draw].row * c.logits_stride + first;
    float             m = find_largest(c, draw, shared);

    weigh(weight, logits, block_size(c, first), (double)m, 1.0 / (double)c.draws[draw].temperature);
    if (threadIdx.x < PHX_DRAW_LANES) {
        double sum = 0;

#pragma unroll 8
        for (int32_t i = (int32_t)threadIdx.x; i < PHX_DRAW_BLOCK; i += PHX_DRAW_LANES)
            sum += weight[place_of(i)];
        lane[threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0)
        c.sums[(int64_t)draw * c.n_blocks + blockIdx.x] = phx_draw_join(lane);
}

/* One thread: all blocks' sums, which lie in shared memory, and the one in which the share is. */
static __device__ __forceinline__ int32_t find_block(const double *sums, int32_t n, double share, double *sum, double *at)
{
    double all = 0;

    for (int32_t i = 0; i < n; i++)
        all += sums[i];
    *sum = all;
    *at = share * all;
    return phx_draw_find(sums, n, at);
}

static __global__ void __launch_bounds__(THREADS) pick_kernel(const struct cuda_draw_call c)
{
    phx_begin();
    __shared__ double      weight[PLACES]; /* first the sums of blocks */
    __shared__ double      runs[PHX_DRAW_RUNS], at, sum;
    __shared__ int32_t     first;
    __shared__ float       shared[WARPS];
    int32_t                draw = (int32_t)blockIdx.x;
    const struct phx_draw_row *d = c.draws + draw;
    const float           *logits = c.logits + d->row * c.logits_stride;
    double                *out = c.out + draw * c.out_stride;
    float                  m = find_largest(c, draw, shared);

    if (!(m > -INFINITY && m < INFINITY)) { /* the same for all threads */
        if (threadIdx.x == 0) {
            out[PHX_DRAW_ID] = -1.0;
            out[PHX_DRAW_LOGIT] = out[PHX_DRAW_SUM] = (double)NAN;
            out[PHX_DRAW_LARGEST] = m < INFINITY ? (double)m : (double)NAN;
        }
        return;
    }
    for (int32_t i = (int32_t)threadIdx.x; i < c.n_blocks; i += THREADS)
        weight[i] = c.sums[(int64_t)draw * c.n_blocks + i];
    __syncthreads();
    if (threadIdx.x == 0)
        first = find_block(weight, c.n_blocks, d->share, &sum, &at) * PHX_DRAW_BLOCK;
    __syncthreads();
    weigh(weight, logits + first, block_size(c, first), (double)m, 1.0 / (double)d->temperature);
    if (threadIdx.x < PHX_DRAW_RUNS) {
        double run = 0;

#pragma unroll 8
        for (int32_t i = 0; i < PHX_DRAW_RUN; i++)
            run += weight[place_of((int32_t)threadIdx.x * PHX_DRAW_RUN + i)];
        runs[threadIdx.x] = run;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        double  rest = at;
        int32_t run = phx_draw_find(runs, PHX_DRAW_RUNS, &rest) * PHX_DRAW_RUN;
        int32_t id = first + run + phx_draw_find(weight + place_of(run), PHX_DRAW_RUN, &rest);

        out[PHX_DRAW_ID] = (double)id;
        out[PHX_DRAW_LOGIT] = (double)logits[id];
        out[PHX_DRAW_LARGEST] = (double)m;
        out[PHX_DRAW_SUM] = sum;
    }
}

static dim3 grid_of(const struct cuda_draw_call *call)
{
    return dim3((unsigned)call->n_blocks, (unsigned)call->n_draws);
}

extern "C" int phx_cuda_draw_largest(cudaStream_t stream, const struct cuda_draw_call *call)
{
    return (int)PHX_LAUNCH(largest_kernel, grid_of(call), THREADS, 0, stream, *call);
}

extern "C" int phx_cuda_draw_sums(cudaStream_t stream, const struct cuda_draw_call *call)
{
    return (int)PHX_LAUNCH(sums_kernel, grid_of(call), THREADS, 0, stream, *call);
}

extern "C" int phx_cuda_draw_pick(cudaStream_t stream, const struct cuda_draw_call *call)
{
    return (int)PHX_LAUNCH(pick_kernel, (unsigned)call->n_draws, THREADS, 0, stream, *call);
}
