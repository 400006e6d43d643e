/* SPDX-License-Identifier: Apache-2.0
 * Whether launches overlap: a kernel that was compiled for older devices has no wait and must not, and a driver that does not know
 * such launches refuses the first. */
#include "kernels/cuda/overlap.h"

#include "kernels/cuda/launch.h"

/* Why not, as far as that is known before a launch, or NULL. */
static const char *find_obstacle(const struct cuda_device *d, bool is_serial)
{
    int built_for = 0;

    if (is_serial)
        return "one by one: as asked for";
    if (d->arch < CUDA_OVERLAP_ARCH_MIN)
        return "one by one: compute capability below 9.0";
    if (phx_cuda_overlap_built_for(&built_for) != cudaSuccess) {
        (void)cudaGetLastError(); /* what else it may be the next launch will say */
        return "one by one: what the kernels were built for is not known";
    }
    return built_for < CUDA_OVERLAP_ARCH_MIN ? "one by one: the kernels were built for older devices" : NULL;
}

int phx_cuda_overlap_open(struct cuda_device *d, bool is_serial)
{
    d->launches = find_obstacle(d, is_serial);
    if (d->launches != NULL)
        return 0;
    d->launches = "overlapped";
    if (!phx_cuda_launches_start_overlap(d->stream))
        phx_cuda_overlap_stop(d, "one by one: too many devices in a process");
    else if (phx_cuda_overlap_try(d->stream) != cudaSuccess) {
        (void)cudaGetLastError();
        phx_cuda_overlap_stop(d, "one by one: the driver refuses others");
    }
    return phx_cuda_check(d, cudaStreamSynchronize(d->stream), "open") ? 0 : -1;
}

void phx_cuda_overlap_stop(struct cuda_device *d, const char *why)
{
    phx_cuda_launches_stop_overlap(d->stream);
    d->launches = why;
}
