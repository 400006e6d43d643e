/* SPDX-License-Identifier: Apache-2.0
 * The down product of a mixture, output group by output group: for each K-slice s of a row,
 *   p_s = sum over the row's experts, ascending, of gate * (slice s of w_e . act)   (a multiply-add each)
 * then the tree over the slices.  Each expert's weights are read once for all its rows. */

/* Adds gate * slice dots of `rows` pairs, starting at `pair`, into their rows' partial sums. */
INLINE void down_tile(const int panels, const int rows, const struct moe_down_job *job,
                      float *partial, const unsigned char *expert, int32_t panel, int32_t pair)
{
    const struct cpu_weight *w = job->w;
    const unsigned char     *data[GROUP_PANELS];
    const float             *x[TILE_ROWS];
    v16                      acc[GROUP_PANELS][TILE_ROWS];
    int32_t                  column = panel % GROUP_PANELS * LANES;

    for (int p = 0; p < panels; p++)
        data[p] = expert + (size_t)(panel + p) * w->panel_bytes;
    for (int r = 0; r < rows; r++)
        x[r] = job->act + (pair + r) * job->act_stride;
    for (int s = 0; s < w->desc.n_slices; s++) {
        tile_slice(panels, rows, acc, w, data, x, s);
        for (int r = 0; r < rows; r++) {
            v16    gate = v16_set(job->pair_gate[pair + r]);
            size_t row = (size_t)job->pair_row[pair + r];
            float *to = partial + (row * (size_t)w->desc.n_slices + (size_t)s) * GROUP_ROWS + column;

            for (int p = 0; p < panels; p++)
                v16_store(to + p * LANES, v16_fma(gate, acc[p][r], v16_load(to + p * LANES)));
        }
    }
}

INLINE void down_panels(const int panels, const struct moe_down_job *job, float *partial,
                        const unsigned char *expert, int32_t panel, int32_t pair, int32_t end)
{
    for (; pair + 6 <= end; pair += 6)
        down_tile(panels, 6, job, partial, expert, panel, pair);
    for (; pair + 2 <= end; pair += 2)
        down_tile(panels, 2, job, partial, expert, panel, pair);
    if (pair < end)
        down_tile(panels, 1, job, partial, expert, panel, pair);
}

/* The tree of adjacent pairs over the slices of one row, in place; the sum ends in slice 0. */
INLINE void combine_slices(float *row, int32_t n_slices)
{
    for (int32_t step = 1; step < n_slices; step *= 2)
        for (int32_t s = 0; s + step < n_slices; s += 2 * step)
            for (int32_t i = 0; i < GROUP_ROWS; i += LANES) {
                float *to = row + s * GROUP_ROWS + i;

                v16_store(to, v16_add(v16_load(to), v16_load(to + step * GROUP_ROWS)));
            }
}

static void moe_down(const struct moe_down_job *job, int32_t member, int32_t group_first,
                     int32_t group_end)
{
    const struct cpu_weight *w = job->w;
    float  *partial = job->partial + (size_t)member * job->partial_stride;
    size_t  row_floats = (size_t)w->desc.n_slices * GROUP_ROWS;

    for (int32_t g = group_first; g < group_end; g++) {
        int32_t panel = g * GROUP_PANELS, n_panels = w->n_panels - panel, begin = 0;
        int32_t n = w->desc.n - g * GROUP_ROWS;

        n_panels = n_panels < GROUP_PANELS ? n_panels : GROUP_PANELS;
        n = n < GROUP_ROWS ? n : GROUP_ROWS;
        memset(partial, 0, (size_t)job->n_rows * row_floats * sizeof(float));
        for (int32_t e = 0; e < w->desc.n_experts; begin = job->expert_end[e], e++) {
            const unsigned char *expert = w->data + (size_t)e * w->expert_bytes;
            int32_t              end = job->expert_end[e];

            if (n_panels == TILE_PANELS)
                down_panels(TILE_PANELS, job, partial, expert, panel, begin, end);
            else
                for (int32_t p = 0; p < n_panels; p++)
                    down_panels(1, job, partial, expert, panel + p, begin, end);
        }
        for (int32_t t = 0; t < job->n_rows; t++) {
            combine_slices(partial + (size_t)t * row_floats, w->desc.n_slices);
            memcpy(job->out + t * job->out_stride + g * GROUP_ROWS,
                   partial + (size_t)t * row_floats, (size_t)n * sizeof(float));
        }
    }
}
