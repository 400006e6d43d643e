/* SPDX-License-Identifier: Apache-2.0
 * A router's product, and all that comes before the experts' own: choosing, sorting, rounding. */
#include "kernels/cuda/ending.cuh"
#include "kernels/cuda/matmul_float.cuh"
#include "kernels/cuda/moe_sort.cuh"
#include "kernels/cuda/route.cuh"

/* By the last block of the product, a warp per row; shared: the warps' logits, then what the sort wants. */
static __device__ __forceinline__ void choose_all(const struct cuda_moe_start &a, float *shared)
{
    int    warp = (int)threadIdx.x / PHX_WARP, lane = (int)threadIdx.x % PHX_WARP, n_warps = (int)blockDim.x / PHX_WARP;
    float *mine = shared + warp * a.route.n_experts;

    for (int32_t row = warp; row < a.route.n_rows; row += n_warps) {
        for (int32_t e = lane; e < a.route.n_experts; e += PHX_WARP)
            mine[e] = phx_load_fresh(a.route.logits + row * a.route.logits_stride + e);
        __syncwarp();
        route_row(a.route, row, mine, lane);
        __syncwarp();
    }
    __syncthreads(); /* the sort reads the ids of all rows */
    sort_all(a.sort, (int32_t *)shared);
}

/* The first blocks multiply, the others round. */
template <int X_ROWS>
static __global__ void __launch_bounds__(warps_of<X_ROWS>::MAX * PHX_WARP, 1)
    route_pairs(const __grid_constant__ struct cuda_moe_start a, const __grid_constant__ struct cuda_product router,
                uint32_t *counter)
{
    PHX_SHARED(float, shared);
    int32_t       tiles = (router.w.n + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS, block = (int32_t)blockIdx.x;
    int32_t       products = tiles * ((router.n_rows + X_ROWS - 1) / X_ROWS);
    struct corner at = {block % tiles * CUDA_TILE_ROWS, block / tiles * X_ROWS, 0};

    ask_ahead<1>(router, at);
    phx_begin();
    if (block >= products) {
        moe_round_item(a.round, (int64_t)(block - products) * blockDim.x + threadIdx.x);
        return;
    }
    float_outputs<cuda_f32, X_ROWS>(router, at, shared);
    if (is_last_block(counter, (uint32_t)products))
        choose_all(a, shared);
}

template <int X_ROWS>
static int launch(cudaStream_t stream, const struct cuda_moe_start *a, const struct cuda_product *router, uint32_t *counter)
{
    int     warps = warps_of<X_ROWS>::MAX, threads = warps * PHX_WARP;
    int64_t items = (int64_t)a->round.n_rows * a->round.cut.n_blocks * MOE_BLOCK_CHUNKS;
    size_t  product = count_float_bytes<X_ROWS>(router, warps), sort = sort_bytes(&a->sort);
    size_t  logits = (size_t)warps * (size_t)router->w.n * sizeof(float);
    size_t  shared = product > sort ? product : sort;

    return PHX_LAUNCH((route_pairs<X_ROWS>),
                      (unsigned)(count_pieces(router->w.n, CUDA_TILE_ROWS) * count_pieces(router->n_rows, X_ROWS) +
                                 (items + threads - 1) / threads),
                      (unsigned)threads, shared > logits ? shared : logits, stream, *a, *router, counter);
}

int phx_cuda_moe_router(cudaStream_t stream, const struct cuda_moe_start *a, const struct cuda_product *router, uint32_t *counter)
{
    return router->n_rows == 1 ? launch<1>(stream, a, router, counter) : launch<8>(stream, a, router, counter);
}
