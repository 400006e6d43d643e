/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: products of activations with one matrix.
 *
 * Every output has one definition, whatever kernel computes it and however many rows go with it.  The k of a K-slice are
 * cut into blocks of 32 from its beginning (weight.h), the blocks into segments:
 *
 *   BF16, MXFP4 with compute bf16   x rounded to bf16; a segment is 16 blocks (512 k): one accumulator from 0, the mma
 *                                   steps of 16 k ascending; slice = segment + segment + ... in order
 *   I8                              x quantised per group of 256 k as on the CPU (i8.h there); a segment is one group,
 *                                   whose sum is an exact integer; slice = fma(group, w scale * x scale, slice)
 *   all others                      float32; a segment is 4 blocks (128 k): lane t of four has a chain of multiply-adds
 *                                   over its k of weight.h, ascending, then (0 + 1) + (2 + 3); slice as for BF16
 *
 * Slices join by the tree of adjacent pairs, then comes the bias. */
#ifndef PHX_KERNELS_CUDA_MATMUL_H
#define PHX_KERNELS_CUDA_MATMUL_H

#include "kernels/cuda/pick_ahead.h"
#include "kernels/cuda/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_X_ROWS = 8,          /* rows of a tile of activations */
    CUDA_X_BLOCK_BYTES = 512, /* of such a tile and a block of 32 k */
    CUDA_SEGMENT_BLOCKS = 16,
    CUDA_FLOAT_SEGMENT_BLOCKS = 4
};

/* Activations as the b operands of phx_mma_bf16, [row tile of 8][block of 32 k][lane][16 bytes]: b[0], b[1] of the first
 * step, then of the second.  Rows and k that are not there are zeros. */
struct cuda_round {
    const float    *x; /* [n_rows][k], rows x_stride apart */
    int64_t         x_stride;
    int32_t         n_rows;
    struct cuda_cut cut;
    void           *out;
    float          *scale; /* I8: [n_groups][row tiles * 8], else NULL */
};
int phx_cuda_round_rows(cudaStream_t stream, const struct cuda_round *call);
int phx_cuda_quantise_rows(cudaStream_t stream, const struct cuda_round *call);

struct cuda_product {
    struct cuda_weight_view w;
    int32_t                 n_rows;
    const float            *x; /* as they are, or NULL: then */
    int64_t                 x_stride;
    const void             *rounded;
    const float            *x_scale;
    const float            *bias; /* [n] or NULL */
    float                  *out;
    int64_t                 out_stride;
    struct cuda_ahead       ahead; /* of the weights: stream and float */
};
/* Warps share out the segments of 16 or 32 outputs and 8, 16 or 32 rows; all operands straight from memory.  x as they
 * are: 8 rows only. */
int phx_cuda_matmul_stream(cudaStream_t stream, const struct cuda_product *call, int row_tiles, int x_tiles);
/* Warps share out the outputs; operands through shared memory.  64 x 64 outputs and rows, or 128 x 128 (one slice only). */
int phx_cuda_matmul_tile(cudaStream_t stream, const struct cuda_product *call, bool is_large);
/* On warpgroups (hopper_tile.cuh), BF16 and MXFP4; n_blocks blocks of the grid stay.  rounded: a struct cuda_atoms' data, of all
 * rows, as phx_cuda_round_atoms() makes it of a cuda_round. */
int phx_cuda_matmul_hopper(cudaStream_t stream, const struct cuda_product *call, int32_t n_blocks);
int phx_cuda_round_atoms(cudaStream_t stream, const struct cuda_round *call);
/* float32; x_rows of 1 or 8 at a time. */
int phx_cuda_matmul_float(cudaStream_t stream, const struct cuda_product *call, int x_rows);

/* What blocks of row_tiles row tiles ask for ahead of their turn. */
struct cuda_ahead phx_cuda_matmul_ahead(const struct cuda_device *d, const struct cuda_weight_view *w, int32_t row_tiles);

/* What products with such a weight need of scratch. */
size_t phx_cuda_matmul_scratch(const struct cuda_device *d, const struct phx_weight_desc *w);
/* Takes the scratch that products with this weight need, so that steps take none; when it is short the error is kept. */
void phx_cuda_matmul_reserve(struct cuda_device *d, const struct cuda_weight *w);
/* Entry of struct phx_ops. */
const char *phx_cuda_matmul(void *device, struct phx_tensor out, struct phx_tensor x, const void *w,
                            struct phx_tensor bias);

#ifdef __cplusplus
}
#endif
#endif
