/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: weights in device memory.
 *
 * A weight is [expert][row tile of 16][block of 32 k].  Blocks are cut anew in every K-slice; what is not there (rows
 * past n, k past the end of a slice) is zeros.  Inside a block the elements lie in the order in which the lanes of a
 * warp want them as the a operand of phx_mma_bf16: with g = lane / 4 and t = lane % 4, a lane owns 16 elements,
 *
 *   element e = step * 8 + r * 2 + h    row g + r % 2 * 8    k step * 16 + r / 2 * 8 + 2 t + h
 *
 * that is, register r of step (16 k) `step`, half h.  Bytes of a block:
 *
 *   F32    2048   [piece 4][lane 32][16 bytes]: elements 4 piece .. 4 piece + 3
 *   BF16   1024   [step 2][lane 32][16 bytes]
 *   F16    1024   the same
 *   I8      512   [lane 32][16 bytes]; behind the blocks of a tile: float32 scales [group][row 16]
 *   MXFP4   272   [lane 32][step 2][4 bytes], bits as in mxfp4.cuh; behind them the 16 scale bytes of the block:
 *                 rows 0, 8, 1, 9, ... 7, 15
 *
 * So every load of a warp is one piece of adjacent bytes, and no element is moved between lanes.  weight.cuh reads it. */
#ifndef PHX_KERNELS_CUDA_WEIGHT_H
#define PHX_KERNELS_CUDA_WEIGHT_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_TILE_ROWS = 16,
    CUDA_BLOCK_K = 32,
    CUDA_GROUP_BLOCKS = PHX_I8_GROUP / CUDA_BLOCK_K,
    CUDA_F32_BLOCK_BYTES = 2048,
    CUDA_BF16_BLOCK_BYTES = 1024,
    CUDA_I8_BLOCK_BYTES = 512,
    CUDA_MX_DATA_BYTES = 256,
    CUDA_MX_BLOCK_BYTES = CUDA_MX_DATA_BYTES + CUDA_TILE_ROWS
};

/* How a contraction lies in blocks and in I8 groups: slice s ends at k_end[s], block_end[s] and group_end[s]. */
struct cuda_cut {
    int32_t n_slices, n_blocks, n_groups;
    int32_t k_end[PHX_SLICES_MAX], block_end[PHX_SLICES_MAX], group_end[PHX_SLICES_MAX];
};

/* What kernels read; passed by value. */
struct cuda_weight_view {
    const unsigned char *data;
    size_t               tile_bytes;   /* from one row tile to the next */
    size_t               expert_bytes; /* from one expert to the next */
    enum phx_dtype       dtype;
    int32_t              n, k;
    struct cuda_cut      cut;
};

struct cuda_weight {
    struct phx_weight_desc desc;
    unsigned char         *data; /* on the device, owned */
    size_t                 tile_bytes, expert_bytes, total_bytes;
    int32_t                n_tiles; /* of an expert */
    struct cuda_cut        cut;
};

struct cuda_cut         phx_cuda_weight_cut(const struct phx_weight_desc *desc);
struct cuda_weight_view phx_cuda_weight_look(const struct cuda_weight *w);

/* A piece of a source in device memory, into the tiles of one expert.  Element (row, k) of the piece begins at
 * from + row * row_stride + k * k_stride, at any byte. */
struct cuda_pack {
    unsigned char       *data; /* of the expert */
    size_t               tile_bytes;
    struct cuda_cut      cut;
    enum phx_dtype       stored, source;
    const unsigned char *from;
    int64_t              row_stride, k_stride;
    const unsigned char *scale;
    int64_t              scale_row_stride;
    int32_t              first_row, n_rows; /* of the expert */
};
int phx_cuda_pack_elements(cudaStream_t stream, const struct cuda_pack *call); /* F32, BF16, F16 */
int phx_cuda_pack_mxfp4(cudaStream_t stream, const struct cuda_pack *call);
int phx_cuda_pack_i8(cudaStream_t stream, const struct cuda_pack *call);

/* What packing such a weight needs of scratch at most, whatever its source. */
size_t phx_cuda_weight_scratch(const struct phx_weight_desc *desc);

/* Entries of struct phx_ops.  Padding is counted; pack returns before the stream is done, the source may be changed. */
size_t phx_cuda_weight_bytes(const struct phx_weight_desc *desc);
void  *phx_cuda_weight_create(void *device, const struct phx_weight_desc *desc);
void   phx_cuda_weight_destroy(void *device, void *weight);
void   phx_cuda_weight_pack(void *device, void *weight, const struct phx_weight_source *source);

#ifdef __cplusplus
}
#endif
#endif
