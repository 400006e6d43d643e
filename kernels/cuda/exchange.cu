/* SPDX-License-Identifier: Apache-2.0
 * The sum of all ranks' parts in the fixed order of the comm, whatever order they were sent in. */
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/exchange.h"

enum { THREADS = 256, BLOCKS_MAX = 4096 };

/* A tree of n leaves, n a power of two: the halves' sums, left before right. */
template <int n> static __device__ __forceinline__ float tree(const float *parts, int64_t stride)
{
    if constexpr (n == 1)
        return parts[0];
    else
        return tree<n / 2>(parts, stride) + tree<n / 2>(parts + n / 2 * stride, stride);
}

template <int n> static __global__ void __launch_bounds__(THREADS) tree_kernel(struct cuda_parts_call c)
{
    phx_begin();
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < c.n; i += step)
        c.to[i] = tree<n>(c.parts + i, c.n);
}

static __global__ void __launch_bounds__(THREADS) in_order_kernel(struct cuda_parts_call c)
{
    phx_begin();
    int64_t step = (int64_t)gridDim.x * THREADS;

    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < c.n; i += step) {
        float sum = c.parts[i];

        for (int32_t r = 1; r < c.n_parts; r++)
            sum += c.parts[i + r * c.n];
        c.to[i] = sum;
    }
}

int phx_cuda_add_parts(cudaStream_t stream, const struct cuda_parts_call *call)
{
    int64_t  want = (call->n + THREADS - 1) / THREADS, most = BLOCKS_MAX;
    unsigned blocks = (unsigned)(want < most ? want : most);

    if (call->n == 0)
        return cudaSuccess;
    switch (call->n_parts) {
    case 2: PHX_LAUNCH(tree_kernel<2>, blocks, THREADS, 0, stream, *call); break;
    case 4: PHX_LAUNCH(tree_kernel<4>, blocks, THREADS, 0, stream, *call); break;
    case 8: PHX_LAUNCH(tree_kernel<8>, blocks, THREADS, 0, stream, *call); break;
    case 16: PHX_LAUNCH(tree_kernel<16>, blocks, THREADS, 0, stream, *call); break;
    case 32: PHX_LAUNCH(tree_kernel<32>, blocks, THREADS, 0, stream, *call); break;
    case 64: PHX_LAUNCH(tree_kernel<64>, blocks, THREADS, 0, stream, *call); break;
    default: PHX_LAUNCH(in_order_kernel, blocks, THREADS, 0, stream, *call); break;
    }
    return cudaGetLastError();
}
