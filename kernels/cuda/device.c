/* SPDX-License-Identifier: Apache-2.0
 * Finding, opening and closing a device, and what went wrong on it. */
#include "kernels/cuda/device.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/hopper.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/overlap.h"
#include "kernels/cuda/step.h"
#include "kernels/memory.h"

enum { DRIVER_OF_CUDA_13 = 580 }; /* the first driver of CUDA 13: CUDA release notes, table 3 */

/* After these nothing of the process's context works any more (CUDA runtime API, error descriptions). */
static bool is_fatal(int rc)
{
    switch (rc) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorContained:
    case cudaErrorUnknown:
        return true;
    default:
        return false;
    }
}

bool phx_cuda_fail(struct cuda_device *d, const char *fmt, ...)
{
    va_list ap;

    if (!d->has_failed) {
        d->has_failed = true;
        va_start(ap, fmt);
        (void)vsnprintf(d->why, sizeof(d->why), fmt, ap); /* truncation is acceptable */
        va_end(ap);
    }
    return false;
}

bool phx_cuda_check(struct cuda_device *d, int rc, const char *op)
{
    const char *before = d->last_op;

    d->last_op = op;
    if (rc == cudaSuccess)
        return true;
    (void)cudaGetLastError(); /* it is kept here */
    if (!is_fatal(rc))
        return phx_cuda_fail(d, "%s: %s", op, cudaGetErrorString((cudaError_t)rc));
    d->is_lost = true;
    return phx_cuda_fail(d, "device %d is lost: %s (found by %s after %s)", d->index,
                         cudaGetErrorString((cudaError_t)rc), op, before != NULL ? before : "opening");
}

static int probe_driver(char *why, size_t why_size)
{
    int version = 0;

    if (cudaDriverGetVersion(&version) != cudaSuccess || version == 0)
        (void)snprintf(why, why_size,
                       "no NVIDIA driver on this host (libcuda.so.1 was not found): driver %d or newer is needed; in a "
                       "container pass the GPU in (--gpus all)",
                       DRIVER_OF_CUDA_13);
    else if (version / 1000 < CUDART_VERSION / 1000)
        (void)snprintf(why, why_size, "the NVIDIA driver is too old: it knows CUDA %d.%d, CUDA %d.0 (driver %d) or newer is needed",
                       version / 1000, version % 1000 / 10, CUDART_VERSION / 1000, DRIVER_OF_CUDA_13);
    else
        return 0;
    return -1;
}

/* 90 for compute capability 9.0, 0 when it cannot be read. */
static int read_arch(int index)
{
    int major = 0, minor = 0;

    if (cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index) != cudaSuccess)
        return 0;
    return major * 10 + minor;
}

int phx_cuda_probe(char *why, size_t why_size)
{
    cudaError_t rc;
    int         n = 0, best = 0;

    if (probe_driver(why, why_size) != 0)
        return -1;
    rc = cudaGetDeviceCount(&n);
    if (rc != cudaSuccess || n == 0) {
        (void)cudaGetLastError();
        (void)snprintf(why, why_size, "no CUDA device is visible: %s; is CUDA_VISIBLE_DEVICES right, and the GPU passed into the container?",
                       cudaGetErrorString(rc != cudaSuccess ? rc : cudaErrorNoDevice));
        return -1;
    }
    for (int i = 0; i < n; i++)
        best = read_arch(i) > best ? read_arch(i) : best;
    if (best >= CUDA_ARCH_MIN)
        return 0;
    (void)snprintf(why, why_size, "none of %d devices has compute capability %d.%d or newer (the newest has %d.%d)", n,
                   CUDA_ARCH_MIN / 10, CUDA_ARCH_MIN % 10, best / 10, best % 10);
    return -1;
}

/* Facts of the chosen device; false with the reason. */
static bool read_facts(struct cuda_device *d, bool is_wrapped, char *why, size_t why_size)
{
    int n = 0, shared = 0, l2 = 0;

    if (cudaGetDeviceCount(&n) == cudaSuccess && n > 0 && is_wrapped)
        d->index %= n;
    if (d->index < 0 || d->index >= n) {
        (void)snprintf(why, why_size, "device %d is none of the %d visible ones", d->index, n);
        return false;
    }
    d->arch = read_arch(d->index);
    if (d->arch < CUDA_ARCH_MIN) {
        (void)snprintf(why, why_size, "device %d has compute capability %d.%d; %d.%d or newer is needed", d->index,
                       d->arch / 10, d->arch % 10, CUDA_ARCH_MIN / 10, CUDA_ARCH_MIN % 10);
        return false;
    }
    (void)snprintf(d->isa, sizeof(d->isa), "sm_%d", d->arch);
    if (cudaSetDevice(d->index) != cudaSuccess ||
        cudaDeviceGetAttribute(&d->sm_count, cudaDevAttrMultiProcessorCount, d->index) != cudaSuccess ||
        cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, d->index) != cudaSuccess ||
        cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, d->index) != cudaSuccess) {
        (void)snprintf(why, why_size, "device %d: %s", d->index, cudaGetErrorString(cudaGetLastError()));
        return false;
    }
    d->shared_max = (size_t)shared;
    d->l2_bytes = (size_t)l2;
    return true;
}

static bool make_stream(struct cuda_device *d, const struct phx_backend_options *options)
{
    void *fault = NULL;

    if (!phx_cuda_check(d, cudaStreamCreateWithFlags(&d->stream, cudaStreamNonBlocking), "open") ||
        !phx_cuda_check(d, cudaHostAlloc(&fault, sizeof(*d->fault), cudaHostAllocMapped), "open"))
        return false;
    d->fault = fault;
    *d->fault = CUDA_FAULT_NONE;
    return phx_cuda_step_open(d, options->is_eager) && phx_cuda_stage_open(d) && phx_cuda_hopper_probe(d) == 0 &&
           phx_cuda_overlap_open(d, options->is_serial) == 0;
}

void phx_cuda_close(void *device)
{
    struct cuda_device *d = device;

    /* What fails here fails because the device is lost; its memory goes with the process. */
    if (d->stream != NULL)
        (void)cudaStreamSynchronize(d->stream);
    phx_cuda_step_close(d);
    phx_cuda_library_close(d);
    phx_cuda_stamps_close(d);
    phx_cuda_stage_close(d);
    phx_cuda_pool_close(d);
    if (d->fault != NULL)
        (void)cudaFreeHost(d->fault);
    if (d->stream != NULL) {
        phx_cuda_overlap_stop(d, NULL);
        (void)cudaStreamDestroy(d->stream);
    }
    (void)cudaGetLastError();
    phx_memory_free(d);
}

void *phx_cuda_open(const struct phx_backend_options *options, const char **isa, int32_t *n_threads, char *why,
                    size_t why_size)
{
    struct cuda_device *d = phx_memory_alloc(sizeof(*d));

    if (d == NULL) {
        (void)snprintf(why, why_size, "out of memory");
        return NULL;
    }
    d->compute = options->compute;
    d->is_fast = options->is_fast;
    d->index = options->device;
    if (read_facts(d, options->is_wrapped, why, why_size) && !make_stream(d, options))
        (void)snprintf(why, why_size, "%s", d->why);
    else if (d->stream != NULL) {
        *isa = d->isa;
        *n_threads = 1;
        return d;
    }
    phx_cuda_close(d);
    return NULL;
}

static const char *describe_fault(int32_t fault)
{
    switch (fault) {
    case CUDA_FAULT_EXPERT_ID: return "an expert id is out of range";
    case CUDA_FAULT_PEER: return "a rank did not come to an exchange over peer memory";
    default: return "a kernel reports a fault without a name";
    }
}

int phx_cuda_sync(void *device, const char **why)
{
    struct cuda_device *d = device;

    if (phx_cuda_check(d, cudaStreamSynchronize(d->stream), "sync") && !d->step->is_open)
        phx_cuda_stage_restart(d); /* later ops of a step want its arrays still */
    if (*d->fault != CUDA_FAULT_NONE)
        (void)phx_cuda_fail(d, "%s", describe_fault(*d->fault));
    *d->fault = CUDA_FAULT_NONE;
    if (!d->has_failed)
        return 0;
    d->has_failed = false;
    *why = d->why;
    return d->is_lost ? PHX_SYNC_LOST : -1;
}
