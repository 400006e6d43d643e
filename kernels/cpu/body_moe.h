/* SPDX-License-Identifier: Apache-2.0
 * The down product of a mixture, four panels of outputs at a time: for each K-slice s of a row,
 *   p_s = sum over the row's experts, ascending, of gate * (slice s of w_e . act)   (a multiply-add each)
 * then the tree over the slices.  Each expert's weights are read once for all its rows. */

/* Adds gate * slice dots of `rows` pairs, starting at `pair`, into their rows' partial sums. */
static void add_pairs(const struct moe_down_job *job, struct tile *t, float *partial, int panels,
                      int32_t pair, int rows)
{
    const struct cpu_weight *w = job->w;
    float                    sum[TILE_FLOATS];

    for (int r = 0; r < rows; r++)
        t->x[r] = job->act + (pair + r) * job->act_stride;
    for (int s = 0; s < w->desc.n_slices; s++) {
        sum_slice(sum, t, w, panels, rows, s);
        for (int r = 0; r < rows; r++) {
            v16    gate = v16_set(job->pair_gate[pair + r]);
            size_t row = (size_t)job->pair_row[pair + r];
            float *to = partial + (row * (size_t)w->desc.n_slices + (size_t)s) * GROUP_ROWS;

            for (int p = 0; p < panels; p++)
                v16_store(to + p * LANES, v16_fma(gate, v16_load(sum + (p * rows + r) * LANES),
                                                  v16_load(to + p * LANES)));
        }
    }
}

/* The tree of adjacent pairs over the slices of one row, in place; the sum ends in slice 0. */
static void combine_slices(float *row, int32_t n_slices)
{
    for (int32_t step = 1; step < n_slices; step *= 2)
        for (int32_t s = 0; s + step < n_slices; s += 2 * step)
            for (int32_t i = 0; i < GROUP_ROWS; i += LANES) {
                float *to = row + s * GROUP_ROWS + i;

                v16_store(to, v16_add(v16_load(to), v16_load(to + step * GROUP_ROWS)));
            }
}

/* The panels [panel, panel + panels) of all experts. */
static void sum_experts(const struct moe_down_job *job, float *partial, int32_t panel, int panels)
{
    const struct cpu_weight *w = job->w;
    struct tile              t = {.scale_offset = (size_t)w->units * MX_DATA_BYTES, .is_rounded = job->is_rounded};
    int32_t                  pair = 0;

    for (int32_t e = 0; e < w->desc.n_experts; e++) {
        const unsigned char *expert = expert_data(w, e);

        for (int p = 0; p < panels; p++)
            t.data[p] = expert + (size_t)(panel + p) * w->panel_bytes;
        for (int rows; pair < job->expert_end[e]; pair += rows) {
            rows = count_tile_rows(job->expert_end[e] - pair, job->is_rounded);
            add_pairs(job, &t, partial, panels, pair, rows);
        }
    }
}

static void moe_down(const struct moe_down_job *job, int32_t member, int32_t first, int32_t end)
{
    const struct cpu_weight *w = job->w;
    float  *partial = job->partial + (size_t)member * job->partial_stride;
    size_t  row_floats = (size_t)w->desc.n_slices * GROUP_ROWS;
    unsigned mode = job->is_rounded ? enter_matrix_mode() : 0;

    for (int32_t panel = first; panel < end; panel += GROUP_PANELS) {
        int     panels = end - panel < GROUP_PANELS ? (int)(end - panel) : GROUP_PANELS;
        int32_t n = w->desc.n - panel * LANES;

        n = n < panels * LANES ? n : panels * LANES;
        memset(partial, 0, (size_t)job->n_rows * row_floats * sizeof(float));
        sum_experts(job, partial, panel, panels);
        for (int32_t t = 0; t < job->n_rows; t++) {
            combine_slices(partial + (size_t)t * row_floats, w->desc.n_slices);
            memcpy(job->out + t * job->out_stride + panel * LANES, partial + (size_t)t * row_floats,
                   (size_t)n * sizeof(float));
        }
    }
    if (job->is_rounded)
        leave_matrix_mode(mode);
}
