/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: products of many rows on the warpgroups of a Hopper device (hopper_tile.cuh), and whether a device may
 * use them.  Their launchers are in matmul.h and moe.h. */
#ifndef PHX_KERNELS_CUDA_HOPPER_H
#define PHX_KERNELS_CUDA_HOPPER_H

#include "kernels/cuda/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_HOPPER_ARCH = 90, /* compute capability 9.0, and no other: wgmma is Hopper's alone */
    CUDA_HOPPER_ATOM_K = 64,
    CUDA_HOPPER_ROW_BYTES = CUDA_HOPPER_ATOM_K * 2 /* of an atom's row: bf16 */
};

/* Activations in bf16: [64 k][row][128 bytes], the row's 16-byte chunks placed by phx_swizzle_chunk().  k are those of whole
 * blocks of 32 (weight.h); rows a multiple of 8. */
struct cuda_atoms {
    const unsigned char *data;
    size_t               atom_bytes; /* from 64 k to the next: rows * 128 */
};

/* Bytes of so many rows, any number of them. */
static inline size_t cuda_atoms_bytes(const struct cuda_cut *cut, size_t n_rows)
{
    return ((size_t)cut->n_blocks + 1) / 2 * (cuda_round_up(n_rows, 8) * CUDA_HOPPER_ROW_BYTES);
}

/* Multiplies random matrices by mma.sync and by wgmma: *differs (pinned) becomes 1 when a bit does. */
int phx_cuda_hopper_compare(cudaStream_t stream, int32_t *differs);

/* Finds out whether a device has such kernels, and whether sums have the same bits there as in the kernels for other devices;
 * waits for the device.  0, or -1 when that failed (error kept). */
int phx_cuda_hopper_probe(struct cuda_device *d);
/* Whether products may use them: class A only where they have the same bits. */
bool phx_cuda_hopper_is_usable(const struct cuda_device *d);

#ifdef __cplusplus
}
#endif
#endif
