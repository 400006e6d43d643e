/* SPDX-License-Identifier: Apache-2.0
 * Routing, and the biases of the experts that were chosen. */
#include "kernels/cuda/route.cuh"

enum { ROUTE_THREADS = 128, ROUTE_WARPS = ROUTE_THREADS / PHX_WARP, BIAS_THREADS = 256 };

static __global__ void __launch_bounds__(ROUTE_THREADS) route_kernel(struct cuda_route_call c)
{
    phx_begin();
    int row = (int)blockIdx.x * ROUTE_WARPS + (int)threadIdx.x / PHX_WARP;

    if (row < c.n_rows) /* the whole warp */
        route_row(c, row, c.logits + row * c.logits_stride, (int)threadIdx.x % PHX_WARP);
}

static __global__ void __launch_bounds__(BIAS_THREADS) bias_kernel(struct cuda_expert_bias_call c)
{
    phx_begin();
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
