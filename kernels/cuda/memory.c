/* SPDX-License-Identifier: Apache-2.0
 * Device memory.  cudaMalloc gives whole pages of 2 MiB and waits for the device to free, so small tensors share
 * chunks; weights and caches have chunks of their own and give them back. */
#include <string.h>

#include "kernels/cuda/cuda.h"
#include "kernels/cuda/step.h"
#include "kernels/memory.h"

#ifndef PHX_CUDA_SHARE_BELOW /* the emulated build shares less, so that the address sanitizer sees more borders */
#define PHX_CUDA_SHARE_BELOW ((size_t)4 << 20)
#endif

#ifndef PHX_CUDA_PAGE_BYTES /* what the driver gives at a time */
#define PHX_CUDA_PAGE_BYTES ((size_t)2 << 20)
#endif

enum { CHUNK_PIECES = 8, RANGES_FIRST = 256, MIB = 1 << 20 };

/* Room for two more ranges. */
static bool grow_ranges(struct cuda_device *d)
{
    struct cuda_pool  *p = &d->pool;
    int32_t            capacity = p->capacity == 0 ? RANGES_FIRST : 2 * p->capacity;
    struct cuda_range *ranges;

    if (p->n_ranges + 2 <= p->capacity)
        return true;
    ranges = phx_memory_alloc((size_t)capacity * sizeof(*ranges));
    if (ranges == NULL)
        return phx_cuda_fail(d, "out of host memory");
    if (p->n_ranges > 0)
        memcpy(ranges, p->ranges, (size_t)p->n_ranges * sizeof(*ranges));
    phx_memory_free(p->ranges);
    p->ranges = ranges;
    p->capacity = capacity;
    return true;
}

static void insert_range(struct cuda_pool *p, int32_t at, struct cuda_range range)
{
    memmove(p->ranges + at + 1, p->ranges + at, (size_t)(p->n_ranges - at) * sizeof(range));
    p->ranges[at] = range;
    p->n_ranges++;
}

static void remove_range(struct cuda_pool *p, int32_t at)
{
    p->n_ranges--;
    memmove(p->ranges + at, p->ranges + at + 1, (size_t)(p->n_ranges - at) * sizeof(p->ranges[0]));
}

/* A chunk of its own for `size_bytes`, or one to share; the index of its range, or -1. */
static int32_t take_chunk(struct cuda_device *d, size_t size_bytes, const char *what)
{
    struct cuda_pool *p = &d->pool;
    bool              is_shared = size_bytes < PHX_CUDA_SHARE_BELOW;
    size_t            chunk = is_shared ? CHUNK_PIECES * PHX_CUDA_SHARE_BELOW : size_bytes, left = 0, total = 0;
    void             *at = NULL;
    int               rc = cudaMalloc(&at, chunk);

    if (rc == cudaErrorMemoryAllocation && is_shared) { /* what is left may still do for this one */
        chunk = size_bytes;
        rc = cudaMalloc(&at, chunk);
    }
    if (rc == cudaSuccess) {
        p->chunk_bytes += chunk;
        insert_range(p, p->n_ranges, (struct cuda_range){at, chunk, true, true});
        return p->n_ranges - 1;
    }
    (void)cudaGetLastError(); /* it is kept here */
    if (rc == cudaErrorMemoryAllocation && cudaMemGetInfo(&left, &total) == cudaSuccess)
        (void)phx_cuda_fail(d, "out of device memory: %s needs %zu MiB, %zu MiB of %zu MiB are free", what,
                            (size_bytes + MIB - 1) / MIB, left / MIB, total / MIB);
    else
        (void)phx_cuda_check(d, rc, what);
    return -1;
}

static int32_t find_free(const struct cuda_pool *p, size_t size_bytes)
{
    for (int32_t i = 0; i < p->n_ranges; i++)
        if (p->ranges[i].is_free && p->ranges[i].size_bytes >= size_bytes)
            return i;
    return -1;
}

void *phx_cuda_take(struct cuda_device *d, size_t size_bytes, const char *what)
{
    struct cuda_pool *p = &d->pool;
    int32_t           i = -1;

    if (size_bytes > SIZE_MAX - CUDA_ALIGN_BYTES) {
        (void)phx_cuda_fail(d, "%s: %zu bytes are absurd", what, size_bytes);
        return NULL;
    }
    if (!grow_ranges(d))
        return NULL;
    if (size_bytes < PHX_CUDA_SHARE_BELOW) {
        size_bytes = cuda_round_up(size_bytes > 0 ? size_bytes : 1, CUDA_ALIGN_BYTES);
        i = find_free(p, size_bytes);
    }
    if (i < 0)
        i = take_chunk(d, size_bytes, what);
    if (i < 0)
        return NULL;
    if (p->ranges[i].size_bytes > size_bytes) {
        struct cuda_range rest = {p->ranges[i].at + size_bytes, p->ranges[i].size_bytes - size_bytes, true, false};

        p->ranges[i].size_bytes = size_bytes;
        insert_range(p, i + 1, rest);
    }
    p->ranges[i].is_free = false;
    p->used_bytes += size_bytes;
    return p->ranges[i].at;
}

/* Range i and the one behind it become one when both are free parts of a chunk. */
static bool join_next(struct cuda_pool *p, int32_t i)
{
    if (i < 0 || i + 1 >= p->n_ranges || !p->ranges[i].is_free || !p->ranges[i + 1].is_free ||
        p->ranges[i + 1].is_chunk_start)
        return false;
    p->ranges[i].size_bytes += p->ranges[i + 1].size_bytes;
    remove_range(p, i + 1);
    return true;
}

static bool is_whole_chunk(const struct cuda_pool *p, int32_t i)
{
    return p->ranges[i].is_free && p->ranges[i].is_chunk_start &&
           (i + 1 == p->n_ranges || p->ranges[i + 1].is_chunk_start);
}

void phx_cuda_drop(struct cuda_device *d, void *ptr)
{
    struct cuda_pool *p = &d->pool;
    int32_t           i = 0;

    if (ptr == NULL)
        return;
    while (i < p->n_ranges && p->ranges[i].at != ptr)
        i++;
    if (i == p->n_ranges || p->ranges[i].is_free) {
        (void)phx_cuda_fail(d, "free: this memory is not taken");
        return;
    }
    p->ranges[i].is_free = true;
    d->step->is_stale = true;
    p->used_bytes -= p->ranges[i].size_bytes;
    (void)join_next(p, i); /* when it can */
    if (join_next(p, i - 1))
        i--;
    if (!is_whole_chunk(p, i))
        return;
    p->chunk_bytes -= p->ranges[i].size_bytes;
    (void)phx_cuda_check(d, cudaFree(p->ranges[i].at), "free");
    remove_range(p, i);
}

void *phx_cuda_scratch(struct cuda_device *d, size_t size_bytes)
{
    if (size_bytes <= d->scratch_bytes && d->scratch != NULL)
        return d->scratch;
    if (d->step->is_recording) { /* memory is neither taken nor given then: the step is called again without */
        (void)phx_cuda_fail(d, "scratch grows while a step is recorded");
        return NULL;
    }
    phx_cuda_drop(d, d->scratch);
    d->scratch_bytes = 0;
    d->scratch = phx_cuda_take(d, size_bytes, "scratch");
    if (d->scratch != NULL)
        d->scratch_bytes = size_bytes;
    return d->scratch;
}

void phx_cuda_pool_close(struct cuda_device *d)
{
    struct cuda_pool *p = &d->pool;

    for (int32_t i = 0; i < p->n_ranges; i++)
        if (p->ranges[i].is_chunk_start)
            (void)cudaFree(p->ranges[i].at); /* fails when the device is lost, and its memory with it */
    phx_memory_free(p->ranges);
    *p = (struct cuda_pool){0};
}

void *phx_cuda_alloc(void *device, size_t size_bytes)
{
    struct cuda_device *d = device;
    void               *ptr = phx_cuda_take(d, size_bytes, "alloc");

    if (ptr != NULL && size_bytes > 0 && !phx_cuda_check(d, cudaMemsetAsync(ptr, 0, size_bytes, d->stream), "alloc")) {
        phx_cuda_drop(d, ptr);
        return NULL;
    }
    return ptr;
}

void phx_cuda_free(void *device, void *ptr)
{
    phx_cuda_drop(device, ptr);
}

/* ---- the same as a count --------------------------------------------------------------------- */

static void count_chunk(struct phx_memory_count *c, size_t size_bytes)
{
    c->total_bytes += cuda_round_up(size_bytes, PHX_CUDA_PAGE_BYTES);
}

/* A new chunk to share; with PHX_CHUNKS_MAX of them the fullest is given up as full. */
static int32_t count_shared_chunk(struct phx_memory_count *c)
{
    int32_t fullest = 0;

    count_chunk(c, CHUNK_PIECES * PHX_CUDA_SHARE_BELOW);
    if (c->n_chunks == PHX_CHUNKS_MAX) {
        for (int32_t i = 1; i < c->n_chunks; i++)
            fullest = c->left_bytes[i] < c->left_bytes[fullest] ? i : fullest;
        c->n_chunks--;
        memmove(c->left_bytes + fullest, c->left_bytes + fullest + 1,
                (size_t)(c->n_chunks - fullest) * sizeof(c->left_bytes[0]));
    }
    c->left_bytes[c->n_chunks] = CHUNK_PIECES * PHX_CUDA_SHARE_BELOW;
    return c->n_chunks++;
}

void phx_cuda_count_add(struct phx_memory_count *c, size_t size_bytes)
{
    int32_t i = 0;

    if (size_bytes >= PHX_CUDA_SHARE_BELOW) {
        count_chunk(c, size_bytes);
        return;
    }
    size_bytes = cuda_round_up(size_bytes > 0 ? size_bytes : 1, CUDA_ALIGN_BYTES);
    while (i < c->n_chunks && c->left_bytes[i] < size_bytes)
        i++;
    if (i == c->n_chunks)
        i = count_shared_chunk(c);
    c->left_bytes[i] -= size_bytes;
}
