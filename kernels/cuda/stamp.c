/* SPDX-License-Identifier: Apache-2.0
 * When the device gets to a place in its queue. */
#include "kernels/cuda/cuda.h"
#include "kernels/memory.h"

enum { LEAD = 256 }; /* times that scratch is overwritten first: the host runs ahead, and no op waits to be launched */

struct cuda_stamps {
    cudaEvent_t events[PHX_STAMPS_MAX];
};

void phx_cuda_stamp(void *device, int32_t i)
{
    struct cuda_device *d = device;
    cudaEvent_t        *event;

    if (d->stamps == NULL)
        d->stamps = phx_memory_alloc(sizeof(*d->stamps));
    if (d->stamps == NULL) {
        (void)phx_cuda_fail(d, "stamp: out of memory");
        return;
    }
    event = &d->stamps->events[i];
    if (*event == NULL && !phx_cuda_check(d, cudaEventCreateWithFlags(event, 0), "stamp"))
        return;
    for (int n = 0; i == 0 && n < LEAD && d->scratch != NULL; n++)
        if (!phx_cuda_check(d, cudaMemsetAsync(d->scratch, 0, d->scratch_bytes, d->stream), "stamp"))
            return;
    (void)phx_cuda_check(d, cudaEventRecord(*event, d->stream), "stamp");
}

int phx_cuda_stamps(void *device, int32_t n, float *us)
{
    struct cuda_device *d = device;

    if (n > 0 && d->stamps == NULL)
        return -1;
    if (!phx_cuda_check(d, cudaStreamSynchronize(d->stream), "stamp"))
        return -1;
    for (int32_t i = 0; i + 1 < n; i++) {
        if (!phx_cuda_check(d, cudaEventElapsedTime(&us[i], d->stamps->events[i], d->stamps->events[i + 1]), "stamp"))
            return -1;
        us[i] *= 1000;
    }
    return 0;
}

void phx_cuda_stamps_close(struct cuda_device *d)
{
    for (int32_t i = 0; d->stamps != NULL && i < PHX_STAMPS_MAX; i++)
        if (d->stamps->events[i] != NULL)
            (void)cudaEventDestroy(d->stamps->events[i]); /* fails only with the device */
    phx_memory_free(d->stamps);
}
