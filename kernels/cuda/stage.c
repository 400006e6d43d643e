/* SPDX-License-Identifier: Apache-2.0
 * From the host to the device and back, through pinned memory: small arrays of a step, and bulk data. */
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { STAGE_ALIGN = 16, BLOCK_TOKENS_MIN = 16 };

bool phx_cuda_stage_open(struct cuda_device *d)
{
    struct cuda_staging *s = &d->staging;
    void                *host = NULL;

    s->device = phx_cuda_take(d, CUDA_STAGE_BYTES, "staging");
    if (s->device == NULL || !phx_cuda_check(d, cudaHostAlloc(&host, CUDA_STAGE_BYTES, cudaHostAllocDefault), "staging"))
        return false;
    s->host = host;
    return true;
}

void phx_cuda_stage_close(struct cuda_device *d)
{
    if (d->staging.host != NULL)
        (void)cudaFreeHost(d->staging.host); /* as in phx_cuda_close() */
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

/* Room in the ring: its offset, or SIZE_MAX (error kept). */
static size_t reserve(struct cuda_device *d, size_t size_bytes)
{
    struct cuda_staging *s = &d->staging;
    size_t               at = s->used;

    if (size_bytes > CUDA_STAGE_BYTES - at) {
        (void)phx_cuda_fail(d, "%zu bytes of a step's arrays are too many beside %zu (limit %d between two syncs)",
                            size_bytes, at, (int)CUDA_STAGE_BYTES);
        return SIZE_MAX;
    }
    s->used = cuda_round_up(at + size_bytes, STAGE_ALIGN);
    return at;
}

static bool send(struct cuda_device *d, size_t at, size_t size_bytes)
{
    struct cuda_staging *s = &d->staging;

    return size_bytes == 0 ||
           phx_cuda_check(d, cudaMemcpyAsync(s->device + at, s->host + at, size_bytes, cudaMemcpyHostToDevice, d->stream),
                          "staging");
}

const void *phx_cuda_stage(struct cuda_device *d, const void *host, size_t size_bytes)
{
    size_t at = reserve(d, size_bytes);

    if (at == SIZE_MAX)
        return NULL;
    if (size_bytes > 0)
        memcpy(d->staging.host + at, host, size_bytes);
    return send(d, at, size_bytes) ? d->staging.device + at : NULL;
}

/* ---- the rows of a step ---------------------------------------------------------------------- */

/* Sizes of what will be uploaded. */
static struct cuda_spans measure_spans(const struct phx_spans *spans)
{
    struct cuda_spans s = {.n_seqs = spans->n_seqs};

    for (int32_t i = 0; i < spans->n_seqs; i++) {
        int32_t end = spans->row[i] + spans->n_rows[i], keys = spans->pos[i] + spans->n_rows[i];

        if (spans->n_rows[i] == 0)
            continue;
        s.n_rows_total = end > s.n_rows_total ? end : s.n_rows_total;
        s.n_rows_max = spans->n_rows[i] > s.n_rows_max ? spans->n_rows[i] : s.n_rows_max;
        s.n_keys_max = keys > s.n_keys_max ? keys : s.n_keys_max;
    }
    if (spans->table != NULL) {
        s.table_stride = (s.n_keys_max - 1) / BLOCK_TOKENS_MIN + 1;
        s.table_stride = s.table_stride < spans->table_stride ? s.table_stride : spans->table_stride;
    }
    return s;
}

static size_t count_span_words(const struct cuda_spans *s)
{
    return (size_t)s->n_seqs * (3 + (size_t)s->table_stride) + 2 * (size_t)s->n_rows_total;
}

/* Whether the arrays of this step are those that are there. */
static bool are_staged(const struct cuda_staging *s, const struct phx_spans *spans)
{
    size_t         n = (size_t)spans->n_seqs, bytes = n * sizeof(int32_t);
    const int32_t *at = s->spans_host;

    if (!s->has_spans || s->spans.n_seqs != spans->n_seqs || s->caller_stride != spans->table_stride ||
        (s->spans.table != NULL) != (spans->table != NULL))
        return false;
    if (n == 0)
        return true;
    if (memcmp(at, spans->row, bytes) != 0 || memcmp(at + n, spans->n_rows, bytes) != 0 ||
        memcmp(at + 2 * n, spans->pos, bytes) != 0)
        return false;
    at += 3 * n;
    for (size_t i = 0; i < n && spans->table != NULL; i++, at += s->spans.table_stride)
        if (memcmp(at, spans->table + i * (size_t)spans->table_stride, (size_t)s->spans.table_stride * sizeof(int32_t)) != 0)
            return false;
    return true;
}

/* row, n_rows, pos, table, seq_of_row, pos_of_row, one behind the other. */
static void fill_spans(int32_t *at, const struct cuda_spans *s, const struct phx_spans *spans)
{
    size_t   n = (size_t)s->n_seqs, bytes = n * sizeof(int32_t);
    int32_t *seq_of_row = at + n * (3 + (size_t)s->table_stride), *pos_of_row = seq_of_row + s->n_rows_total;

    if (n == 0)
        return;
    memcpy(at, spans->row, bytes);
    memcpy(at + n, spans->n_rows, bytes);
    memcpy(at + 2 * n, spans->pos, bytes);
    for (size_t i = 0; i < n && s->table_stride > 0; i++)
        memcpy(at + 3 * n + i * (size_t)s->table_stride, spans->table + i * (size_t)spans->table_stride,
               (size_t)s->table_stride * sizeof(int32_t));
    memset(seq_of_row, 0xff, 2 * (size_t)s->n_rows_total * sizeof(int32_t)); /* -1 */
    for (int32_t i = 0; i < s->n_seqs; i++)
        for (int32_t j = 0; j < spans->n_rows[i]; j++) {
            seq_of_row[spans->row[i] + j] = i;
            pos_of_row[spans->row[i] + j] = spans->pos[i] + j;
        }
}

int phx_cuda_spans(struct cuda_device *d, const struct phx_spans *spans, struct cuda_spans *out)
{
    struct cuda_staging *ring = &d->staging;
    struct cuda_spans    s;
    size_t               at, n, words;
    const int32_t       *device;

    if (are_staged(ring, spans)) {
        *out = ring->spans;
        return 0;
    }
    s = measure_spans(spans);
    n = (size_t)s.n_seqs;
    words = count_span_words(&s);
    at = reserve(d, words * sizeof(int32_t));
    if (at == SIZE_MAX)
        return -1;
    fill_spans((int32_t *)(void *)(ring->host + at), &s, spans);
    if (!send(d, at, words * sizeof(int32_t)))
        return -1;
    device = (const int32_t *)(const void *)(ring->device + at);
    s.row = device;
    s.n_rows = device + n;
    s.pos = device + 2 * n;
    s.table = spans->table != NULL ? device + 3 * n : NULL;
    s.seq_of_row = device + n * (3 + (size_t)s.table_stride);
    s.pos_of_row = s.seq_of_row + s.n_rows_total;
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

/* Where an upload is in its source. */
struct source {
    const unsigned char *row;
    size_t               row_bytes, offset, rows_left;
    int64_t              row_stride;
};

static size_t fill_slot(unsigned char *slot, struct source *s)
{
    size_t used = 0;

    while (used < CUDA_UPLOAD_SLOT_BYTES && s->rows_left > 0) {
        size_t n = s->row_bytes - s->offset, room = CUDA_UPLOAD_SLOT_BYTES - used;

        n = n < room ? n : room;
        memcpy(slot + used, s->row + s->offset, n);
        used += n;
        s->offset += n;
        if (s->offset == s->row_bytes) {
            s->offset = 0;
            s->row += --s->rows_left > 0 ? s->row_stride : 0;
        }
    }
    return used;
}

void phx_cuda_upload_rows(struct cuda_device *d, void *to, const void *host, size_t row_bytes, int64_t row_stride,
                          size_t n_rows)
{
    struct source  s = {host, row_bytes, 0, row_bytes > 0 ? n_rows : 0, row_stride};
    unsigned char *at = to;

    while (s.rows_left > 0) {
        int    i = take_slot(d);
        size_t n;

        if (i < 0)
            return;
        n = fill_slot(d->upload.slot[i], &s);
        if (!phx_cuda_check(d, cudaMemcpyAsync(at, d->upload.slot[i], n, cudaMemcpyHostToDevice, d->stream), "upload") ||
            !phx_cuda_check(d, cudaEventRecord(d->upload.is_free[i], d->stream), "upload"))
            return;
        at += n;
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
