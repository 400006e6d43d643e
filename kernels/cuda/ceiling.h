/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what the device can do at best, for phx_device_measure(). */
#ifndef PHX_KERNELS_CUDA_CEILING_H
#define PHX_KERNELS_CUDA_CEILING_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

int phx_cuda_measure(void *device, const struct phx_device_request *request, struct phx_device_ceiling *out);

/* Words that are no two alike: bf16 pairs between -1 and 1 when is_bf16. */
struct cuda_noise {
    uint32_t *out;
    size_t    n;
    uint32_t  seed;
    bool      is_bf16;
};
int phx_cuda_noise(cudaStream_t stream, const struct cuda_noise *call);

/* Reads n 16-byte words; sums[0 .. phx_cuda_read_blocks()) keep the compiler from leaving them out. */
struct cuda_read_all {
    const void *from;
    size_t      n;
    uint32_t   *sums;
    int32_t     n_blocks;
};
int phx_cuda_read_all(cudaStream_t stream, const struct cuda_read_all *call);

/* A kernel that does nothing. */
int phx_cuda_nothing(cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
