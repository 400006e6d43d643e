/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: choosing a row's experts, by one warp.  Experts have a total order (better logit, then lower index,
 * NaN last), so the next best is the best of those behind the last one chosen and no list of chosen ones is needed. */
#ifndef PHX_KERNELS_CUDA_ROUTE_CUH
#define PHX_KERNELS_CUDA_ROUTE_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/cuda/route.h"

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

/* By its logits, wherever they are. */
static __device__ __forceinline__ void route_row(const struct cuda_route_call &c, int row, const float *logits, int lane)
{
    struct choice last = {0.0f, -1};
    float         top = 0.0f, sum = 0.0f;
    int32_t      *ids = c.ids + row * c.ids_stride;
    float        *gates = c.gates + row * c.gates_stride;

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

#endif
