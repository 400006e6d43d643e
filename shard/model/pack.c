/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/model/pack.h"

#include <math.h>
#include <string.h>

#include "rpc/base/mem.h"

/* A device is waited for seldom, so that it copies and packs while the next bytes are read. */
enum { PANEL_ROWS = 16, SCALE_NAN = 255, UNCHECKED_BYTES = 512 << 20 };

enum phx_dtype phx_pack_dtype(const struct phx_ckpt_tensor *t)
{
    switch (t->dtype) {
    case PHX_CKPT_F32:
        return PHX_DTYPE_F32;
    case PHX_CKPT_BF16:
        return PHX_DTYPE_BF16;
    case PHX_CKPT_F16:
        return PHX_DTYPE_F16;
    case PHX_CKPT_I8:
        return PHX_DTYPE_I8;
    default:
        return PHX_DTYPE_NONE;
    }
}

enum phx_dtype phx_pack_wider(enum phx_dtype a, enum phx_dtype b)
{
    return a == b ? a : PHX_DTYPE_F32;
}

static int64_t element_bytes(const struct phx_ckpt_tensor *t)
{
    return phx_ckpt_dtype_bits(t->dtype) / 8;
}

static int check_backend(struct phx_packer *p, const char *name, int code, struct phx_err *err)
{
    const char *what = NULL;
    if (phx_backend_sync(p->backend, &what) == 0)
        return 0;
    return phx_fail(err, code, "%s: %s", name, what != NULL ? what : "the backend failed");
}

static int check_packed(struct phx_packer *p, const char *name, uint64_t size_bytes, struct phx_err *err)
{
    const char *what = NULL;

    p->unchecked_bytes += size_bytes;
    if (phx_backend_is_host(p->backend))
        return check_backend(p, name, PHX_E_INTERNAL, err);
    if (p->unchecked_bytes < UNCHECKED_BYTES)
        return 0;
    p->unchecked_bytes = 0;
    if (phx_backend_sync(p->backend, &what) == 0)
        return 0;
    return phx_fail(err, PHX_E_INTERNAL, "%s, or a tensor before it: %s", name,
                    what != NULL ? what : "the backend failed");
}

int phx_pack_finish(struct phx_packer *p, struct phx_err *err)
{
    return check_backend(p, "weights", PHX_E_INTERNAL, err);
}

int phx_pack_create(struct phx_packer *p, const char *what, const struct phx_weight_desc *desc,
                    struct phx_weight **out, struct phx_err *err)
{
    size_t size_bytes = phx_weight_bytes(p->backend, desc);
    *out = NULL;
    if (p->is_listing)
        return 0;
    *out = phx_weight_create(p->backend, desc);
    int code = *out == NULL ? check_backend(p, what, PHX_E_NOMEM, err) : 0;
    if (code != 0)
        return code;
    if (*out == NULL)
        return phx_fail(err, PHX_E_NOMEM, "%s: no memory for %zu bytes of weights", what, size_bytes);
    p->allocated_bytes += size_bytes;
    return 0;
}

int phx_pack_alloc(struct phx_packer *p, const char *what, int32_t rows, int32_t columns,
                   struct phx_tensor *out, struct phx_err *err)
{
    size_t size_bytes = (size_t)rows * (size_t)columns * sizeof(float);
    if (p->is_listing)
        return 0;
    void *data = phx_backend_alloc(p->backend, size_bytes);
    if (data == NULL) {
        int code = check_backend(p, what, PHX_E_NOMEM, err); /* a device knows more */
        return code != 0 ? code : phx_fail(err, PHX_E_NOMEM, "%s: no memory for %zu bytes", what, size_bytes);
    }
    p->allocated_bytes += size_bytes;
    *out = phx_view(data, rows, columns);
    return 0;
}

static void advance(struct phx_packer *p, uint64_t bytes)
{
    p->done_bytes += bytes;
    if (p->progress != NULL)
        p->progress(p->progress_ctx, p->done_bytes, p->total_bytes);
}

/* ---- matrices ------------------------------------------------------------------------------- */

/* The byte range of a rectangle's rows [from, to) in its tensor, and the source that packs them. */
struct piece {
    struct phx_weight_source source;
    uint64_t                 offset, size_bytes;
    uint64_t                 useful_bytes;
};

static struct piece piece_out_in(const struct phx_rect *r, int32_t from, int32_t to)
{
    const struct phx_ckpt_tensor *t = r->tensor;
    int64_t      es = element_bytes(t), ld = t->dim[1];
    int64_t      first = r->row + (int64_t)from * r->row_step;
    int64_t      last = r->row + (int64_t)(to - 1) * r->row_step;
    struct piece p = {
        .source = {.data = t->data + (first * ld + r->k) * es, .dtype = phx_pack_dtype(t),
                   .row_stride = r->row_step * ld * es, .k_stride = es},
        .offset = (uint64_t)(first * ld * es),
        .size_bytes = (uint64_t)((last - first + 1) * ld * es),
        .useful_bytes = (uint64_t)((int64_t)(to - from) * r->n_k * es),
    };
    if (r->scales != NULL) { /* of int8 values */
        int64_t groups = r->scales->dim[1];
        p.source.scale = r->scales->data + (first * groups + r->group) * (int64_t)sizeof(float);
        p.source.scale_row_stride = r->row_step * groups * (int64_t)sizeof(float);
    }
    return p;
}

static struct piece piece_in_out(const struct phx_rect *r, int32_t from, int32_t to)
{
    const struct phx_ckpt_tensor *t = r->tensor;
    int64_t      es = element_bytes(t), ld = t->dim[2], matrix = t->dim[1] * ld;
    int64_t      base = r->expert * matrix + r->k * ld;
    struct piece p = {
        .source = {.data = t->data + (base + r->row + (int64_t)from * r->row_step) * es,
                   .dtype = phx_pack_dtype(t), .row_stride = r->row_step * es, .k_stride = ld * es},
        .offset = (uint64_t)(base * es),
        .size_bytes = (uint64_t)(r->n_k * ld * es),
        .useful_bytes = (uint64_t)((int64_t)(to - from) * r->n_k * es),
    };
    return p;
}

static struct piece piece_blocks(const struct phx_rect *r, int32_t from, int32_t to)
{
    const struct phx_ckpt_tensor *t = r->tensor;
    int64_t      blocks = t->dim[2], block_bytes = t->dim[3], k = r->k / PHX_MX_BLOCK;
    int64_t      first = r->expert * t->dim[1] + r->row + (int64_t)from * r->row_step;
    int64_t      span = (int64_t)(to - from - 1) * r->row_step + 1;
    struct piece p = {
        .source = {.data = t->data + (first * blocks + k) * block_bytes, .dtype = PHX_DTYPE_MXFP4,
                   .row_stride = r->row_step * blocks * block_bytes,
                   .scale = r->scales->data + first * blocks + k,
                   .scale_row_stride = r->row_step * blocks},
        .offset = (uint64_t)(first * blocks * block_bytes),
        .size_bytes = (uint64_t)(span * blocks * block_bytes),
        .useful_bytes = (uint64_t)((int64_t)(to - from) * r->n_k / 2),
    };
    return p;
}

/* A scale of 255 is NaN by the format: the whole block would be poison. */
static int check_scales(const struct phx_rect *r, const struct phx_weight_source *source,
                        struct phx_err *err)
{
    for (int32_t i = 0; i < source->n_rows; i++) {
        const uint8_t *row = source->scale + (int64_t)i * source->scale_row_stride;
        if (memchr(row, SCALE_NAN, (size_t)(r->n_k / PHX_MX_BLOCK)) != NULL)
            return phx_fail(err, PHX_E_FORMAT, "tensor %s: expert %d, row %lld has a NaN scale (255)",
                            r->scales->name, r->expert,
                            (long long)(r->row + (int64_t)i * r->row_step));
    }
    return 0;
}

/* No negative ones, no infinity, no NaN. */
static int check_float_scales(const struct phx_rect *r, const struct phx_weight_source *source,
                              struct phx_err *err)
{
    int64_t n = r->scales->dim[1] - r->group; /* of a row from the first one used on */
    for (int32_t i = 0; i < source->n_rows; i++)
        for (int64_t g = 0; g < n; g++) {
            float scale;
            memcpy(&scale, source->scale + i * source->scale_row_stride + g * (int64_t)sizeof scale,
                   sizeof scale);
            if (!(scale >= 0 && scale < INFINITY))
                return phx_fail(err, PHX_E_FORMAT, "tensor %s: group %lld of row %lld has a scale that is no size",
                                r->scales->name, (long long)(r->group + g),
                                (long long)(r->row + (int64_t)i * r->row_step));
        }
    return 0;
}

/* Rows at a time: all where the source is not row-major, else whole panels of about chunk_bytes. */
static int32_t chunk_rows(const struct phx_packer *p, const struct phx_rect *r)
{
    if (r->lie != PHX_LIE_OUT_IN)
        return r->n_rows;
    int64_t row_bytes = r->tensor->dim[1] * element_bytes(r->tensor);
    int64_t rows = p->chunk_bytes / (row_bytes > 0 ? row_bytes : 1) / PANEL_ROWS * PANEL_ROWS;
    rows = rows < PANEL_ROWS ? PANEL_ROWS : rows;
    return rows < r->n_rows ? (int32_t)rows : r->n_rows;
}

int phx_pack_rect(struct phx_packer *p, struct phx_weight *w, const struct phx_rect *r,
                  struct phx_err *err)
{
    int32_t step = chunk_rows(p, r);
    for (int32_t from = 0; from < r->n_rows; from += step) {
        int32_t      to = from + step < r->n_rows ? from + step : r->n_rows;
        struct piece piece = r->lie == PHX_LIE_BLOCKS   ? piece_blocks(r, from, to)
                             : r->lie == PHX_LIE_IN_OUT ? piece_in_out(r, from, to)
                                                        : piece_out_in(r, from, to);
        piece.source.expert = r->expert;
        piece.source.first_row = r->dst_row + from;
        piece.source.n_rows = to - from;
        if (p->is_listing) {
            phx_ahead_add(p->ahead, r->tensor, piece.offset, piece.size_bytes);
            p->total_bytes += piece.useful_bytes;
            continue;
        }
        int code = r->lie == PHX_LIE_BLOCKS ? check_scales(r, &piece.source, err)
                   : r->scales != NULL      ? check_float_scales(r, &piece.source, err)
                                            : 0;
        if (code != 0)
            return code;
        phx_weight_pack(p->backend, w, &piece.source);
        code = check_packed(p, r->tensor->name, piece.size_bytes, err);
        if (code != 0)
            return code;
        if (!r->is_kept)
            phx_checkpoint_drop(r->tensor, piece.offset, piece.size_bytes);
        if (p->ahead != NULL)
            phx_ahead_done(p->ahead);
        advance(p, piece.useful_bytes);
    }
    return 0;
}

/* ---- vectors -------------------------------------------------------------------------------- */

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Exact: every half is a float. */
static float float_of_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, mantissa = h & 1023u;
    if (exponent == 31)
        return float_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0)
        return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
    float value = (float)mantissa * 0x1p-24f; /* zero and subnormals */
    return sign != 0 ? -value : value;
}

static float element(const struct phx_ckpt_tensor *t, int64_t i)
{
    uint16_t half;
    float    value;
    switch (t->dtype) {
    case PHX_CKPT_BF16:
        memcpy(&half, t->data + i * 2, sizeof half);
        return float_of_bits((uint32_t)half << 16);
    case PHX_CKPT_F16:
        memcpy(&half, t->data + i * 2, sizeof half);
        return float_of_half(half);
    default:
        memcpy(&value, t->data + i * 4, sizeof value);
        return value;
    }
}

int phx_pack_vector(struct phx_packer *p, const struct phx_ckpt_tensor *t, int64_t first,
                    int64_t step, int32_t n, struct phx_tensor dst, int64_t dst_first,
                    struct phx_err *err)
{
    if (p->is_listing) {
        p->total_bytes += (uint64_t)n * sizeof(float);
        return 0;
    }
    float *host = phx_mem_try((size_t)n, sizeof *host);
    if (host == NULL)
        return phx_fail(err, PHX_E_NOMEM, "tensor %s: no memory for %d values", t->name, n);
    for (int32_t i = 0; i < n; i++)
        host[i] = element(t, first + i * step);
    phx_upload(p->backend, (float *)dst.data + dst_first, host, (size_t)n * sizeof *host);
    int code = check_packed(p, t->name, (uint64_t)n * sizeof *host, err);
    phx_mem_free(host);
    advance(p, (uint64_t)n * sizeof *host);
    return code;
}
