/* SPDX-License-Identifier: Apache-2.0
 * Products of int8 weights on the matrix unit: a group's integers leave the tiles once, to join the sums. */
#include "kernels/cpu/amx_block.h"
#include "kernels/cpu/i8.h"

struct i8_block {
    struct block          d; /* first: a slice is summed through it */
    const struct i8_rows *rows;
};

/* A group of a pair of panels. */
struct i8_pass {
    struct i8_group      group;
    int32_t              index;
    const unsigned char *b[PAIR_PANELS];
    v16                  w_scale[PAIR_PANELS];
    const signed char   *a;      /* of the band's first row block */
    size_t               a_step; /* to the next row block */
    const float         *x_scale;
    bool                 is_first; /* of its slice: the sums start at 0 */
};

/* The group's integers, [rows * 16][PAIR_OUTPUTS]. */
INLINE void multiply_tiles(const int rows, const int panels, int32_t *out, const struct i8_pass *p,
                           const signed char *a)
{
    const signed char   *a1 = a + p->a_step;
    const unsigned char *b0 = p->b[0], *b1 = p->b[panels - 1];

    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t at = 0, end = (size_t)p->group.n_blocks * TILE_BYTES; at < end; at += TILE_BYTES) {
        _tile_loadd(6, b0 + at, TILE_ROW_BYTES);
        _tile_loadd(4, a + at, TILE_ROW_BYTES);
        _tile_dpbssd(0, 4, 6);
        if (panels > 1) {
            _tile_loadd(7, b1 + at, TILE_ROW_BYTES);
            _tile_dpbssd(1, 4, 7);
        }
        if (rows > 1) {
            _tile_loadd(5, a1 + at, TILE_ROW_BYTES);
            _tile_dpbssd(2, 5, 6);
            if (panels > 1)
                _tile_dpbssd(3, 5, 7);
        }
    }
    _tile_stored(0, out, SUM_STRIDE);
    if (panels > 1)
        _tile_stored(1, out + LANES, SUM_STRIDE);
    if (rows > 1)
        _tile_stored(2, out + TILE_SUMS, SUM_STRIDE);
    if (rows > 1 && panels > 1)
        _tile_stored(3, out + TILE_SUMS + LANES, SUM_STRIDE);
}

INLINE void join_sums(const int rows, const int panels, const bool is_first, float *sum, const int32_t *integers,
                      const struct i8_pass *p, const float *x_scale)
{
    for (int r = 0; r < rows * LANES; r++)
        for (int q = 0; q < panels; q++) {
            size_t at = (size_t)r * PAIR_OUTPUTS + (size_t)q * LANES;
            v16    group = _mm512_cvtepi32_ps(_mm512_loadu_si512(integers + at));
            v16    scale = v16_mul(p->w_scale[q], v16_set(x_scale[r]));

            v16_store(sum + at, v16_fma(group, scale, is_first ? v16_zero() : v16_load(sum + at)));
        }
}

INLINE void pass_rows(const int rows, const int panels, float *sum, const struct i8_pass *p, int32_t row_block)
{
    int32_t      integers[2 * TILE_SUMS] __attribute__((aligned(64)));
    const float *x_scale = p->x_scale + row_block * LANES;

    multiply_tiles(rows, panels, integers, p, p->a + (size_t)row_block * p->a_step);
    if (p->is_first)
        join_sums(rows, panels, true, sum, integers, p, x_scale);
    else
        join_sums(rows, panels, false, sum, integers, p, x_scale);
}

INLINE void pass_band(const int panels, float *sum, const struct i8_pass *p, int32_t n_row_blocks)
{
    int32_t rb = 0;

    for (; rb + 1 < n_row_blocks; rb += 2, sum += 2 * TILE_SUMS)
        pass_rows(2, panels, sum, p, rb);
    if (rb < n_row_blocks)
        pass_rows(1, panels, sum, p, rb);
}

static void sum_group(const struct i8_block *i, float *sums, struct i8_pass *p)
{
    const struct block *d = &i->d;
    int32_t             end = d->panel + d->n_panels, n_all = i8_row_blocks(i->rows->n_rows);

    p->group = i8_find_group(d->w, p->index);
    p->a_step = (size_t)p->group.n_blocks * TILE_BYTES;
    p->a = i->rows->tiles + i8_offset(&p->group, n_all, d->row / LANES);
    p->x_scale = i->rows->scales + (size_t)p->index * (size_t)n_all * LANES + d->row;
    for (int32_t panel = d->panel; panel < end; panel += PAIR_PANELS, sums += d->pair_floats) {
        int panels = end - panel < PAIR_PANELS ? 1 : PAIR_PANELS;

        for (int q = 0; q < panels; q++) {
            p->b[q] = panel_data(d, panel + q) + (size_t)p->group.block * TILE_BYTES;
            p->w_scale[q] = v16_load(i8_scales(d->w, panel + q) + p->index * LANES);
        }
        if (panels == PAIR_PANELS)
            pass_band(PAIR_PANELS, sums, p, count_row_blocks(d->n_rows));
        else
            pass_band(1, sums, p, count_row_blocks(d->n_rows));
    }
}

static void sum_slice_i8(const struct block *d, float *sums, int32_t s)
{
    const struct i8_block *i = (const struct i8_block *)(const void *)d;
    int32_t                begin = s > 0 ? d->w->group_end[s - 1] : 0, end = d->w->group_end[s];
    struct i8_pass         p = {0};

    if (begin == end)
        memset(sums, 0, d->level_floats * sizeof(float));
    for (p.index = begin; p.index < end; p.index++) {
        p.is_first = p.index == begin;
        sum_group(i, sums, &p);
    }
}

void phx_tiles_matmul_i8(const struct matmul_job *job, const struct i8_rows *rows, unsigned char *sums, int32_t first,
                         int32_t end)
{
    bool            is_sliced = job->w->desc.n_slices > 1;
    int32_t         band = is_sliced ? SLICED_BAND_ROWS : BAND_ROWS;
    int32_t         group = is_sliced ? SLICED_GROUP_PAIRS : GROUP_PAIRS;
    struct i8_block i = {open_block(job->w, sums), rows};

    i.d.data = job->w->data;
    i.d.tile_rows = job->n_rows;
    _tile_loadconfig(&phx_full_tiles);
    for (int32_t pair = first; pair < end; pair += group) {
        take_group(&i.d, pair, end - pair < group ? end - pair : group);
        for (int32_t row = 0; row < job->n_rows; row += band) {
            take_band(&i.d, row, band);
            sum_slices(&i.d, sum_slice_i8);
            for (int32_t r = 0; r < i.d.n_rows; r++)
                store_row(&i.d, job, r);
        }
    }
    _tile_release();
}
