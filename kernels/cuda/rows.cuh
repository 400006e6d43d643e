/* SPDX-License-Identifier: Apache-2.0
 * A row that the threads of a block share, and the end of a branch on it. */
#ifndef PHX_KERNELS_CUDA_ROWS_CUH
#define PHX_KERNELS_CUDA_ROWS_CUH

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/vector.h"

enum { THREADS = 256, WARPS = THREADS / PHX_WARP, PER_THREAD = 4, STEP = THREADS * PER_THREAD, MANY = 1 << 18 /* for one hint */ };

/* Elements [i, i + 4) of a row of n, zeros behind its end. */
template <bool is_vector> static __device__ __forceinline__ float4 load4(const float *row, int i, int n)
{
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

    if (is_vector) {
        if (i < n)
            v = *reinterpret_cast<const float4 *>(row + i);
        return v;
    }
    v.x = i < n ? row[i] : 0.0f;
    v.y = i + 1 < n ? row[i + 1] : 0.0f;
    v.z = i + 2 < n ? row[i + 2] : 0.0f;
    v.w = i + 3 < n ? row[i + 3] : 0.0f;
    return v;
}

template <bool is_vector> static __device__ __forceinline__ void store4(float *row, int i, int n, float4 v)
{
    if (is_vector) {
        if (i < n)
            *reinterpret_cast<float4 *>(row + i) = v;
        return;
    }
    if (i < n)
        row[i] = v.x;
    if (i + 1 < n)
        row[i + 1] = v.y;
    if (i + 2 < n)
        row[i + 2] = v.z;
    if (i + 3 < n)
        row[i + 3] = v.w;
}

/* Before the block's turn: n floats that all rows read, where the first block is about it. */
template <bool is_vector> static __device__ __forceinline__ void ask_ahead(const float *of_all, int n)
{
    if (is_vector && blockIdx.x == 0 && threadIdx.x == 0 && of_all != NULL && n < MANY)
        phx_prefetch(of_all, (uint32_t)n * (uint32_t)sizeof(float));
}

/* v, elements i .. i + 3 of what a branch has computed, with its biases. */
template <bool is_vector>
static __device__ __forceinline__ float4 add_biases(const struct cuda_add_norm_call &c, const int32_t *ids, const float *gates,
                                                    int i, float4 v)
{
    for (int j = 0; j < c.top_k; j++) {
        float4 e = load4<is_vector>(c.expert_bias + ids[j] * c.expert_stride, i, c.n);

        v = make_float4(fmaf(gates[j], e.x, v.x), fmaf(gates[j], e.y, v.y), fmaf(gates[j], e.z, v.z),
                        fmaf(gates[j], e.w, v.w));
    }
    if (c.bias != NULL) {
        float4 e = load4<is_vector>(c.bias, i, c.n);

        v = make_float4(v.x + e.x, v.y + e.y, v.z + e.z, v.w + e.w);
    }
    return v;
}

/* By a block of THREADS: x += y with its biases, and the norm of the sum.  branch(i): elements i .. i + 3 of y, zeros behind the
 * row's end.  A thread reads again what it wrote itself: the elements that rmsnorm_kernel gives it.  shared: PHX_WARP floats. */
template <bool is_vector, typename Branch>
static __device__ __forceinline__ void add_norm_row(const struct cuda_add_norm_call &c, int row, float *shared, Branch branch)
{
    float         *x = c.x + (int64_t)row * c.x_stride, *norm = c.norm + (int64_t)row * c.norm_stride;
    const int32_t *ids = c.ids + (int64_t)row * c.ids_stride;
    const float   *gates = c.gates + (int64_t)row * c.gates_stride;
    float          sum = 0.0f, scale;

    for (int j = 0; j < c.top_k; j++)
        if (ids[j] < 0 || ids[j] >= c.n_experts) { /* the same for all threads */
            phx_fault(c.fault, CUDA_FAULT_EXPERT_ID);
            return;
        }
    for (int i = (int)threadIdx.x * PER_THREAD; i < c.n; i += STEP) {
        float4 a = load4<is_vector>(x, i, c.n), b = add_biases<is_vector>(c, ids, gates, i, branch(i));
        float4 v = make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);

        store4<is_vector>(x, i, c.n, v);
        sum = fmaf(v.x, v.x, sum);
        sum = fmaf(v.y, v.y, sum);
        sum = fmaf(v.z, v.z, sum);
        sum = fmaf(v.w, v.w, sum);
    }
    if (c.norm == NULL)
        return;
    sum = phx_block_sum(sum, shared, WARPS);
    scale = 1.0f / sqrtf(sum / (float)c.n + c.eps);
    for (int i = (int)threadIdx.x * PER_THREAD; i < c.n; i += STEP) {
        float4 v = load4<is_vector>(x, i, c.n), g = load4<is_vector>(c.gain, i, c.n);

        store4<is_vector>(norm, i, c.n,
                          make_float4(v.x * scale * g.x, v.y * scale * g.y, v.z * scale * g.z, v.w * scale * g.w));
    }
}

#endif
