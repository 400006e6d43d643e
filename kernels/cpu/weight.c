/* SPDX-License-Identifier: Apache-2.0
 * Packing weights into panels (layouts: isa.h). */
#include <math.h>
#include <string.h>

#include "kernels/cpu/weight.h"
#include "kernels/memory.h"

enum { CACHE_LINE = 64, STAGE_K = 64, TAME_SCALE_MIN = 127 - 40, TAME_SCALE_MAX = 127 + 40 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Where each slice begins, in blocks and in units of the layout, and how many of both there are. */
static void place_slices(struct cpu_weight *w)
{
    const struct phx_weight_desc *d = &w->desc;
    int32_t                       blocks = 0, groups = 0, k = 0;
    int32_t                       block_k = d->dtype == PHX_DTYPE_I8 ? I8_BLOCK_K : BLOCK_K;
    bool                          is_blocks = d->dtype == PHX_DTYPE_MXFP4 || d->dtype == PHX_DTYPE_I8;

    for (int32_t s = 0; s < d->n_slices; s++) {
        w->slice_begin[s] = d->dtype == PHX_DTYPE_BF16 ? blocks * (BLOCK_K / 2) : is_blocks ? blocks : k;
        blocks += (d->slice_end[s] - k + block_k - 1) / block_k;
        groups += (d->slice_end[s] - k + PHX_I8_GROUP - 1) / PHX_I8_GROUP;
        w->block_end[s] = blocks;
        w->group_end[s] = groups;
        k = d->slice_end[s];
    }
    w->n_blocks = blocks;
    w->n_groups = groups;
    w->units = d->dtype == PHX_DTYPE_BF16 ? blocks * (BLOCK_K / 2) : is_blocks ? blocks : d->k;
}

static void plan_layout(struct cpu_weight *w, const struct phx_weight_desc *desc)
{
    size_t unit_bytes = desc->dtype == PHX_DTYPE_MXFP4 ? MX_DATA_BYTES + LANES
                        : desc->dtype == PHX_DTYPE_I8  ? LANES * I8_BLOCK_K
                        : desc->dtype == PHX_DTYPE_F16 ? LANES * 2
                                                       : LANES * 4;

    w->desc = *desc;
    w->n_panels = (desc->n + LANES - 1) / LANES;
    place_slices(w);
    w->panel_bytes = round_up((size_t)w->units * unit_bytes, CACHE_LINE);
    if (desc->dtype == PHX_DTYPE_I8)
        w->panel_bytes += (size_t)w->n_groups * LANES * sizeof(float);
    w->expert_bytes = w->panel_bytes * (size_t)w->n_panels;
    w->total_bytes = w->expert_bytes * (size_t)desc->n_experts;
}

size_t phx_cpu_weight_bytes(const struct phx_weight_desc *desc)
{
    struct cpu_weight w;

    plan_layout(&w, desc);
    return w.total_bytes;
}

void *phx_cpu_weight_create(void *device, const struct phx_weight_desc *desc)
{
    struct cpu_weight *w = phx_memory_alloc(sizeof(*w));

    (void)device; /* host memory needs no device */
    if (w == NULL)
        return NULL;
    plan_layout(w, desc);
    w->data = phx_memory_alloc(w->total_bytes);
    if (w->data == NULL) {
        phx_memory_free(w);
        return NULL;
    }
    return w;
}

void phx_cpu_weight_destroy(void *device, void *weight)
{
    struct cpu_weight *w = weight;

    (void)device;
    phx_memory_free(w->data);
    phx_memory_free(w);
}

static float float_of(uint32_t bits)
{
    float f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static uint32_t bits_of(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static float f16_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, e = (h >> 10) & 31u, m = h & 0x3ffu;

    if (e == 31)
        return float_of(sign | 0x7f800000u | (m << 13));
    if (e == 0)
        return float_of(sign | bits_of((float)m * 0x1p-24f));
    return float_of(sign | ((e + 112u) << 23) | (m << 13));
}

/* E4M3FN: bias 7, no infinities, NaN 0x7f and 0xff; E5M2: bias 15, IEEE-like. */
static float f8_to_float(uint8_t b, bool is_e5m2)
{
    int   bits = is_e5m2 ? 2 : 3, bias = is_e5m2 ? 15 : 7;
    int   e = (b & 0x7f) >> bits, m = b & ((1 << bits) - 1);
    float f;

    if (!is_e5m2 && (b & 0x7f) == 0x7f)
        f = NAN;
    else if (is_e5m2 && e == 31)
        f = m != 0 ? NAN : INFINITY;
    else if (e == 0)
        f = ldexpf((float)m, 1 - bias - bits);
    else
        f = ldexpf((float)(m + (1 << bits)), e - bias - bits);
    return (b & 0x80) != 0 ? -f : f;
}

static size_t size_of(enum phx_dtype dtype)
{
    if (dtype == PHX_DTYPE_F8_E4M3 || dtype == PHX_DTYPE_F8_E5M2)
        return 1;
    return dtype == PHX_DTYPE_F32 ? 4 : 2;
}

/* ---- from anything to rows of stored elements ------------------------------------------------ */

/* A few k of 16 rows, as they will be stored; the panel's order comes after. */
struct stage {
    unsigned char row[LANES][STAGE_K * 4];
};

#define INLINE static inline __attribute__((always_inline))

INLINE void stage_element(const enum phx_dtype source, const enum phx_dtype stored, const float *f8,
                          unsigned char *to, const unsigned char *from)
{
    uint16_t h;
    float    f;

    if (source == stored) {
        memcpy(to, from, stored == PHX_DTYPE_F32 ? 4 : 2);
        return;
    }
    if (source == PHX_DTYPE_BF16 || source == PHX_DTYPE_F16) {
        memcpy(&h, from, sizeof(h));
        f = source == PHX_DTYPE_F16 ? f16_to_float(h) : float_of((uint32_t)h << 16);
    } else
        f = f8[*from];
    if (stored == PHX_DTYPE_F32)
        memcpy(to, &f, sizeof(f));
    else { /* from an 8-bit float: the top half holds all of it */
        h = (uint16_t)(bits_of(f) >> 16);
        memcpy(to, &h, sizeof(h));
    }
}

struct strip {
    const unsigned char *const *rows; /* n_lanes of them */
    int32_t                     n_lanes, k, n;
};

/* Rows outermost, or k outermost when that is how the source lies. */
INLINE void fill_as(const enum phx_dtype source, const enum phx_dtype stored,
                    const struct pack_job *job, struct stage *stage, const struct strip *t)
{
    const int64_t step = job->source->k_stride;
    const size_t  bytes = stored == PHX_DTYPE_F32 ? 4 : 2;

    if (step > job->source->row_stride)
        for (int32_t j = 0; j < t->n; j++)
            for (int32_t i = 0; i < t->n_lanes; i++)
                stage_element(source, stored, job->f8, stage->row[i] + (size_t)j * bytes,
                              t->rows[i] + (t->k + j) * step);
    else
        for (int32_t i = 0; i < t->n_lanes; i++)
            for (int32_t j = 0; j < t->n; j++)
                stage_element(source, stored, job->f8, stage->row[i] + (size_t)j * bytes,
                              t->rows[i] + (t->k + j) * step);
}

static void fill_stage(const struct pack_job *job, struct stage *stage, const struct strip *t)
{
    enum phx_dtype source = job->source->dtype, stored = job->w->desc.dtype;

    if (source == PHX_DTYPE_F32)
        fill_as(PHX_DTYPE_F32, PHX_DTYPE_F32, job, stage, t);
    else if (source == stored)
        fill_as(PHX_DTYPE_BF16, PHX_DTYPE_BF16, job, stage, t); /* two bytes as they are */
    else if (source == PHX_DTYPE_BF16)
        fill_as(PHX_DTYPE_BF16, PHX_DTYPE_F32, job, stage, t);
    else if (source == PHX_DTYPE_F16)
        fill_as(PHX_DTYPE_F16, PHX_DTYPE_F32, job, stage, t);
    else if (stored == PHX_DTYPE_F32) /* f8 says which of the two 8-bit kinds it is */
        fill_as(PHX_DTYPE_F8_E4M3, PHX_DTYPE_F32, job, stage, t);
    else
        fill_as(PHX_DTYPE_F8_E4M3, PHX_DTYPE_BF16, job, stage, t);
}

/* ---- from rows to the panel ------------------------------------------------------------------ */

/* dwords of a row to every 16th dword of the panel: pairs of bf16, floats, or nibbles. */
static void put_dwords(unsigned char *to, const unsigned char *from, int32_t n)
{
    for (int32_t j = 0; j < n; j++)
        memcpy(to + (size_t)j * LANES * 4, from + (size_t)j * 4, 4);
}

static void put_halves(unsigned char *to, const unsigned char *from, int32_t n)
{
    for (int32_t j = 0; j < n; j++)
        memcpy(to + (size_t)j * LANES * 2, from + (size_t)j * 2, 2);
}

/* n elements (k - k0 even for BF16) of slice s, from k on, to lanes lane_first ... */
static void put_rows(const struct cpu_weight *w, unsigned char *panel, const unsigned char *const *from,
                     int32_t lane_first, int32_t n_lanes, int32_t s, int32_t k, int32_t n)
{
    int32_t k0 = s > 0 ? w->desc.slice_end[s - 1] : 0;
    size_t  pair = (size_t)(w->slice_begin[s] + (k - k0) / 2);

    for (int32_t i = 0; i < n_lanes; i++) {
        size_t lane = (size_t)(lane_first + i);

        if (w->desc.dtype == PHX_DTYPE_F32)
            put_dwords(panel + ((size_t)k * LANES + lane) * 4, from[i], n);
        else if (w->desc.dtype == PHX_DTYPE_F16)
            put_halves(panel + ((size_t)k * LANES + lane) * 2, from[i], n);
        else {
            put_dwords(panel + (pair * LANES + lane) * 4, from[i], n / 2);
            if (n % 2 != 0)
                put_halves(panel + ((pair + (size_t)(n / 2)) * LANES + lane) * 4,
                           from[i] + (size_t)(n - 1) * 2, 1);
        }
    }
}

/* A plain source is read where it lies; both sides of a step stay in the first-level cache. */
static void pack_panel(const struct pack_job *job, unsigned char *panel,
                       const unsigned char *const *rows, int32_t lane_first, int32_t n_lanes)
{
    const struct cpu_weight *w = job->w;
    size_t                   bytes = size_of(w->desc.dtype);
    bool is_plain = job->source->dtype == w->desc.dtype && job->source->k_stride == (int64_t)bytes;
    struct stage stage;

    for (int32_t s = 0, k = 0; s < w->desc.n_slices; s++)
        for (int32_t n; k < w->desc.slice_end[s]; k += n) {
            const unsigned char *from[LANES];
            int32_t              most = is_plain ? LANES : STAGE_K;

            n = w->desc.slice_end[s] - k < most ? w->desc.slice_end[s] - k : most;
            for (int32_t i = 0; i < n_lanes; i++)
                from[i] = is_plain ? rows[i] + (size_t)k * bytes : stage.row[i];
            if (!is_plain)
                fill_stage(job, &stage, &(struct strip){rows, n_lanes, k, n});
            put_rows(w, panel, from, lane_first, n_lanes, s, k, n);
        }
}

static void pack_panel_mxfp4(const struct pack_job *job, unsigned char *panel, int32_t row,
                             int32_t lane_first, int32_t n_lanes)
{
    const struct phx_weight_source *src = job->source;
    int32_t        n_blocks = job->w->units;
    unsigned char *scales = panel + (size_t)n_blocks * MX_DATA_BYTES;
    bool           is_wild = false;

    for (int32_t b = 0; b < n_blocks; b++)
        for (int32_t i = 0; i < n_lanes; i++) {
            const unsigned char *from = (const unsigned char *)src->data +
                                        (int64_t)(row + i) * src->row_stride + (int64_t)b * 16;
            uint8_t              scale;

            put_dwords(panel + (size_t)b * MX_DATA_BYTES + (size_t)(lane_first + i) * 4, from, 4);
            scale = src->scale[(int64_t)(row + i) * src->scale_row_stride + b];
            scales[(size_t)b * LANES + (size_t)(lane_first + i)] = scale;
            is_wild = is_wild || scale < TAME_SCALE_MIN || scale > TAME_SCALE_MAX;
        }
    if (is_wild) /* threads may all say so */
        __atomic_store_n(&job->w->is_wild, true, __ATOMIC_RELAXED);
}

void phx_weight_floats(const struct pack_job *job, float *out, int64_t out_stride, const unsigned char *const *rows,
                       int32_t n_lanes, int32_t k, int32_t n)
{
    enum phx_dtype source = job->source->dtype;
    struct stage   stage;

    for (int32_t j = 0; j < n; j += STAGE_K) {
        struct strip t = {rows, n_lanes, k + j, n - j < STAGE_K ? n - j : STAGE_K};

        if (source == PHX_DTYPE_F32)
            fill_as(PHX_DTYPE_F32, PHX_DTYPE_F32, job, &stage, &t);
        else if (source == PHX_DTYPE_BF16)
            fill_as(PHX_DTYPE_BF16, PHX_DTYPE_F32, job, &stage, &t);
        else if (source == PHX_DTYPE_F16)
            fill_as(PHX_DTYPE_F16, PHX_DTYPE_F32, job, &stage, &t);
        else
            fill_as(PHX_DTYPE_F8_E4M3, PHX_DTYPE_F32, job, &stage, &t);
        for (int32_t i = 0; i < n_lanes; i++)
            memcpy(out + i * out_stride + j, stage.row[i], (size_t)t.n * sizeof(float));
    }
}

/* Units: panels that the source touches; the first and the last may be touched in part. */
static void pack_panels(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct pack_job          *job = ctx;
    const struct phx_weight_source *src = job->source;
    struct cpu_weight              *w = job->w;
    int32_t                         panel_first = src->first_row / LANES;

    (void)member; /* the share says it all */
    for (int32_t p = panel_first + first; p < panel_first + end; p++) {
        int32_t        n0 = p * LANES, begin = n0 > src->first_row ? n0 : src->first_row;
        int32_t        stop = src->first_row + src->n_rows;
        int32_t        n_lanes, row = begin - src->first_row;
        unsigned char *panel = w->data + (size_t)src->expert * w->expert_bytes +
                               (size_t)p * w->panel_bytes;
        const unsigned char *rows[LANES];

        stop = stop < n0 + LANES ? stop : n0 + LANES;
        n_lanes = stop - begin;
        for (int32_t i = 0; i < n_lanes; i++)
            rows[i] = (const unsigned char *)src->data + (int64_t)(row + i) * src->row_stride;
        if (w->desc.dtype == PHX_DTYPE_MXFP4)
            pack_panel_mxfp4(job, panel, row, begin - n0, n_lanes);
        else if (w->desc.dtype == PHX_DTYPE_I8)
            phx_weight_pack_i8(job, panel, rows, row, begin - n0, n_lanes);
        else
            pack_panel(job, panel, rows, begin - n0, n_lanes);
    }
}

void phx_weight_open_job(struct pack_job *job, const struct isa *isa, const struct phx_weight_source *source)
{
    bool is_f8 = source->dtype == PHX_DTYPE_F8_E4M3 || source->dtype == PHX_DTYPE_F8_E5M2;

    *job = (struct pack_job){.source = source, .i8 = phx_i8_pick(isa)};
    for (int i = 0; is_f8 && i < 256; i++)
        job->f8[i] = f8_to_float((uint8_t)i, source->dtype == PHX_DTYPE_F8_E5M2);
}

void phx_cpu_weight_pack(void *device, void *weight, const struct phx_weight_source *source)
{
    struct cpu_device *d = device;
    struct pack_job    job;
    int32_t            panel_first = source->first_row / LANES;
    int32_t            panel_end = (source->first_row + source->n_rows + LANES - 1) / LANES;

    phx_weight_open_job(&job, d->isa, source);
    job.w = weight;
    if (source->n_rows > 0)
        phx_team_run(d->team, panel_end - panel_first, pack_panels, &job);
}

/* ---- reading back ---------------------------------------------------------------------------- */

static void read_block_mxfp4(const unsigned char *data, uint8_t scale, size_t lane, float *out)
{
    static const float values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    float factor = scale == 255 ? NAN : scale == 0 ? 0x1p-127f : float_of((uint32_t)scale << 23);

    for (size_t i = 0; i < PHX_MX_BLOCK; i++) {
        uint32_t d;
        unsigned nibble;

        memcpy(&d, data + i / 8 * 64 + lane * 4, 4);
        nibble = (d >> (4 * (i % 8))) & 15u;
        out[i] = ((nibble & 8u) != 0 ? -values[nibble & 7u] : values[nibble & 7u]) * factor;
    }
}

/* BF16: the halves of pairs, slice by slice. */
static void read_row_bf16(const struct cpu_weight *w, const unsigned char *panel, size_t lane, float *out)
{
    for (int32_t s = 0, k = 0; s < w->desc.n_slices; s++)
        for (int32_t k0 = k; k < w->desc.slice_end[s]; k++) {
            size_t   pair = (size_t)(w->slice_begin[s] + (k - k0) / 2);
            uint16_t h;

            memcpy(&h, panel + (pair * LANES + lane) * 4 + (size_t)((k - k0) & 1) * 2, 2);
            out[k] = float_of((uint32_t)h << 16);
        }
}

void phx_cpu_weight_row(const struct cpu_weight *w, int32_t row, float *out)
{
    const unsigned char *panel = w->data + (size_t)(row / LANES) * w->panel_bytes;
    const unsigned char *scales = panel + (size_t)w->units * MX_DATA_BYTES;
    size_t               lane = (size_t)(row % LANES);

    if (w->desc.dtype == PHX_DTYPE_BF16) {
        read_row_bf16(w, panel, lane, out);
        return;
    }
    if (w->desc.dtype == PHX_DTYPE_I8) {
        phx_weight_read_i8(w, panel, lane, out);
        return;
    }
    for (size_t k = 0; k < (size_t)w->desc.k; k++)
        if (w->desc.dtype == PHX_DTYPE_F32)
            memcpy(&out[k], panel + (k * LANES + lane) * 4, 4);
        else if (w->desc.dtype == PHX_DTYPE_F16) {
            uint16_t h;

            memcpy(&h, panel + (k * LANES + lane) * 2, 2);
            out[k] = f16_to_float(h);
        } else if (k % PHX_MX_BLOCK == 0)
            read_block_mxfp4(panel + k / PHX_MX_BLOCK * MX_DATA_BYTES,
                             scales[k / PHX_MX_BLOCK * LANES + lane], lane, out + k);
}
