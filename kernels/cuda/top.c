/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/top.h"

enum { ROWS_MAX = 65535 }; /* of a grid's y */

static int32_t count_segments(int32_t n)
{
    return (n - 1) / CUDA_TOP_SEGMENT + 1;
}

/* Keys that the launches of a row keep, and sums; in bytes. */
static size_t count_bytes(const struct cuda_top_call *c)
{
    size_t  bytes = (size_t)c->n_sums * 2 * sizeof(float);
    int32_t n = c->n_sums * c->width;

    return bytes + ((size_t)n + (size_t)count_segments(n) * (size_t)c->width) * sizeof(uint64_t);
}

/* All launches for the n_rows rows of c, which reads logits. */
static void find_top(struct cuda_device *d, struct cuda_top_call c, unsigned char *scratch)
{
    size_t    keys = (size_t)c.n_rows * (size_t)c.n_sums * (size_t)c.width;
    uint64_t *kept[2] = {(uint64_t *)(void *)scratch, (uint64_t *)(void *)scratch + keys};
    bool      is_ok = true;

    c.sums = (float *)(void *)(kept[1] + (size_t)c.n_rows * (size_t)count_segments(c.n_sums * c.width) * (size_t)c.width);
    for (int turn = 0; is_ok; turn ^= 1) {
        c.n_segments = count_segments(c.n);
        c.out = c.n_segments > 1 ? kept[turn] : NULL;
        is_ok = phx_cuda_check(d, phx_cuda_top_segments(d->stream, &c), "top");
        if (c.out == NULL)
            return;
        c.in = c.out;
        c.n = c.n_segments * c.width;
    }
}

static int32_t width_of(int32_t top_k)
{
    int32_t width = 1;

    while (width < top_k)
        width *= 2;
    return width;
}

static int32_t count_batch(int32_t n_rows, size_t row_bytes)
{
    int32_t batch = row_bytes < PHX_CUDA_TOP_BYTES ? (int32_t)(PHX_CUDA_TOP_BYTES / row_bytes) : 1;

    batch = batch < ROWS_MAX ? batch : ROWS_MAX;
    return batch < n_rows ? batch : n_rows;
}

size_t phx_cuda_top_scratch(int32_t n_rows, int32_t columns, int32_t top_k)
{
    struct cuda_top_call c = {.n_sums = count_segments(columns), .width = width_of(top_k)};
    size_t               row_bytes = count_bytes(&c), most = row_bytes > PHX_CUDA_TOP_BYTES ? row_bytes : PHX_CUDA_TOP_BYTES;

    return (size_t)n_rows < most / row_bytes ? (size_t)n_rows * row_bytes : most;
}

void phx_cuda_top(void *device, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
                  struct phx_tensor logits)
{
    struct cuda_device  *d = device;
    struct cuda_top_call c = {.logits_stride = logits.stride0, .n = logits.dim[1], .width = width_of(ids.dim[1]), .top_k = ids.dim[1],
                              .ids_stride = ids.stride0, .values_stride = values.stride0, .lse_stride = lse.stride0};
    int32_t              batch;
    size_t               row_bytes;
    void                *scratch;

    c.n_sums = count_segments(c.n);
    row_bytes = count_bytes(&c);
    batch = count_batch(logits.dim[0], row_bytes);
    if (batch == 0)
        return;
    scratch = phx_cuda_scratch(d, (size_t)batch * row_bytes);
    for (int32_t t = 0; t < logits.dim[0] && scratch != NULL; t += batch) {
        c.logits = (const float *)logits.data + t * logits.stride0;
        c.ids = (int32_t *)ids.data + t * ids.stride0;
        c.values = (float *)values.data + t * values.stride0;
        c.lse = (float *)lse.data + t * lse.stride0;
        c.n_rows = logits.dim[0] - t < batch ? logits.dim[0] - t : batch;
        find_top(d, c, scratch);
    }
}
