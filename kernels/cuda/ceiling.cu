/* SPDX-License-Identifier: Apache-2.0
 * Kernels that are measured and not used. */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/ceiling.h"

enum { THREADS = 512, AHEAD = 4 };

/* The finisher of murmur3 over a counter. */
static __device__ __forceinline__ uint32_t mix(uint32_t x)
{
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return x ^ x >> 16;
}

static __device__ __forceinline__ uint32_t bf16_of(uint32_t bits16)
{
    return phx_bf16_bits((float)(int32_t)(bits16 & 0xffffu) * (1.0f / 32768.0f) - 1.0f);
}

static __global__ void __launch_bounds__(THREADS) make_noise(struct cuda_noise p)
{
    phx_begin();
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < p.n; i += (size_t)gridDim.x * THREADS) {
        uint32_t v = mix((uint32_t)i * 0x9e3779b9u + p.seed);

        p.out[i] = p.is_bf16 ? bf16_of(v) | bf16_of(v >> 16) << 16 : v;
    }
}

static __global__ void __launch_bounds__(THREADS) read_all(struct cuda_read_all p)
{
    phx_begin();
    const uint4 *from = (const uint4 *)p.from;
    size_t       step = (size_t)gridDim.x * THREADS, i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    uint32_t     sum = 0;

    for (; i + (AHEAD - 1) * step < p.n; i += AHEAD * step) {
        uint4 v[AHEAD];

#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            v[j] = from[i + (size_t)j * step];
#pragma unroll
        for (int j = 0; j < AHEAD; j++)
            sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    for (; i < p.n; i += step)
        sum += from[i].x ^ from[i].y ^ from[i].z ^ from[i].w;
    if (sum == 1u) /* seldom: what is not used would not be read */
        p.sums[blockIdx.x] = sum;
}

static __global__ void nothing(int32_t unused)
{
    phx_begin();
    (void)unused;
}

int phx_cuda_noise(cudaStream_t stream, const struct cuda_noise *p)
{
    size_t blocks = (p->n + THREADS - 1) / THREADS;

    return PHX_LAUNCH(make_noise, (unsigned)(blocks < 4096 ? blocks : 4096), THREADS, 0, stream, *p);
}

int phx_cuda_read_all(cudaStream_t stream, const struct cuda_read_all *p)
{
    return PHX_LAUNCH(read_all, (unsigned)p->n_blocks, THREADS, 0, stream, *p);
}

int phx_cuda_nothing(cudaStream_t stream)
{
    return PHX_LAUNCH(nothing, 1, 32, 0, stream, 0);
}
