/* SPDX-License-Identifier: Apache-2.0
 * Weights: sizes, memory, and the way from a checkpoint in host memory.  A source is cut into pieces of rows; the bytes
 * of a piece go through pinned memory as they are and land in the scratch, where a kernel converts and arranges them
 * while the next piece is on its way. */
#include "kernels/cuda/weight.h"

#include <stdlib.h>

#include "kernels/cuda/matmul.h"
#include "kernels/memory.h"

#ifndef PHX_CUDA_LANDING_BYTES /* the emulated build has less, so that its tests see many pieces */
#define PHX_CUDA_LANDING_BYTES ((int64_t)16 << 20)
#endif

static const char OP[] = "weight_pack";

static size_t block_bytes(enum phx_dtype dtype)
{
    switch (dtype) {
    case PHX_DTYPE_F32: return CUDA_F32_BLOCK_BYTES;
    case PHX_DTYPE_I8: return CUDA_I8_BLOCK_BYTES;
    case PHX_DTYPE_MXFP4: return CUDA_MX_BLOCK_BYTES;
    default: return CUDA_BF16_BLOCK_BYTES;
    }
}

struct cuda_cut phx_cuda_weight_cut(const struct phx_weight_desc *desc)
{
    struct cuda_cut cut = {.n_slices = desc->n_slices};
    int32_t         k = 0;

    for (int32_t s = 0; s < desc->n_slices; s++) {
        int32_t n = desc->slice_end[s] - k;

        cut.n_blocks += n / CUDA_BLOCK_K + (n % CUDA_BLOCK_K != 0);
        cut.n_groups += n / PHX_I8_GROUP + (n % PHX_I8_GROUP != 0);
        cut.k_end[s] = k = desc->slice_end[s];
        cut.block_end[s] = cut.n_blocks;
        cut.group_end[s] = cut.n_groups;
    }
    return cut;
}

static void plan_layout(struct cuda_weight *w, const struct phx_weight_desc *desc)
{
    *w = (struct cuda_weight){.desc = *desc, .cut = phx_cuda_weight_cut(desc)};
    w->n_tiles = desc->n / CUDA_TILE_ROWS + (desc->n % CUDA_TILE_ROWS != 0);
    w->tile_bytes = (size_t)w->cut.n_blocks * block_bytes(desc->dtype);
    if (desc->dtype == PHX_DTYPE_I8)
        w->tile_bytes += (size_t)w->cut.n_groups * CUDA_TILE_ROWS * sizeof(float);
    w->expert_bytes = w->tile_bytes * (size_t)w->n_tiles;
    w->total_bytes = w->expert_bytes * (size_t)desc->n_experts;
}

size_t phx_cuda_weight_bytes(const struct phx_weight_desc *desc)
{
    struct cuda_weight w;

    plan_layout(&w, desc);
    return w.total_bytes;
}

void *phx_cuda_weight_create(void *device, const struct phx_weight_desc *desc)
{
    struct cuda_device *d = device;
    struct cuda_weight *w = phx_memory_alloc(sizeof(*w));

    if (w == NULL)
        return NULL;
    plan_layout(w, desc);
    w->data = phx_cuda_take(d, w->total_bytes, "weight");
    if (w->data == NULL ||
        (w->total_bytes > 0 && !phx_cuda_check(d, cudaMemsetAsync(w->data, 0, w->total_bytes, d->stream), "weight"))) {
        phx_cuda_weight_destroy(d, w);
        return NULL;
    }
    phx_cuda_matmul_reserve(d, w);
    return w;
}

void phx_cuda_weight_destroy(void *device, void *weight)
{
    struct cuda_weight *w = weight;

    phx_cuda_drop(device, w->data);
    phx_memory_free(w);
}

struct cuda_weight_view phx_cuda_weight_look(const struct cuda_weight *w)
{
    return (struct cuda_weight_view){.data = w->data, .tile_bytes = w->tile_bytes, .expert_bytes = w->expert_bytes,
                                     .dtype = w->desc.dtype, .n = w->desc.n, .k = w->desc.k, .cut = w->cut};
}

/* ---- packing --------------------------------------------------------------------------------- */

static int64_t size_of(enum phx_dtype dtype)
{
    switch (dtype) {
    case PHX_DTYPE_F32: return 4;
    case PHX_DTYPE_BF16:
    case PHX_DTYPE_F16: return 2;
    default: return 1; /* 8-bit kinds; MXFP4 in bytes */
    }
}

/* A source as [rows][k] elements of `size` bytes; of MXFP4 the elements are its bytes. */
struct grid {
    const unsigned char *data;
    int64_t              k, row_stride, k_stride, size;
    size_t               scale_bytes; /* of a row */
    bool                 is_by_rows;  /* what is closest together belongs to a row, not to a k */
};

static struct grid see_grid(const struct cuda_weight *w, const struct phx_weight_source *s)
{
    struct grid g = {.data = s->data, .k = w->desc.k, .row_stride = s->row_stride, .k_stride = s->k_stride,
                     .size = size_of(s->dtype)};

    if (s->dtype == PHX_DTYPE_MXFP4) {
        g.k = w->desc.k / 2;
        g.scale_bytes = (size_t)w->cut.n_blocks;
    }
    if (s->dtype == PHX_DTYPE_I8)
        g.scale_bytes = (size_t)w->cut.n_groups * sizeof(float);
    if (s->dtype == PHX_DTYPE_MXFP4 || s->dtype == PHX_DTYPE_I8)
        g.k_stride = 1;
    g.is_by_rows = llabs(g.k_stride) <= llabs(g.row_stride);
    return g;
}

/* Some rows of a grid as lines of bytes without gaps that matter. */
struct lines {
    int64_t count, bytes, stride; /* a line, and from one to the next */
    int64_t first;                /* of line 0, from the rows' element (0, 0) */
};

static struct lines cut_lines(const struct grid *g, int64_t n_rows)
{
    int64_t      inner = g->is_by_rows ? g->k : n_rows, step = g->is_by_rows ? g->k_stride : g->row_stride;
    struct lines l = {.count = g->is_by_rows ? n_rows : g->k, .stride = g->is_by_rows ? g->row_stride : g->k_stride};

    l.bytes = (inner - 1) * llabs(step) + g->size;
    l.first = step < 0 ? (inner - 1) * step : 0;
    return l;
}

/* How many of `left` rows fit in the landing; one always does, which then grows. */
static int64_t count_rows(const struct grid *g, int64_t left, int32_t first_row)
{
    int64_t n = left, whole;

    while (n > 1 && cut_lines(g, n).count * cut_lines(g, n).bytes > PHX_CUDA_LANDING_BYTES)
        n = n / 2;
    whole = (first_row + n) / CUDA_TILE_ROWS * CUDA_TILE_ROWS - first_row;
    return n < left && whole > 0 ? whole : n; /* no tile is then written twice */
}

enum { SOURCE_BYTES_MAX = 8 }; /* of an element: four, in every other row of its line */

size_t phx_cuda_weight_scratch(const struct phx_weight_desc *desc)
{
    struct cuda_cut cut = phx_cuda_weight_cut(desc);
    size_t          n = (size_t)desc->n, k = (size_t)desc->k, landing = (size_t)PHX_CUDA_LANDING_BYTES;
    size_t          row = k * SOURCE_BYTES_MAX, data, scales = 0, least = k; /* least: a row that has scales */

    if (n == 0 || k == 0)
        return 0;
    data = n * row < landing ? n * row : landing > row ? landing : row;
    if (desc->dtype == PHX_DTYPE_MXFP4) {
        least = k / 2;
        scales = (size_t)cut.n_blocks;
    } else if (desc->dtype == PHX_DTYPE_I8)
        scales = (size_t)cut.n_groups * sizeof(float);
    n = n * least < landing ? n : landing > least ? landing / least : 1;
    return cuda_round_up(data, CUDA_ALIGN_BYTES) + cuda_round_up(n * scales, CUDA_ALIGN_BYTES);
}

static bool pack_piece(struct cuda_device *d, const struct cuda_weight *w, const struct phx_weight_source *s,
                       const struct grid *g, int32_t row, int32_t n)
{
    struct lines         l = cut_lines(g, n);
    size_t               data_bytes = cuda_round_up((size_t)l.count * (size_t)l.bytes, CUDA_ALIGN_BYTES);
    unsigned char       *landing = phx_cuda_scratch(d, data_bytes + (size_t)n * g->scale_bytes);
    const unsigned char *from = g->data + row * g->row_stride + l.first;
    struct cuda_pack     p = {.data = w->data + (size_t)s->expert * w->expert_bytes, .tile_bytes = w->tile_bytes,
                              .cut = w->cut, .stored = w->desc.dtype, .source = s->dtype, .first_row = s->first_row + row,
                              .n_rows = n, .scale_row_stride = (int64_t)g->scale_bytes};
    int                  rc;

    if (landing == NULL)
        return false;
    p.from = landing - l.first;
    p.row_stride = g->is_by_rows ? l.bytes : g->row_stride;
    p.k_stride = g->is_by_rows ? g->k_stride : l.bytes;
    phx_cuda_upload_rows(d, landing, from, (size_t)l.bytes, l.stride, (size_t)l.count);
    if (g->scale_bytes > 0) {
        phx_cuda_upload_rows(d, landing + data_bytes, s->scale + row * s->scale_row_stride, g->scale_bytes,
                             s->scale_row_stride, (size_t)n);
        p.scale = landing + data_bytes;
    }
    rc = w->desc.dtype == PHX_DTYPE_MXFP4 ? phx_cuda_pack_mxfp4(d->stream, &p)
         : w->desc.dtype == PHX_DTYPE_I8  ? phx_cuda_pack_i8(d->stream, &p)
                                          : phx_cuda_pack_elements(d->stream, &p);
    return phx_cuda_check(d, rc, OP);
}

void phx_cuda_weight_pack(void *device, void *weight, const struct phx_weight_source *source)
{
    struct cuda_device       *d = device;
    const struct cuda_weight *w = weight;
    struct grid               g = see_grid(w, source);

    if (w->desc.k == 0)
        return;
    for (int32_t row = 0, n; row < source->n_rows; row += n) {
        n = (int32_t)count_rows(&g, source->n_rows - row, source->first_row + row);
        if (!pack_piece(d, w, source, &g, row, n))
            return;
    }
}
