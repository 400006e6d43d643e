/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: which pairs (row, slot) an expert has: a stable counting sort in one block, so that the host need not
 * read the ids and a captured step serves any routing.  A warp looks for one expert at a time; inside an expert the pairs
 * keep their order, rows ascending. */
#ifndef PHX_KERNELS_CUDA_MOE_SORT_CUH
#define PHX_KERNELS_CUDA_MOE_SORT_CUH

#include "kernels/cuda/moe.cuh"

enum { UNROLL = 4, STRIP = UNROLL * PHX_WARP /* pairs that a warp looks at together */ };

/* What the block shares. */
struct sort_memory {
    int32_t *begin, *tile; /* [E]: the experts' first pairs and tiles */
    int16_t *expert;       /* [whole strips]: of each pair; -1 of none: an id that no expert has, or behind the last */
};

static __host__ __device__ inline int32_t count_strip_pairs(int32_t n_pairs)
{
    return (n_pairs + STRIP - 1) / STRIP * STRIP;
}

static __device__ void load_experts(const struct cuda_moe_sort &a, int16_t *expert)
{
    int32_t n_pairs = a.n_rows * a.top_k, end = count_strip_pairs(n_pairs);

    for (int32_t pair = (int32_t)threadIdx.x; pair < end; pair += (int32_t)blockDim.x) {
        int32_t id = -1;

        if (pair < n_pairs) {
            id = a.ids[(int64_t)(pair / a.top_k) * a.ids_stride + pair % a.top_k];
            if (id < 0 || id >= a.n_experts) {
                id = a.place[pair] = -1;
                phx_fault(a.fault, CUDA_FAULT_EXPERT_ID);
            }
        }
        expert[pair] = (int16_t)id;
    }
}

static __device__ inline int32_t sum_before(int32_t v, int lane)
{
    int32_t sum = v;

    for (int delta = 1; delta < PHX_WARP; delta *= 2) {
        int32_t other = phx_shfl_up(sum, delta);

        sum += lane >= delta ? other : 0;
    }
    return sum - v;
}

/* begin[e], a count, becomes where e's pairs begin, tile[e] where its tiles do; one warp. */
static __device__ void place_experts(const struct cuda_moe_sort &a, int32_t *begin, int32_t *tile, int lane)
{
    int32_t pairs = 0, tiles = 0;

    for (int32_t first = 0; first < a.n_experts; first += PHX_WARP) {
        int32_t e = first + lane;
        int32_t n = e < a.n_experts ? begin[e] : 0;
        int32_t n_tiles = (n + a.tile_pairs - 1) / a.tile_pairs;
        int32_t at = pairs + sum_before(n, lane), tile_at = tiles + sum_before(n_tiles, lane);

        if (e < a.n_experts) {
            begin[e] = at;
            tile[e] = tile_at;
        }
        pairs = phx_shfl(at + n, PHX_WARP - 1);
        tiles = phx_shfl(tile_at + n_tiles, PHX_WARP - 1);
    }
    if (lane == 0)
        *a.n_tiles = tiles;
}

/* How many pairs an expert has. */
static __device__ int32_t count_pairs(const int16_t *expert, int32_t e, int32_t n_pairs, int lane)
{
    int32_t n = 0;

    for (int32_t strip = 0; strip < n_pairs; strip += STRIP)
#pragma unroll
        for (int i = 0; i < UNROLL; i++)
            n += __popc(phx_ballot(expert[strip + i * PHX_WARP + lane] == e));
    return n;
}

/* The pairs of one expert, in order, from `at` on; where they end. */
static __device__ int32_t place_pairs(const struct cuda_moe_sort &a, const int16_t *expert, int32_t e, int32_t at,
                                      int lane)
{
    for (int32_t strip = 0; strip < a.n_rows * a.top_k; strip += STRIP)
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            int32_t  pair = strip + i * PHX_WARP + lane;
            bool     is_mine = expert[pair] == e;
            uint32_t all = phx_ballot(is_mine);

            if (is_mine) {
                int32_t place = at + __popc(all & ((1u << lane) - 1u));

                a.row[place] = pair / a.top_k;
                a.place[pair] = place;
            }
            at += __popc(all);
        }
    return at;
}

/* By one block; shared: sort_bytes(). */
static __device__ void sort_all(const struct cuda_moe_sort &a, int32_t *shared)
{
    struct sort_memory m = {shared, shared + a.n_experts, (int16_t *)(shared + 2 * a.n_experts)};
    int                warp = (int)threadIdx.x / PHX_WARP, lane = (int)threadIdx.x % PHX_WARP;
    int                n_warps = (int)blockDim.x / PHX_WARP;

    load_experts(a, m.expert);
    __syncthreads();
    for (int32_t e = warp; e < a.n_experts; e += n_warps) {
        int32_t n = count_pairs(m.expert, e, a.n_rows * a.top_k, lane);

        if (lane == 0)
            m.begin[e] = n;
    }
    __syncthreads();
    if (warp == 0)
        place_experts(a, m.begin, m.tile, lane);
    __syncthreads();
    for (int32_t e = warp; e < a.n_experts; e += n_warps) {
        int32_t end = place_pairs(a, m.expert, e, m.begin[e], lane);
        int32_t n_tiles = (end - m.begin[e] + a.tile_pairs - 1) / a.tile_pairs;

        for (int32_t i = lane; i < n_tiles; i += PHX_WARP) {
            int32_t first = m.begin[e] + i * a.tile_pairs;

            a.tiles[m.tile[e] + i] = {e, first, min(end - first, a.tile_pairs)};
        }
    }
}

static inline size_t sort_bytes(const struct cuda_moe_sort *a)
{
    return 2 * (size_t)a->n_experts * sizeof(int32_t) +
           (size_t)count_strip_pairs(a->n_rows * a->top_k) * sizeof(int16_t);
}

#endif
