/* SPDX-License-Identifier: Apache-2.0
 * Weights as int8: quantised while they are packed, or brought along quantised (layout: isa.h). */
#include <string.h>

#include "kernels/cpu/weight.h"

/* Rows of a group: values from the source as they are, or quantised. */
struct group {
    int8_t        values[LANES][PHX_I8_GROUP];
    const int8_t *row[LANES];
    float         scale[LANES];
};

/* [n_lanes][PHX_I8_GROUP]; where a row's elements are adjacent, by vectors. */
static void take_floats(const struct pack_job *job, float *x, const unsigned char *const *rows, int32_t n_lanes,
                        int32_t k, int32_t n)
{
    const struct phx_weight_source *s = job->source;
    bool is_short = s->dtype == PHX_DTYPE_BF16 || s->dtype == PHX_DTYPE_F16;

    if (!is_short || s->k_stride != 2) {
        phx_weight_floats(job, x, PHX_I8_GROUP, rows, n_lanes, k, n);
        return;
    }
    for (int32_t i = 0; i < n_lanes; i++)
        job->i8->widen(x + (size_t)i * PHX_I8_GROUP, rows[i] + (size_t)k * 2, s->dtype, n);
}

static void take_group(struct group *g, const struct pack_job *job, const unsigned char *const *rows, int32_t n_lanes,
                       int32_t k, int32_t n)
{
    float x[LANES][PHX_I8_GROUP];

    take_floats(job, x[0], rows, n_lanes, k, n);
    for (int32_t i = 0; i < n_lanes; i++) {
        g->scale[i] = job->i8->quantise_group(g->values[i], x[i], n);
        g->row[i] = g->values[i];
    }
}

static void borrow_group(struct group *g, const struct phx_weight_source *source, int32_t row, int32_t n_lanes,
                         int32_t k, int32_t index)
{
    for (int32_t i = 0; i < n_lanes; i++) {
        g->row[i] = (const int8_t *)source->data + (row + i) * source->row_stride + k;
        memcpy(&g->scale[i], source->scale + (row + i) * source->scale_row_stride + index * (int64_t)sizeof(float),
               sizeof(float));
    }
}

/* n values of each row into its lane, four by four: a cache line of the panel at a time. */
static void put_quads(unsigned char *to, const struct group *g, int32_t n_lanes, int32_t n)
{
    int32_t whole = n / 4 * 4;

    for (int32_t k = 0; k < whole; k += 4)
        for (int32_t i = 0; i < n_lanes; i++)
            memcpy(to + (size_t)k * LANES + (size_t)i * 4, g->row[i] + k, 4);
    for (int32_t i = 0; i < n_lanes && whole < n; i++)
        memcpy(to + (size_t)whole * LANES + (size_t)i * 4, g->row[i] + whole, (size_t)(n - whole));
}

void phx_weight_pack_i8(const struct pack_job *job, unsigned char *panel, const unsigned char *const *rows, int32_t row,
                        int32_t lane_first, int32_t n_lanes)
{
    const struct cpu_weight *w = job->w;
    float                   *scales = (float *)(void *)(panel + (size_t)w->units * I8_TILE_BYTES);
    struct group             group;
    int32_t                  index = 0;

    for (int32_t s = 0, k = 0; s < w->desc.n_slices; s++) {
        unsigned char *to = panel + (size_t)w->slice_begin[s] * I8_TILE_BYTES + (size_t)lane_first * 4;

        for (int32_t n; k < w->desc.slice_end[s]; k += n, index++, to += (size_t)LANES * PHX_I8_GROUP) {
            n = w->desc.slice_end[s] - k < PHX_I8_GROUP ? w->desc.slice_end[s] - k : PHX_I8_GROUP;
            if (job->source->dtype == PHX_DTYPE_I8)
                borrow_group(&group, job->source, row, n_lanes, k, index);
            else
                take_group(&group, job, rows, n_lanes, k, n);
            put_quads(to, &group, n_lanes, n);
            memcpy(scales + index * LANES + lane_first, group.scale, (size_t)n_lanes * sizeof(float));
        }
    }
}

void phx_weight_read_i8(const struct cpu_weight *w, const unsigned char *panel, size_t lane, float *out)
{
    const float *scales = (const float *)(const void *)(panel + (size_t)w->units * I8_TILE_BYTES);

    for (int32_t s = 0, k = 0, k0 = 0; s < w->desc.n_slices; k0 = k, s++) {
        const unsigned char *from = panel + (size_t)w->slice_begin[s] * I8_TILE_BYTES + lane * 4;
        const float         *scale = scales + (s > 0 ? w->group_end[s - 1] : 0) * LANES + lane;

        for (; k < w->desc.slice_end[s]; k++)
            out[k] = (float)(int8_t)from[(size_t)((k - k0) / 4) * LANES * 4 + (size_t)((k - k0) % 4)] *
                     scale[(k - k0) / PHX_I8_GROUP * LANES];
    }
}

/* ---- without a backend ----------------------------------------------------------------------------- */

int32_t phx_i8_groups(const struct phx_weight_desc *desc)
{
    int32_t groups = 0;

    for (int32_t s = 0, k = 0; s < desc->n_slices; k = desc->slice_end[s++])
        groups += (desc->slice_end[s] - k + PHX_I8_GROUP - 1) / PHX_I8_GROUP;
    return groups;
}

void phx_i8_quantise(const struct phx_weight_desc *desc, const struct phx_weight_source *source, int8_t *values,
                     float *scales)
{
    char            why[160];
    struct pack_job job;
    float           x[PHX_I8_GROUP];

    phx_weight_open_job(&job, phx_isa_pick("auto", why, sizeof(why)), source);
    for (int32_t row = 0; row < source->n_rows; row++, values += desc->k) {
        const unsigned char *from = (const unsigned char *)source->data + row * source->row_stride;

        for (int32_t s = 0, k = 0; s < desc->n_slices; s++)
            for (int32_t n; k < desc->slice_end[s]; k += n) {
                n = desc->slice_end[s] - k < PHX_I8_GROUP ? desc->slice_end[s] - k : PHX_I8_GROUP;
                take_floats(&job, x, &from, 1, k, n);
                *scales++ = job.i8->quantise_group(values + k, x, n);
            }
    }
}
