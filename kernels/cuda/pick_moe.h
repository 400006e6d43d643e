/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: how a mixture is computed.  Pure functions of shapes; none changes a bit of a result,
 * but is_joined, which only class B has. */
#ifndef PHX_KERNELS_CUDA_PICK_MOE_H
#define PHX_KERNELS_CUDA_PICK_MOE_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_MOE_BLOCK_K = 32,          /* k of a block of a weight */
    CUDA_MOE_PAIRS_MAX = 1 << 15,   /* of a pass: the sort keeps them in shared memory */
    CUDA_ROUTER_EXPERTS_MAX = 256   /* whose logits the warps of a block keep in shared memory */
};

enum cuda_moe_kernel {
    CUDA_MOE_FLOAT = 1, /* float32 multiply-adds */
    CUDA_MOE_STREAM,    /* bf16 mma, warps share out the k */
    CUDA_MOE_TILE,      /* bf16 mma, warps share out the rows */
    CUDA_MOE_HOPPER     /* wgmma of a Hopper device */
};

struct cuda_moe_choice {
    enum cuda_moe_kernel kernel;     /* of both products: float when either weight wants it, as on the CPU */
    int32_t              tile_pairs; /* of one expert that a block of the grid takes */
    bool                 is_fused;   /* glu in the epilogue of gate_up */
    bool                 is_joined;  /* the slices of a pair become one before the gates */
};

/* n_pairs pairs (a row and one of its experts) of one pass; only kernel and tile_pairs depend on them.  has_warpgroups:
 * products on them may be used (hopper.h). */
struct cuda_moe_choice phx_cuda_pick_moe(enum phx_compute compute, bool is_fast, bool has_warpgroups,
                                         const struct phx_weight_desc *gate_up, const struct phx_weight_desc *down,
                                         int32_t n_pairs);
/* For n_rows rows of one pass: whether the launch that sorts also chooses, whether the router's product is in it, and whether the
 * down product goes on with its outputs (moe.h). */
bool phx_cuda_pick_choosing(const struct cuda_moe_choice *c, int32_t n_rows);
bool phx_cuda_pick_router(const struct cuda_moe_choice *c, const struct phx_weight_desc *router, int32_t n_rows);
bool phx_cuda_pick_finish(const struct cuda_moe_choice *c, int32_t n_rows);
const char *phx_cuda_moe_kernel_name(enum cuda_moe_kernel kernel);

/* How many rows of a step go through the experts at once, so that the slices of their pairs fit in 256 MiB; at
 * least 1 (if max_rows is), at most max_rows. */
int32_t phx_cuda_pick_moe_rows(const struct phx_weight_desc *down, bool is_joined, int32_t max_rows, int32_t top_k);

/* Tiles that n_pairs pairs make at most. */
int32_t phx_cuda_moe_tiles_max(int32_t n_pairs, int32_t n_experts, int32_t tile_pairs);

#ifdef __cplusplus
}
#endif
#endif
