/* SPDX-License-Identifier: Apache-2.0
 * Whether a device may use the products on warpgroups.  wgmma is not said to round as mma.sync does inside its 16 k, so the
 * device is asked. */
#include "kernels/cuda/hopper.h"

int phx_cuda_hopper_probe(struct cuda_device *d)
{
    int rc;

    if (d->arch != CUDA_HOPPER_ARCH || d->compute != PHX_COMPUTE_BF16)
        return 0;
    rc = phx_cuda_hopper_compare(d->stream, d->fault);
    if (rc != cudaSuccess) { /* this build has no such kernel; what else it may be the next launch will say */
        (void)cudaGetLastError();
        return 0;
    }
    if (!phx_cuda_check(d, cudaStreamSynchronize(d->stream), "open"))
        return -1;
    d->hopper = *d->fault == 0 ? CUDA_HOPPER_SAME_BITS : CUDA_HOPPER_OTHER_BITS;
    *d->fault = CUDA_FAULT_NONE;
    return 0;
}

bool phx_cuda_hopper_is_usable(const struct cuda_device *d)
{
    return d->hopper == CUDA_HOPPER_SAME_BITS || (d->is_fast && d->hopper == CUDA_HOPPER_OTHER_BITS);
}
