/* SPDX-License-Identifier: Apache-2.0
 * Sorting pairs, alone or with what else comes before the products of few rows. */
#include "kernels/cuda/moe_sort.cuh"
#include "kernels/cuda/route.cuh"

static __global__ void sort_pairs(const __grid_constant__ struct cuda_moe_sort a)
{
    phx_begin();
    PHX_SHARED(int32_t, shared);

    sort_all(a, shared);
}

/* The first block chooses and sorts, the others round. */
static __global__ void start_pairs(const __grid_constant__ struct cuda_moe_start a)
{
    phx_begin();
    PHX_SHARED(int32_t, shared);
    int warp = (int)threadIdx.x / PHX_WARP, n_warps = (int)blockDim.x / PHX_WARP;

    if (blockIdx.x > 0) {
        moe_round_item(a.round, (int64_t)(blockIdx.x - 1) * blockDim.x + threadIdx.x);
        return;
    }
    for (int32_t row = warp; a.route.logits != NULL && row < a.route.n_rows; row += n_warps)
        route_row(a.route, row, a.route.logits + row * a.route.logits_stride, (int)threadIdx.x % PHX_WARP);
    __syncthreads(); /* the sort reads the ids of all rows */
    sort_all(a.sort, shared);
}

static unsigned count_threads(const struct cuda_moe_sort *a)
{
    return (unsigned)((a->n_experts < PHX_WARP ? a->n_experts : PHX_WARP) * PHX_WARP);
}

int phx_cuda_moe_sort(cudaStream_t stream, const struct cuda_moe_sort *a)
{
    return PHX_LAUNCH(sort_pairs, 1, count_threads(a), sort_bytes(a), stream, *a);
}

int phx_cuda_moe_start(cudaStream_t stream, const struct cuda_moe_start *a)
{
    unsigned threads = count_threads(&a->sort);
    int64_t  items = (int64_t)a->round.n_rows * a->round.cut.n_blocks * MOE_BLOCK_CHUNKS;

    return PHX_LAUNCH(start_pairs, (unsigned)(1 + (items + threads - 1) / threads), threads, sort_bytes(&a->sort), stream,
                      *a);
}
