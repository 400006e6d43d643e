/* SPDX-License-Identifier: Apache-2.0
 * What the device is, and memory of the host that it copies from and to at full speed. */
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

static void write_version(char *text, size_t size, int version)
{
    (void)snprintf(text, size, "%d.%d", version / 1000, version % 1000 / 10);
}

/* The UUID, which a MIG instance has of its own. */
static void write_id(char *text, size_t size, const unsigned char *uuid, size_t n)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n && 2 * i + 2 < size; i++) {
        text[2 * i] = digits[uuid[i] >> 4];
        text[2 * i + 1] = digits[uuid[i] & 15];
    }
}

void phx_cuda_facts(void *device, struct phx_device_facts *facts)
{
    struct cuda_device   *d = device;
    struct cudaDeviceProp about;
    size_t                free_bytes = 0, total_bytes = 0;
    int                   driver = 0, runtime = 0, n = 0;

    memset(&about, 0, sizeof(about));
    facts->arch = d->arch;
    (void)snprintf(facts->launches, sizeof(facts->launches), "%s", d->launches);
    facts->index = d->index;
    if (cudaGetDeviceCount(&n) == cudaSuccess)
        facts->n_visible = n;
    /* What cannot be asked stays empty: a device that is lost says so at the next sync. */
    if (cudaGetDeviceProperties(&about, d->index) == cudaSuccess) {
        (void)snprintf(facts->name, sizeof(facts->name), "%.60s", about.name);
        write_id(facts->id, sizeof(facts->id), (const unsigned char *)about.uuid.bytes, sizeof(about.uuid.bytes));
    }
    if (cudaDriverGetVersion(&driver) == cudaSuccess)
        write_version(facts->driver, sizeof(facts->driver), driver);
    if (cudaRuntimeGetVersion(&runtime) == cudaSuccess)
        write_version(facts->runtime, sizeof(facts->runtime), runtime);
    if (cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess) {
        facts->free_bytes = (int64_t)free_bytes;
        facts->total_bytes = (int64_t)total_bytes;
    }
    (void)cudaGetLastError();
}

void *phx_cuda_alloc_host(void *device, size_t size_bytes)
{
    void *ptr = NULL;

    (void)device;
    if (cudaHostAlloc(&ptr, size_bytes, cudaHostAllocDefault) != cudaSuccess) {
        (void)cudaGetLastError(); /* the caller says what could not be had */
        return NULL;
    }
    memset(ptr, 0, size_bytes);
    return ptr;
}

void phx_cuda_free_host(void *device, void *ptr)
{
    (void)device;
    (void)cudaFreeHost(ptr); /* fails only when the device is lost, and the process ends with it */
    (void)cudaGetLastError();
}
