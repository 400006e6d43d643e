/* SPDX-License-Identifier: Apache-2.0
 * Selection by sorting in shared memory: bitonic sorts of runs of `width` keys, then pairs of runs become their better
 * half until one run is left.  Every comparison is fixed, so time does not depend on the logits either. */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/top.h"

enum { THREADS = 512, WARPS = THREADS / PHX_WARP };

static const float LOG2_E = 1.4426950408889634f;
static const float LOWEST = -3.402823466e38f;

/* Larger is better; 0 is worse than any.  -0 counts as 0. */
static __device__ __forceinline__ uint64_t key_of(float logit, int32_t id)
{
    uint32_t bits = __float_as_uint(logit + 0.0f);
    uint32_t order = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;

    if (logit != logit)
        order = 0;
    return (uint64_t)order << 32 | (0xffffffffu - (uint32_t)id);
}

static __device__ __forceinline__ int32_t id_of(uint64_t key)
{
    return (int32_t)(0xffffffffu - (uint32_t)key);
}

static __device__ __forceinline__ void order_pair(uint64_t *key, int32_t a, int32_t b, bool is_descending)
{
    uint64_t x = key[a], y = key[b];

    if ((x < y) == is_descending) {
        key[a] = y;
        key[b] = x;
    }
}

/* Sorts each run of `width` of n keys, best first; both powers of two. */
static __device__ void sort_runs(uint64_t *key, int32_t n, int32_t width)
{
    for (int32_t size = 2; size <= width; size *= 2)
        for (int32_t stride = size / 2; stride > 0; stride /= 2) {
            for (int32_t i = (int32_t)threadIdx.x; i < n / 2; i += THREADS) {
                int32_t a = i / stride * 2 * stride + i % stride;

                order_pair(key, a, a + stride, size == width || (a & size) == 0);
            }
            __syncthreads();
        }
}

/* Runs at 0, gap, 2 gap, ...: each even one takes the better half of itself and the next, sorted. */
static __device__ void halve_runs(uint64_t *key, int32_t n, int32_t width, int32_t gap)
{
    int32_t n_kept = n / (2 * gap) * width;

    for (int32_t i = (int32_t)threadIdx.x; i < n_kept; i += THREADS) {
        int32_t  run = i / width * 2 * gap, j = i % width;
        uint64_t other = key[run + gap + width - 1 - j];

        if (other > key[run + j])
            key[run + j] = other;
    }
    __syncthreads();
    for (int32_t stride = width / 2; stride > 0; stride /= 2) {
        for (int32_t i = (int32_t)threadIdx.x; i < n_kept / 2; i += THREADS) {
            int32_t j = i % (width / 2), a = i / (width / 2) * 2 * gap + j / stride * 2 * stride + j % stride;

            order_pair(key, a, a + stride, true);
        }
        __syncthreads();
    }
}

/* The largest logit of the segment (at least LOWEST) and the sum of e^(logit - largest). */
static __device__ void sum_segment(const float *logits, int32_t n, float *shared, float *out)
{
    int32_t lane = (int32_t)threadIdx.x % PHX_WARP, warp = (int32_t)threadIdx.x / PHX_WARP;
    float   m = LOWEST, l = 0;

    for (int32_t i = (int32_t)threadIdx.x; i < n; i += THREADS)
        m = fmaxf(m, logits[i]);
    m = phx_warp_max(m);
    if (lane == 0)
        shared[warp] = m;
    __syncthreads();
    m = phx_warp_max(shared[lane % WARPS]);
    __syncthreads();
    for (int32_t i = (int32_t)threadIdx.x; i < n; i += THREADS)
        l += phx_exp2((logits[i] - m) * LOG2_E);
    l = phx_block_sum(l, shared, WARPS);
    if (threadIdx.x == 0) {
        out[0] = m;
        out[1] = l;
    }
}

static __device__ float join_sums(const float *sums, int32_t n)
{
    float m = sums[0], l = sums[1];

    for (int32_t i = 1; i < n; i++) {
        float top = fmaxf(m, sums[2 * i]);

        l = fmaf(sums[2 * i + 1], phx_exp2((sums[2 * i] - top) * LOG2_E), l * phx_exp2((m - top) * LOG2_E));
        m = top;
    }
    return m + logf(l);
}

static __device__ void write_results(const struct cuda_top_call &c, int32_t row, const uint64_t *key)
{
    for (int32_t i = (int32_t)threadIdx.x; i < c.top_k; i += THREADS) {
        int32_t id = id_of(key[i]);

        c.ids[row * c.ids_stride + i] = id;
        c.values[row * c.values_stride + i] = c.logits[row * c.logits_stride + id];
    }
    if (threadIdx.x == 0)
        c.lse[row * c.lse_stride] = join_sums(c.sums + (int64_t)row * c.n_sums * 2, c.n_sums);
}

static __global__ void __launch_bounds__(THREADS) top_kernel(const struct cuda_top_call c)
{
    phx_begin();
    __shared__ uint64_t key[CUDA_TOP_SEGMENT];
    __shared__ float    shared[PHX_WARP];
    int32_t             segment = (int32_t)blockIdx.x, row = (int32_t)blockIdx.y, first = segment * CUDA_TOP_SEGMENT;
    int32_t             n = c.n - first < CUDA_TOP_SEGMENT ? c.n - first : CUDA_TOP_SEGMENT, size = c.width;
    const float        *logits = c.logits + row * c.logits_stride + first;

    while (size < n)
        size *= 2;
    for (int32_t i = (int32_t)threadIdx.x; i < size; i += THREADS) {
        key[i] = 0;
        if (i < n)
            key[i] = c.in != NULL ? c.in[(int64_t)row * c.n + first + i] : key_of(logits[i], first + i);
    }
    __syncthreads();
    if (c.in == NULL)
        sum_segment(logits, n, shared, c.sums + ((int64_t)row * c.n_sums + segment) * 2);
    sort_runs(key, size, c.width);
    for (int32_t gap = c.width; gap < size; gap *= 2)
        halve_runs(key, size, c.width, gap);
    if (c.out == NULL) {
        write_results(c, row, key);
        return;
    }
    for (int32_t i = (int32_t)threadIdx.x; i < c.width; i += THREADS)
        c.out[((int64_t)row * c.n_segments + segment) * c.width + i] = key[i];
}

extern "C" int phx_cuda_top_segments(cudaStream_t stream, const struct cuda_top_call *call)
{
    dim3 grid((unsigned)call->n_segments, (unsigned)call->n_rows);

    return (int)PHX_LAUNCH(top_kernel, grid, THREADS, 0, stream, *call);
}
