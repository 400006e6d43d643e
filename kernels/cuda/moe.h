/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what moe.c hands to the kernels of the mixture.
 *
 * A pair is one row and one of its top_k slots.  Pairs are sorted by expert, rows ascending inside one, and cut
 * into tiles of at most tile_pairs pairs of one expert.  The k of a product are cut into blocks of 32; blocks of a
 * K-slice into segments of 16 (512 k).  Rounded products (bf16 activations, float32 sums), for every kernel:
 *
 *   segment  one accumulator from 0, two mma steps of 16 k per block, blocks ascending
 *   slice    0 + segment + segment + ..., in order
 *   result   per slice p = fma(gate, pair's slice, p) over the row's slots in order; then the tree of
 *            adjacent pairs over the slices
 *
 * Float products have one chain of multiply-adds per slice, k ascending, in the place of segments. */
#ifndef PHX_KERNELS_CUDA_MOE_H
#define PHX_KERNELS_CUDA_MOE_H

#include <stdint.h>

#include "kernels/cuda/ending.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/route.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_MOE_SEGMENT_BLOCKS = 16,
    CUDA_MOE_PAIRS_MIN = 8,      /* of a tile */
    CUDA_MOE_HOPPER_PAIRS = 64   /* of a tile on warpgroups */
};

/* Pairs first .. first + n - 1 of one expert. */
struct cuda_moe_tile {
    int32_t expert, first, n;
};

/* Sorts the pairs: at most CUDA_MOE_PAIRS_MAX.  backend.c bounds the experts by 4096: all fits in shared memory. */
struct cuda_moe_sort {
    const int32_t        *ids; /* [n_rows][top_k], rows ids_stride apart */
    int64_t               ids_stride;
    int32_t               n_rows, top_k, n_experts, tile_pairs;
    int32_t              *row;   /* out [pairs]: row of a sorted pair */
    int32_t              *place; /* out [n_rows][top_k]: where the pair is, -1 when its id is no expert's */
    struct cuda_moe_tile *tiles; /* out, experts ascending */
    int32_t              *n_tiles;
    int32_t              *fault;
};
int phx_cuda_moe_sort(cudaStream_t stream, const struct cuda_moe_sort *a);

/* Rows of bf16 in blocks of 32 k, padding zeros, in the order of k that the mma lanes take (moe.cuh). */
struct cuda_moe_round {
    uint16_t         *out; /* [n_rows][n_blocks][32] */
    const float      *x;   /* [n_rows][k], rows x_stride apart */
    int64_t           x_stride;
    int32_t           n_rows;
    struct cuda_cut   cut;
};
int phx_cuda_moe_round(cudaStream_t stream, const struct cuda_moe_round *a);

/* Both in one launch, for few rows; and the choice of experts before them unless route.logits is NULL. */
struct cuda_moe_start {
    struct cuda_route_call route;
    struct cuda_moe_sort   sort;
    struct cuda_moe_round  round;
};
int phx_cuda_moe_start(cudaStream_t stream, const struct cuda_moe_start *a);
/* The same behind the router's product, float32 with weights F32, into route.logits: the last block of it chooses and sorts.  Up to
 * CUDA_ROUTER_EXPERTS_MAX experts. */
int phx_cuda_moe_router(cudaStream_t stream, const struct cuda_moe_start *a, const struct cuda_product *router, uint32_t *counter);

/* One product of all tiles. */
struct cuda_moe_product {
    struct cuda_weight_view     w;
    const void                 *x;         /* bf16 of a cuda_moe_round, or floats */
    int64_t                     x_stride;  /* elements */
    const int32_t              *row;       /* which row of x a pair has, or NULL: the pair's own */
    const struct cuda_moe_tile *tiles;
    const int32_t              *n_tiles;
    int32_t                     tiles_max; /* *n_tiles is not larger */
    int32_t                     tile_pairs;
    const float                *bias;      /* [E][n], rows bias_stride apart, or NULL */
    int64_t                     bias_stride;
    float                      *out;       /* [pairs][n_slices][n]: slices (+ bias) */
    uint16_t                   *act;       /* or, when not NULL: glu of rows i and n / 2 + i as a round makes it */
    int64_t                     act_stride;
    enum phx_glu                kind;
    float                       limit;
};
/* Tiles of 8 or 16 pairs; warps share out the segments, weights and activations come straight from memory. */
int phx_cuda_moe_stream(cudaStream_t stream, const struct cuda_moe_product *a);
/* Tiles of 32 or 64 pairs; warps share out the rows, activations lie in shared memory. */
int phx_cuda_moe_tile(cudaStream_t stream, const struct cuda_moe_product *a);
/* Tiles of 64 pairs on warpgroups (hopper_tile.cuh); n_blocks blocks of the grid stay.  x and act are a struct cuda_atoms' data,
 * x_stride and act_stride their slots: see cuda_moe_slots().  A bias with act only. */
int phx_cuda_moe_hopper(cudaStream_t stream, const struct cuda_moe_product *a, int32_t n_blocks);

/* The rounded rows of all pairs, for it. */
struct cuda_moe_gather {
    unsigned char              *out;
    const float                *x; /* rows x_stride apart */
    int64_t                     x_stride;
    const int32_t              *row; /* of a pair */
    const struct cuda_moe_tile *tiles;
    const int32_t              *n_tiles;
    int32_t                     tiles_max, n_slots;
    struct cuda_cut             cut;
};
int phx_cuda_moe_gather(cudaStream_t stream, const struct cuda_moe_gather *a);

/* Slots of activations on warpgroups: tile i has those from (its first pair, rounded up to 8) + 8 i on. */
static inline int32_t cuda_moe_slots(int32_t n_pairs, int32_t tiles_max)
{
    return (n_pairs + 7) / 8 * 8 + 8 * (tiles_max + 1);
}

/* Float products, tiles of 16 pairs. */
int phx_cuda_moe_float(cudaStream_t stream, const struct cuda_moe_product *a);

/* act = glu of the halves of gate_up [pairs][2F], as floats or as a round makes it. */
struct cuda_moe_glu {
    const float      *gate_up;
    float            *out;  /* [pairs][F], or NULL */
    uint16_t         *act;  /* [pairs][n_blocks][32], or NULL */
    int32_t           n_pairs, n; /* n: F */
    struct cuda_cut   cut;
    enum phx_glu      kind;
    float             limit;
};
int phx_cuda_moe_glu(cudaStream_t stream, const struct cuda_moe_glu *a);

/* out[t] = the pairs' slices, weighted and joined. */
struct cuda_moe_join {
    float         *out;
    int64_t        out_stride;
    const float   *slices; /* [pairs][n_slices][n] */
    const int32_t *place;  /* [n_rows][top_k] */
    const float   *gates;
    int64_t        gates_stride;
    int32_t        n_rows, top_k, n_slices, n;
};
int phx_cuda_moe_join(cudaStream_t stream, const struct cuda_moe_join *a);

/* The down product of few rows as phx_cuda_moe_stream(), whose last blocks join: the last of some outputs does that, into join.out,
 * or with an end (call.x not NULL) into its x; the last of all norms.  At most CUDA_END_ROWS_MAX rows, whose ids are experts. */
struct cuda_moe_finish {
    struct cuda_moe_join join;
    struct cuda_ending   end; /* counters: 1 and one for each 32 outputs */
};
int phx_cuda_moe_finish(cudaStream_t stream, const struct cuda_moe_product *a, const struct cuda_moe_finish *finish);

/* What steps of at most max_rows need of scratch; SIZE_MAX: too large to count. */
size_t phx_cuda_moe_scratch(const struct cuda_device *d, int32_t max_rows, int32_t top_k,
                            const struct phx_weight_desc *gate_up, const struct phx_weight_desc *down);

/* Entries of struct phx_ops. */
const char *phx_cuda_moe_reserve(void *device, int32_t max_rows, int32_t top_k, const struct phx_weight_desc *gate_up,
                                 const struct phx_weight_desc *down);
const char *phx_cuda_moe_ffn(void *device, const struct phx_moe_args *args, const void *gate_up, const void *down);
const char *phx_cuda_moe_route_ffn(void *device, const struct phx_moe_args *args, struct phx_tensor logits,
                                   const void *gate_up, const void *down);
const char *phx_cuda_mixture(void *device, const struct phx_mixture_args *args, const void *router, const void *gate_up,
                             const void *down);

#ifdef __cplusplus
}
#endif
#endif
