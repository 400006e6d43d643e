/* SPDX-License-Identifier: Apache-2.0
 * Packing weights into panels (layouts: isa.h). */
#include <math.h>
#include <string.h>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/memory.h"

enum { CACHE_LINE = 64 };

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

/* Units of the layout along k, and where each slice begins. */
static int32_t place_slices(const struct phx_weight_desc *d, int32_t begin[PHX_SLICES_MAX])
{
    int32_t units = 0, k = 0;

    for (int32_t s = 0; s < d->n_slices; s++) {
        begin[s] = d->dtype == PHX_DTYPE_BF16    ? units
                   : d->dtype == PHX_DTYPE_MXFP4 ? k / PHX_MX_BLOCK
                                                 : k;
        units += (d->slice_end[s] - k + 1) / 2; /* pairs; each slice starts a new one */
        k = d->slice_end[s];
    }
    if (d->dtype == PHX_DTYPE_BF16)
        return units;
    return d->dtype == PHX_DTYPE_MXFP4 ? d->k / PHX_MX_BLOCK : d->k;
}

static void plan_layout(struct cpu_weight *w, const struct phx_weight_desc *desc)
{
    size_t unit_bytes = desc->dtype == PHX_DTYPE_MXFP4 ? MX_DATA_BYTES + LANES
                        : desc->dtype == PHX_DTYPE_F16 ? LANES * 2
                                                       : LANES * 4;

    w->desc = *desc;
    w->n_panels = (desc->n + LANES - 1) / LANES;
    w->units = place_slices(desc, w->slice_begin);
    w->panel_bytes = round_up((size_t)w->units * unit_bytes, CACHE_LINE);
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

static float bf16_to_float(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float    f;

    memcpy(&f, &bits, sizeof(f));
    return f;
}

static float f16_to_float(uint16_t h)
{
    int   e = (h >> 10) & 31, m = h & 0x3ff;
    float f = e == 31 ? (m != 0 ? NAN : INFINITY)
              : e == 0 ? ldexpf((float)m, -24)
                       : ldexpf((float)(m + 1024), e - 25);

    return (h & 0x8000) != 0 ? -f : f;
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

static float read_element(const unsigned char *at, enum phx_dtype dtype)
{
    uint16_t h;
    float    f;
    double   g;

    switch (dtype) {
    case PHX_DTYPE_F32: memcpy(&f, at, 4); return f;
    case PHX_DTYPE_F64: memcpy(&g, at, 8); return (float)g;
    case PHX_DTYPE_BF16: memcpy(&h, at, 2); return bf16_to_float(h);
    case PHX_DTYPE_F16: memcpy(&h, at, 2); return f16_to_float(h);
    case PHX_DTYPE_F8_E4M3: return f8_to_float(*at, false);
    default: return f8_to_float(*at, true);
    }
}

/* Where element (lane, k) of a panel lies.  k belongs to slice s. */
static size_t element_offset(const struct cpu_weight *w, int32_t slice, int32_t lane, int32_t k)
{
    int32_t k0 = slice > 0 ? w->desc.slice_end[slice - 1] : 0;

    if (w->desc.dtype == PHX_DTYPE_BF16)
        return ((size_t)(w->slice_begin[slice] + (k - k0) / 2) * LANES + (size_t)lane) * 4 +
               (size_t)((k - k0) & 1) * 2;
    if (w->desc.dtype == PHX_DTYPE_F16)
        return ((size_t)k * LANES + (size_t)lane) * 2;
    return ((size_t)k * LANES + (size_t)lane) * 4;
}

static int32_t slice_of(const struct cpu_weight *w, int32_t k)
{
    int32_t s = 0;

    while (k >= w->desc.slice_end[s])
        s++;
    return s;
}

struct pack_job {
    struct cpu_weight              *w;
    const struct phx_weight_source *source;
};

/* Any source layout and dtype, element by element. */
static void pack_lane_slowly(const struct pack_job *job, unsigned char *panel, int32_t lane,
                             int32_t source_row)
{
    const struct phx_weight_source *src = job->source;
    const struct cpu_weight        *w = job->w;
    const unsigned char *row = (const unsigned char *)src->data + source_row * src->row_stride;

    for (int32_t k = 0, s = 0; k < w->desc.k; k++) {
        const unsigned char *from = row + k * src->k_stride;
        unsigned char       *to;
        float                f;
        uint32_t             bits;

        while (k >= w->desc.slice_end[s])
            s++;
        to = panel + element_offset(w, s, lane, k);
        if (src->dtype == w->desc.dtype) {
            memcpy(to, from, w->desc.dtype == PHX_DTYPE_F32 ? 4 : 2);
            continue;
        }
        f = read_element(from, src->dtype);
        memcpy(&bits, &f, sizeof(bits));
        if (w->desc.dtype == PHX_DTYPE_BF16) { /* from an 8-bit float: the top half holds all of it */
            uint16_t h = (uint16_t)(bits >> 16);

            memcpy(to, &h, sizeof(h));
        } else
            memcpy(to, &f, sizeof(f));
    }
}

/* dwords of a row to every 16th dword of the panel: pairs of bf16, or floats. */
static void pack_lane_dwords(unsigned char *to, const unsigned char *from, int32_t n)
{
    for (int32_t j = 0; j < n; j++)
        memcpy(to + (size_t)j * LANES * 4, from + (size_t)j * 4, 4);
}

/* A block of 16 dwords per row keeps both sides in the first-level cache. */
static void pack_panel_dwords(const struct cpu_weight *w, unsigned char *panel,
                              const unsigned char *const *rows, int32_t lane_first, int32_t n_lanes)
{
    size_t bytes = w->desc.dtype == PHX_DTYPE_BF16 ? 2 : 4;

    for (int32_t s = 0; s < w->desc.n_slices; s++) {
        int32_t k0 = s > 0 ? w->desc.slice_end[s - 1] : 0, k1 = w->desc.slice_end[s];
        int32_t n = (int32_t)((size_t)(k1 - k0) * bytes / 4);
        int32_t begin = w->slice_begin[s];

        for (int32_t j = 0; j < n; j += LANES)
            for (int32_t i = 0; i < n_lanes; i++)
                pack_lane_dwords(panel + ((size_t)(begin + j) * LANES + (size_t)(lane_first + i)) * 4,
                                 rows[i] + (size_t)k0 * bytes + (size_t)j * 4,
                                 n - j < LANES ? n - j : LANES);
        if (bytes == 2 && (k1 - k0) % 2 != 0)
            for (int32_t i = 0; i < n_lanes; i++)
                memcpy(panel + element_offset(w, s, lane_first + i, k1 - 1),
                       rows[i] + (size_t)(k1 - 1) * 2, 2);
    }
}

static void pack_panel_mxfp4(const struct pack_job *job, unsigned char *panel, int32_t row,
                             int32_t lane_first, int32_t n_lanes)
{
    const struct phx_weight_source *src = job->source;
    int32_t        n_blocks = job->w->units;
    unsigned char *scales = panel + (size_t)n_blocks * MX_DATA_BYTES;

    for (int32_t b = 0; b < n_blocks; b++)
        for (int32_t i = 0; i < n_lanes; i++) {
            const unsigned char *from = (const unsigned char *)src->data +
                                        (int64_t)(row + i) * src->row_stride + (int64_t)b * 16;

            pack_lane_dwords(panel + (size_t)b * MX_DATA_BYTES + (size_t)(lane_first + i) * 4, from,
                             4);
            scales[(size_t)b * LANES + (size_t)(lane_first + i)] =
                src->scale[(int64_t)(row + i) * src->scale_row_stride + b];
        }
}

static void pack_panels(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct pack_job          *job = ctx;
    const struct phx_weight_source *src = job->source;
    struct cpu_weight              *w = job->w;
    size_t  bytes = src->dtype == PHX_DTYPE_F32 ? 4 : 2;
    bool    is_plain = src->dtype == w->desc.dtype && src->k_stride == (int64_t)bytes &&
                    src->dtype != PHX_DTYPE_F16;
    int32_t panel_first = src->first_row / LANES;

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
        else if (is_plain)
            pack_panel_dwords(w, panel, rows, begin - n0, n_lanes);
        else
            for (int32_t i = 0; i < n_lanes; i++)
                pack_lane_slowly(job, panel, begin - n0 + i, row + i);
    }
}

void phx_cpu_weight_pack(void *device, void *weight, const struct phx_weight_source *source)
{
    struct cpu_device *d = device;
    struct pack_job    job = {weight, source};
    int32_t            panel_first = source->first_row / LANES;
    int32_t            panel_end = (source->first_row + source->n_rows + LANES - 1) / LANES;

    if (source->n_rows > 0)
        phx_team_run(d->team, panel_end - panel_first, pack_panels, &job);
}

float phx_cpu_weight_at(const struct cpu_weight *w, int32_t expert, int32_t row, int32_t k)
{
    static const float values[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    const unsigned char *panel = expert_data(w, expert) + (size_t)(row / LANES) * w->panel_bytes;
    int32_t              lane = row % LANES;

    if (w->desc.dtype == PHX_DTYPE_MXFP4) {
        size_t   block = (size_t)(k / PHX_MX_BLOCK), in = (size_t)(k % PHX_MX_BLOCK);
        uint8_t  scale = panel[(size_t)w->units * MX_DATA_BYTES + block * LANES + (size_t)lane];
        uint32_t d;
        unsigned nibble;

        memcpy(&d, panel + block * MX_DATA_BYTES + in / 8 * 64 + (size_t)lane * 4, 4);
        nibble = (d >> (4 * (in % 8))) & 15u;
        if (scale == 255)
            return NAN;
        return ldexpf((nibble & 8u) != 0 ? -values[nibble & 7u] : values[nibble & 7u], scale - 127);
    }
    return read_element(panel + element_offset(w, slice_of(w, k), lane, k), w->desc.dtype);
}
