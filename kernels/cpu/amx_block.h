/* SPDX-License-Identifier: Apache-2.0
 * Private to the files for the matrix unit: its configuration, and the block of outputs that a member works on. */
#ifndef PHX_KERNELS_CPU_AMX_BLOCK_H
#define PHX_KERNELS_CPU_AMX_BLOCK_H

#define V16_AVX512
#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/tiles.h"
#include "kernels/cpu/v16.h"

enum { SUM_STRIDE = PAIR_OUTPUTS * 4 /* bytes of a row of sums */, TILE_SUMS = LANES * PAIR_OUTPUTS };

/* What a member works on: a group of pairs of panels and a band of rows. */
struct block {
    const struct cpu_weight *w;
    const unsigned char     *data;      /* of the expert */
    int32_t                  tile_rows; /* of all bands */
    int32_t                  panel, n_panels; /* an odd last panel is alone in its pair */
    const unsigned char     *tiles;
    int32_t                  row, n_rows;
    size_t                   pair_floats, level_floats;
    float                   *sums; /* [levels][pairs][rows][PAIR_OUTPUTS] */
    unsigned char           *wide;
};

INLINE const unsigned char *panel_data(const struct block *d, int32_t panel)
{
    return d->data + (size_t)panel * d->w->panel_bytes;
}

INLINE void add_level(float *to, const float *right, size_t n)
{
    for (size_t i = 0; i < n; i += LANES)
        v16_store(to + i, v16_add(v16_load(to + i), v16_load(right + i)));
}

typedef void (*slice_sum_fn)(const struct block *d, float *sums, int32_t slice);

/* Sums of slices, one per level, merge like a binary counter; the last one ends in level 0. */
INLINE void sum_slices(const struct block *d, slice_sum_fn sum_slice)
{
    int n_slices = d->w->desc.n_slices, depth = 0;

    for (int s = 0; s < n_slices; s++) {
        sum_slice(d, d->sums + (size_t)depth * d->level_floats, s);
        for (int carry = s + 1; depth > 0 && ((carry & 1) == 0 || s + 1 == n_slices); carry >>= 1, depth--)
            add_level(d->sums + (size_t)(depth - 1) * d->level_floats, d->sums + (size_t)depth * d->level_floats,
                      d->level_floats);
        depth++;
    }
}

INLINE void store_row(const struct block *d, const struct matmul_job *job, int32_t row)
{
    float *out = job->out + (d->row + row) * job->out_stride;

    for (int32_t p = 0; p < d->n_panels; p++) {
        const float *sum = d->sums + (size_t)(p / PAIR_PANELS) * d->pair_floats + (size_t)row * PAIR_OUTPUTS;
        int32_t      n0 = (d->panel + p) * LANES, n = d->w->desc.n - n0 < LANES ? d->w->desc.n - n0 : LANES;
        v16          v = v16_load(sum + (p % PAIR_PANELS) * LANES);

        if (job->bias != NULL)
            v = v16_add(v, v16_load_n(job->bias + n0, (int)n));
        v16_store_n(out + n0, v, (int)n);
    }
}

INLINE struct block open_block(const struct cpu_weight *w, unsigned char *sums)
{
    return (struct block){.w = w, .sums = (float *)(void *)sums, .wide = sums + (size_t)SUM_FLOATS * 4};
}

/* The panels of the pairs [pair, pair + n_pairs). */
INLINE void take_group(struct block *d, int32_t pair, int32_t n_pairs)
{
    d->panel = pair * PAIR_PANELS;
    d->n_panels = d->w->n_panels - d->panel < n_pairs * PAIR_PANELS ? d->w->n_panels - d->panel
                                                                    : n_pairs * PAIR_PANELS;
}

INLINE void take_band(struct block *d, int32_t row, int32_t band)
{
    d->row = row;
    d->n_rows = d->tile_rows - row < band ? d->tile_rows - row : band;
    d->pair_floats = (size_t)count_row_blocks(d->n_rows) * TILE_SUMS;
    d->level_floats = d->pair_floats * (size_t)((d->n_panels + PAIR_PANELS - 1) / PAIR_PANELS);
}

#endif
