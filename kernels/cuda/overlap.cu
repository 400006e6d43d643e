/* SPDX-License-Identifier: Apache-2.0
 * What opening a device asks about launches that overlap. */
#include "kernels/cuda/device.cuh"

#include "kernels/cuda/overlap.h"

static __global__ void wait_only(int32_t unused)
{
    phx_begin();
    (void)unused;
}

int phx_cuda_overlap_built_for(int *arch)
{
    struct cudaFuncAttributes about = {};
    cudaError_t               rc = cudaFuncGetAttributes(&about, (const void *)wait_only);

    *arch = about.ptxVersion;
    return rc;
}

int phx_cuda_overlap_try(cudaStream_t stream)
{
    cudaError_t rc = PHX_LAUNCH(wait_only, 1, PHX_WARP, 0, stream, 0);

    return rc == cudaSuccess ? PHX_LAUNCH(wait_only, 1, PHX_WARP, 0, stream, 0) : rc;
}
