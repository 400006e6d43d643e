/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: how much of its weights a product asks for while the launch before it still runs (hints that bring them into
 * the second-level cache).  Pure; no bit depends on it. */
#ifndef PHX_KERNELS_CUDA_PICK_AHEAD_H
#define PHX_KERNELS_CUDA_PICK_AHEAD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The first `bytes`, a multiple of 16, of each of the first n_tiles row tiles. */
struct cuda_ahead {
    int32_t  n_tiles;
    uint32_t bytes;
};

/* For a matrix of n_tiles row tiles, tile_bytes (a multiple of 16) apart, of which a block reads tiles_per_block. */
struct cuda_ahead phx_cuda_pick_ahead(size_t l2_bytes, int sm_count, int64_t n_tiles, int tiles_per_block, size_t tile_bytes);

#ifdef __cplusplus
}
#endif
#endif
