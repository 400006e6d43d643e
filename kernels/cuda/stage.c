/* SPDX-License-Identifier: Apache-2.0
 * From the host to the device and back, through pinned memory: small arrays of a step, and bulk data. */
#include <sched.h>
#include <string.h>

#include "kernels/team.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/step.h"

#ifndef PHX_CUDA_COPY_THREADS /* a test of the emulated build says how many and how much */
#define PHX_CUDA_COPY_THREADS count_copiers()
#define PHX_CUDA_COPY_BYTES ((size_t)256 << 10)
#endif

enum { STAGE_ALIGN = 16, COPIERS_MAX = 4, COUNTER_BYTES = CUDA_COUNTERS * 4, RING_BYTES = CUDA_STAGE_BYTES - COUNTER_BYTES };

bool phx_cuda_stage_open(struct cuda_device *d)
{
    struct cuda_staging *s = &d->staging;
    void                *host = NULL;

    s->device = phx_cuda_take(d, CUDA_STAGE_BYTES, "staging");
    if (s->device == NULL || !phx_cuda_check(d, cudaHostAlloc(&host, CUDA_STAGE_BYTES, cudaHostAllocDefault), "staging"))
        return false;
    s->host = host;
    s->counters = (uint32_t *)(void *)(s->device + RING_BYTES);
    return phx_cuda_check(d, cudaMemsetAsync(s->counters, 0, COUNTER_BYTES, d->stream), "staging");
}

void phx_cuda_stage_close(struct cuda_device *d)
{
    if (d->staging.host != NULL)
        (void)cudaFreeHost(d->staging.host); /* as in phx_cuda_close() */
    phx_team_destroy(d->upload.team);
    for (int i = 0; i < CUDA_UPLOAD_SLOTS; i++) {
        if (d->upload.is_free[i] != NULL)
            (void)cudaEventDestroy(d->upload.is_free[i]);
        if (d->upload.slot[i] != NULL)
            (void)cudaFreeHost(d->upload.slot[i]);
    }
}

void phx_cuda_stage_restart(struct cuda_device *d)
{
    d->staging.used = 0;
    d->staging.has_spans = false;
}

size_t phx_cuda_stage_reserve(struct cuda_device *d, size_t size_bytes)
{
    struct cuda_staging *s = &d->staging;
    size_t               at = s->used;

    if (size_bytes > RING_BYTES - at) {
        (void)phx_cuda_fail(d, "%zu bytes of a step's arrays are too many beside %zu (limit %d between two syncs)",
                            size_bytes, at, (int)RING_BYTES);
        return SIZE_MAX;
    }
    s->used = cuda_round_up(at + size_bytes, STAGE_ALIGN);
    return at;
}

bool phx_cuda_stage_send(struct cuda_device *d, size_t at, size_t size_bytes)
{
    struct cuda_staging *s = &d->staging;

    return size_bytes == 0 ||
           phx_cuda_check(d, cudaMemcpyAsync(s->device + at, s->host + at, size_bytes, cudaMemcpyHostToDevice, d->stream),
                          "staging");
}

const void *phx_cuda_stage(struct cuda_device *d, const void *host, size_t size_bytes)
{
    const void *known = phx_cuda_step_array(d, host, size_bytes);
    size_t      at;

    if (known != NULL)
        return known;
    d->step->is_unfit = true; /* a replay would not know what to put there */
    at = phx_cuda_stage_reserve(d, size_bytes);
    if (at == SIZE_MAX)
        return NULL;
    if (size_bytes > 0)
        memcpy(d->staging.host + at, host, size_bytes);
    return phx_cuda_stage_send(d, at, size_bytes) ? d->staging.device + at : NULL;
}

int phx_cuda_spans(struct cuda_device *d, const struct phx_spans *spans, struct cuda_spans *out)
{
    struct cuda_staging     *ring = &d->staging;
    const struct cuda_spans *known = phx_cuda_step_spans(d, spans);
    struct cuda_spans        s;
    size_t                   at, bytes;

    if (known == NULL && ring->has_spans && ring->caller_stride == spans->table_stride &&
        phx_cuda_hold_spans(ring->spans_host, &ring->spans, spans))
        known = &ring->spans;
    if (known != NULL) {
        *out = *known;
        return 0;
    }
    d->step->is_unfit = true;
    s = phx_cuda_measure_spans(spans, phx_cuda_most_keys(spans));
    bytes = phx_cuda_span_words(&s) * sizeof(int32_t);
    at = phx_cuda_stage_reserve(d, bytes);
    if (at == SIZE_MAX)
        return -1;
    phx_cuda_fill_spans((int32_t *)(void *)(ring->host + at), &s, spans);
    if (!phx_cuda_stage_send(d, at, bytes))
        return -1;
    phx_cuda_point_spans(&s, (const int32_t *)(const void *)(ring->device + at), spans->table != NULL);
    ring->spans = *out = s;
    ring->spans_host = (const int32_t *)(const void *)(ring->host + at);
    ring->caller_stride = spans->table_stride;
    ring->has_spans = true;
    return 0;
}

/* ---- bulk data ------------------------------------------------------------------------------- */

/* The next slot, free to be filled; -1 when it cannot be had (error kept). */
static int take_slot(struct cuda_device *d)
{
    struct cuda_upload *u = &d->upload;
    int                 i = u->next;
    void               *slot = NULL;

    if (u->slot[i] == NULL) {
        if (!phx_cuda_check(d, cudaHostAlloc(&slot, CUDA_UPLOAD_SLOT_BYTES, cudaHostAllocDefault), "upload"))
            return -1;
        u->slot[i] = slot;
    }
    if (u->is_free[i] == NULL &&
        !phx_cuda_check(d, cudaEventCreateWithFlags(&u->is_free[i], cudaEventDisableTiming), "upload"))
        return -1;
    if (!phx_cuda_check(d, cudaEventSynchronize(u->is_free[i]), "upload"))
        return -1;
    u->next = (i + 1) % CUDA_UPLOAD_SLOTS;
    return i;
}

/* Rows as they lie on the host; uploaded one behind the other. */
struct source {
    const unsigned char *rows;
    size_t               row_bytes;
    int64_t              row_stride;
};

/* Bytes [at, at + n) of the rows, in pieces of unit_bytes that threads share out. */
struct copy {
    unsigned char       *to;
    const struct source *from;
    size_t               at, n, unit_bytes;
};

static void copy_range(unsigned char *to, const struct source *s, size_t at, size_t n)
{
    size_t offset = at % s->row_bytes;

    for (int64_t row = (int64_t)(at / s->row_bytes); n > 0; row++) {
        size_t part = s->row_bytes - offset < n ? s->row_bytes - offset : n;

        memcpy(to, s->rows + row * s->row_stride + offset, part);
        to += part;
        n -= part;
        offset = 0;
    }
}

static void copy_units(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct copy *c = ctx;
    size_t             from = (size_t)first * c->unit_bytes, until = (size_t)end * c->unit_bytes;

    (void)member;
    until = until < c->n ? until : c->n;
    copy_range(c->to + from, c->from, c->at + from, until - from);
}

static inline int32_t count_copiers(void)
{
    cpu_set_t allowed;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        return 1;
    return CPU_COUNT(&allowed) < COPIERS_MAX ? (int32_t)CPU_COUNT(&allowed) : COPIERS_MAX;
}

/* Copying is what limits loading: one thread reaches a fraction of what the bus takes. */
static void fill_slot(struct cuda_upload *u, struct copy *c)
{
    c->unit_bytes = PHX_CUDA_COPY_BYTES;
    if (c->n > c->unit_bytes && u->team == NULL && !u->is_alone) {
        u->team = phx_team_create(PHX_CUDA_COPY_THREADS, false, 0);
        u->is_alone = u->team == NULL; /* without further threads it is slower, not wrong */
    }
    if (u->team != NULL)
        phx_team_run(u->team, (int32_t)((c->n + c->unit_bytes - 1) / c->unit_bytes), copy_units, c);
    else
        copy_range(c->to, c->from, c->at, c->n);
}

void phx_cuda_upload_rows(struct cuda_device *d, void *to, const void *host, size_t row_bytes, int64_t row_stride,
                          size_t n_rows)
{
    struct source  s = {host, row_bytes, row_stride};
    size_t         all = row_bytes * n_rows;
    unsigned char *first = to;

    for (size_t at = 0, n; at < all; at += n) {
        int         i = take_slot(d);
        struct copy c = {.from = &s, .at = at};

        if (i < 0)
            return;
        n = all - at < CUDA_UPLOAD_SLOT_BYTES ? all - at : CUDA_UPLOAD_SLOT_BYTES;
        c.to = d->upload.slot[i];
        c.n = n;
        fill_slot(&d->upload, &c);
        if (!phx_cuda_check(d, cudaMemcpyAsync(first + at, d->upload.slot[i], n, cudaMemcpyHostToDevice, d->stream), "upload") ||
            !phx_cuda_check(d, cudaEventRecord(d->upload.is_free[i], d->stream), "upload"))
            return;
    }
}

void phx_cuda_upload(void *device, void *to, const void *host, size_t size_bytes)
{
    phx_cuda_upload_rows(device, to, host, size_bytes, 0, 1);
}

void phx_cuda_download(void *device, void *host, const void *from, size_t size_bytes)
{
    struct cuda_device *d = device;

    for (size_t at = 0, n; at < size_bytes; at += n) {
        int i = take_slot(d);

        n = size_bytes - at < CUDA_UPLOAD_SLOT_BYTES ? size_bytes - at : CUDA_UPLOAD_SLOT_BYTES;
        if (i < 0 ||
            !phx_cuda_check(d, cudaMemcpyAsync(d->upload.slot[i], (const char *)from + at, n, cudaMemcpyDeviceToHost, d->stream),
                            "download") ||
            !phx_cuda_check(d, cudaStreamSynchronize(d->stream), "download"))
            return;
        memcpy((char *)host + at, d->upload.slot[i], n);
    }
}
