/* SPDX-License-Identifier: Apache-2.0
 * Where a backend's memory is, what a model will take of it, and what it computes on. */
#include <string.h>

#include "kernels/memory.h"
#include "kernels/ops.h"

const char *phx_backend_name(const struct phx_backend *b)
{
    return b->ops->name;
}

const char *phx_backend_isa(const struct phx_backend *b)
{
    return b->isa;
}

int32_t phx_backend_threads(const struct phx_backend *b)
{
    return b->n_threads;
}

void *phx_backend_alloc(struct phx_backend *b, size_t size_bytes)
{
    return b->ops->alloc(b->device, size_bytes);
}

void phx_backend_free(struct phx_backend *b, void *ptr)
{
    b->ops->free(b->device, ptr);
}

void phx_upload(struct phx_backend *b, void *device, const void *host, size_t size_bytes)
{
    if (!b->has_failed)
        b->ops->upload(b->device, device, host, size_bytes);
}

void phx_download(struct phx_backend *b, void *host, const void *device, size_t size_bytes)
{
    if (!b->has_failed)
        b->ops->download(b->device, host, device, size_bytes);
}

bool phx_backend_is_host(const struct phx_backend *b)
{
    return b->ops->is_host;
}

void *phx_backend_alloc_host(struct phx_backend *b, size_t size_bytes)
{
    const struct phx_ops *ops = b->ops;

    return ops->alloc_host != NULL ? ops->alloc_host(b->device, size_bytes)
                                   : phx_memory_alloc(size_bytes);
}

void phx_backend_free_host(struct phx_backend *b, void *ptr)
{
    const struct phx_ops *ops = b->ops;

    if (ptr == NULL)
        return;
    if (ops->alloc_host != NULL)
        ops->free_host(b->device, ptr);
    else
        phx_memory_free(ptr);
}

void phx_backend_facts(struct phx_backend *b, struct phx_device_facts *facts)
{
    const struct phx_ops *ops = b->ops;

    memset(facts, 0, sizeof(*facts));
    if (ops->facts != NULL)
        ops->facts(b->device, facts);
}

int phx_device_measure(struct phx_backend *b, const struct phx_device_request *request, struct phx_device_ceiling *out)
{
    memset(out, 0, sizeof(*out));
    if (b->has_failed)
        return -1;
    return b->ops->measure != NULL ? b->ops->measure(b->device, request, out) : 0;
}

void phx_device_stamp(struct phx_backend *b, int32_t i)
{
    if (!b->has_failed && b->ops->stamp != NULL && i >= 0 && i < PHX_STAMPS_MAX)
        b->ops->stamp(b->device, i);
}

int phx_device_stamps(struct phx_backend *b, int32_t n, float *us)
{
    if (b->has_failed || b->ops->stamps == NULL || n > PHX_STAMPS_MAX)
        return -1;
    return b->ops->stamps(b->device, n, us);
}

/* NULL is the CPU. */
static bool has_memory(const struct phx_backend *b)
{
    return b != NULL && b->ops->work_bytes != NULL;
}

size_t phx_work_bytes(const struct phx_backend *b, const struct phx_work *work)
{
    return has_memory(b) ? b->ops->work_bytes(b->device, work) : 0;
}

void phx_work_reserve(struct phx_backend *b, const struct phx_work *work)
{
    if (has_memory(b) && !b->has_failed)
        b->ops->work_reserve(b->device, work);
}

void phx_memory_count_add(const struct phx_backend *b, struct phx_memory_count *c, size_t size_bytes)
{
    if (has_memory(b))
        b->ops->memory_count_add(c, size_bytes);
    else
        c->total_bytes += size_bytes;
}
