/* SPDX-License-Identifier: Apache-2.0
 * Routing: one warp per row.  Experts have a total order (better logit, then lower index, NaN last), so the next best
 * is the best of those behind the last one chosen and no list of chosen ones is needed. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/route.h"

enum { ROUTE_THREADS = 128, ROUTE_WARPS = ROUTE_THREADS / PHX_WARP, BIAS_THREADS = 256 };

struct choice {
    float   logit;
    int32_t id; /* negative: none */
};

static __device__ __forceinline__ bool is_better(struct choice a, struct choice b)
{
    bool a_nan = a.logit != a.logit, b_nan = b.logit != b.logit;

    if (a.id < 0 || b.id < 0)
        return b.id < 0 && a.id >= 0;
    if (a_nan || b_nan)
        return a_nan && b_nan ? a.id < b.id : b_nan;
    return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/* The best expert behind `last` (of all when last.id is negative); the same in every lane. */
static __device__ __forceinline__ struct choice find_next(const float *logits, int n, struct choice last, int lane)
{
    struct choice best = {0.0f, -1};

    for (int e = lane; e < n; e += PHX_WARP) {
        struct choice c = {logits[e], e};

        if ((last.id < 0 || is_better(last, c)) && is_better(c, best))
            best = c;
    }
    for (int m = PHX_WARP / 2; m > 0; m /= 2) {
        struct choice other = {phx_shfl_xor(best.logit, m), phx_shfl_xor(best.id, m)};

        best = is_better(other, best) ? other : best;
    }
    return best;
}

static __global__ void __launch_bounds__(ROUTE_THREADS) route_kernel(struct cuda_route_call c)
{
    int           lane = (int)threadIdx.x % PHX_WARP;
    int           row = (int)blockIdx.x * ROUTE_WARPS + (int)threadIdx.x / PHX_WARP;
    struct choice last = {0.0f, -1};
    float         top = 0.0f, sum = 0.0f;

    if (row >= c.n_rows) /* the whole warp */
        return;
    const float *logits = c.logits + row * c.logits_stride;
    int32_t     *ids = c.ids + row * c.ids_stride;
    float       *gates = c.gates + row * c.gates_stride;

    for (int j = 0; j < c.top_k; j++) {
        float gate;

        last = find_next(logits, c.n_experts, last, lane);
        if (j == 0)
            top = last.logit;
        gate = phx_exp(last.logit - top);
        sum += gate;
        if (lane == 0) {
            ids[j] = last.id;
            gates[j] = gate;
        }
    }
    for (int j = 0; j < c.top_k && lane == 0; j++)
        gates[j] /= sum;
}

static __global__ void __launch_bounds__(BIAS_THREADS) bias_kernel(struct cuda_expert_bias_call c)
{
    const int32_t *ids = c.ids + (int64_t)blockIdx.x * c.ids_stride;
    const float   *gates = c.gates + (int64_t)blockIdx.x * c.gates_stride;
    int            i = (int)blockIdx.y * BIAS_THREADS + (int)threadIdx.x;
    float         *x = c.x + (int64_t)blockIdx.x * c.x_stride + i, v;

    for (int j = 0; j < c.top_k; j++)
        if (ids[j] < 0 || ids[j] >= c.n_experts) {
            phx_fault(c.fault, CUDA_FAULT_EXPERT_ID);
            return;
        }
    if (i >= c.n)
        return;
    v = *x;
    for (int j = 0; j < c.top_k; j++)
        v = fmaf(gates[j], c.bias[ids[j] * c.bias_stride + i], v);
    *x = v;
}

int phx_cuda_route_rows(cudaStream_t stream, const struct cuda_route_call *c)
{
    return PHX_LAUNCH(route_kernel, (unsigned)((c->n_rows + ROUTE_WARPS - 1) / ROUTE_WARPS), ROUTE_THREADS, 0, stream,
                      *c);
}

int phx_cuda_expert_bias(cudaStream_t stream, const struct cuda_expert_bias_call *c)
{
    dim3 grid((unsigned)c->n_rows, (unsigned)((c->n + BIAS_THREADS - 1) / BIAS_THREADS));

    return PHX_LAUNCH(bias_kernel, grid, BIAS_THREADS, 0, stream, *c);
}
