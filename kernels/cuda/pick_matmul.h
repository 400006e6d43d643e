/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: how a product is computed.  Pure functions of shapes and of the device; none changes a bit
 * of a result, but for CUDA_MATMUL_LIBRARY, which only class B has. */
#ifndef PHX_KERNELS_CUDA_PICK_MATMUL_H
#define PHX_KERNELS_CUDA_PICK_MATMUL_H

#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum cuda_matmul_kernel {
    CUDA_MATMUL_FLOAT = 1, /* float32 multiply-adds */
    CUDA_MATMUL_STREAM,    /* mma, warps share out the k: few rows */
    CUDA_MATMUL_TILE,      /* mma, 64 outputs x 64 rows */
    CUDA_MATMUL_TILE_LARGE, /* mma, 128 x 128 */
    CUDA_MATMUL_HOPPER,      /* wgmma of a Hopper device, 128 x 128 or, of slices, 128 x 64 */
    CUDA_MATMUL_LIBRARY    /* cuBLASLt, where it is there */
};

struct cuda_matmul_choice {
    enum cuda_matmul_kernel kernel;
    int32_t                 row_tiles; /* of 16 outputs: stream */
    int32_t                 x_tiles;   /* of 8 rows: stream */
    int32_t                 x_rows;    /* float */
    bool                    is_rounded_first; /* by a kernel of its own, else while the product reads them */
};

/* Whether products with such weights go to the matrix unit. */
bool phx_cuda_is_rounded(enum phx_compute compute, enum phx_dtype dtype);
/* has_warpgroups: products on warpgroups may be used (hopper.h). */
struct cuda_matmul_choice phx_cuda_pick_matmul(enum phx_compute compute, bool is_fast, bool has_warpgroups, int sm_count,
                                               const struct phx_weight_desc *w, int32_t n_rows);
/* Whether a product, so chosen, can go on with its outputs in its own launch (matmul_ends.h): a block of it has all rows. */
bool phx_cuda_pick_ends(const struct cuda_matmul_choice *c, const struct phx_weight_desc *w, int32_t n_rows);
/* Whether both halves of a rotated pair can be outputs of one block, and the cache wants no scales of whole heads. */
bool phx_cuda_pick_rope(const struct phx_kv_desc *kv);
const char *phx_cuda_matmul_kernel_name(enum cuda_matmul_kernel kernel);

#ifdef __cplusplus
}
#endif
#endif
