/* SPDX-License-Identifier: Apache-2.0
 * Quantising rows, and int8 products of few of them.  The file that includes this has defined v16 and vi: sixteen
 * sums of integers on their way. */

enum { I8_TILE_ROWS = 4, I8_PANELS = 4, I8_PREFETCH_BYTES = 2048 };

/* ---- rows ---------------------------------------------------------------------------------------- */

static void widen(float *to, const void *from, enum phx_dtype dtype, int32_t n)
{
    const unsigned char *bytes = from;
    uint16_t             last[LANES] = {0};
    int32_t              whole = n / LANES * LANES;

    for (int32_t k = 0; k < whole; k += LANES) {
        const void *p = bytes + (size_t)k * 2;

        v16_store(to + k, dtype == PHX_DTYPE_BF16 ? v16_load_bf16(p) : v16_load_f16(p));
    }
    if (whole < n) {
        memcpy(last, bytes + (size_t)whole * 2, (size_t)(n - whole) * 2);
        v16_store_n(to + whole, dtype == PHX_DTYPE_BF16 ? v16_load_bf16(last) : v16_load_f16(last), (int)(n - whole));
    }
}

/* NaN when there is one, or an infinity. */
static float largest_size(const float *x, int32_t n)
{
    const v16 zero = v16_zero();
    v16       top = zero, strange = zero;

    for (int32_t k = 0; k < n; k += LANES) {
        v16 v = n - k < LANES ? v16_load_n(x + k, (int)(n - k)) : v16_load(x + k);
        v16 size = v16_select_gt(zero, v, v16_sub(zero, v), v);

        top = v16_select_gt(size, top, size, top);
        strange = v16_add(strange, v16_sub(v, v)); /* 0, or NaN */
    }
    return v16_sum(strange) == 0.0f ? v16_largest(top) : NAN;
}

/* NaN when there is one among them, or an infinity. */
static float find_scale(const float *x, int32_t n)
{
    float top = largest_size(x, n);

    return top < 0x1p-100f ? 0.0f : top / 127.0f;
}

static float find_inverse(float scale)
{
    return scale > 0.0f ? 1.0f / scale : 0.0f;
}

/* The values' sum as result.  Adding 1.5 * 2^23 rounds to an integer, ties to even; the sizes are at most 127 and an
 * ulp. */
INLINE int32_t quantise_values(signed char *to, const float *x, int32_t n, float inverse)
{
    int32_t total = 0;

    if (inverse == 0.0f)
        memset(to, 0, (size_t)n);
    else
        for (int32_t k = 0; k < n; k++) {
            int32_t q = (int32_t)((x[k] * inverse + 12582912.0f) - 12582912.0f);

            to[k] = (signed char)q;
            total += q;
        }
    return total;
}

static float quantise_group(signed char *to, const float *x, int32_t n)
{
    float scale = find_scale(x, n);

    (void)quantise_values(to, x, n, find_inverse(scale));
    return scale;
}

/* n of the group's k are there; to: its blocks, TILE_BYTES apart. */
static void quantise_part(signed char *to, const float *x, int32_t n, int32_t n_blocks, float *scale, int32_t *sum)
{
    float   inverse;
    int32_t total = 0;

    *scale = find_scale(x, n);
    inverse = find_inverse(*scale);
    for (int32_t b = 0; b < n_blocks; b++) {
        signed char *block = to + (size_t)b * I8_TILE_BYTES;
        int32_t      m = n - b * I8_BLOCK_K < I8_BLOCK_K ? n - b * I8_BLOCK_K : I8_BLOCK_K;

        if (m < I8_BLOCK_K)
            memset(block, 0, I8_ROW_BYTES);
        total += quantise_values(block, x + b * I8_BLOCK_K, m, inverse);
    }
    *sum = total;
}

static void quantise(const struct i8_rows *rows, int32_t first, int32_t end)
{
    const struct cpu_weight *w = rows->w;
    int32_t                  n_row_blocks = i8_row_blocks(rows->n_rows);

    for (int32_t rb = first; rb < end; rb++)
        for (int32_t g = 0; g < w->n_groups; g++) {
            struct i8_group group = i8_find_group(w, g);
            signed char    *to = rows->tiles + i8_offset(&group, n_row_blocks, rb);
            size_t          at = ((size_t)g * (size_t)n_row_blocks + (size_t)rb) * LANES;

            for (int32_t i = 0; i < LANES && (rows->is_whole || rb * LANES + i < rows->n_rows); i++, to += I8_ROW_BYTES) {
                int32_t row = rb * LANES + i;

                if (row < rows->n_rows)
                    quantise_part(to, rows->x + row * rows->x_stride + group.k, group.n, group.n_blocks,
                                  &rows->scales[at + (size_t)i], &rows->sums[at + (size_t)i]);
                else {
                    rows->scales[at + (size_t)i] = 0.0f;
                    rows->sums[at + (size_t)i] = 0;
                    for (int32_t b = 0; b < group.n_blocks; b++)
                        memset(to + (size_t)b * I8_TILE_BYTES, 0, I8_ROW_BYTES);
                }
            }
        }
}

/* ---- products -------------------------------------------------------------------------------------- */

/* Rows [row, row + 1 to 4) against panels that lie panel_bytes apart. */
struct i8_tile {
    const struct i8_rows *rows;
    const unsigned char  *panel;
    size_t                panel_bytes, scales_at; /* of a panel */
    int32_t               row;
};

/* One group: the integer sums of every row with every panel. */
INLINE void dot_group(const int panels, const int n, vi acc[I8_PANELS][I8_TILE_ROWS], const struct i8_tile *t,
                      const struct i8_group *group)
{
    const struct i8_rows *rows = t->rows;
    const unsigned char  *w = t->panel + (size_t)group->block * I8_TILE_BYTES;
    const signed char    *x[I8_TILE_ROWS];

    for (int r = 0; r < n; r++) {
        int32_t row = t->row + r;

        x[r] = rows->tiles + i8_offset(group, i8_row_blocks(rows->n_rows), row / LANES) +
               (size_t)(row % LANES) * I8_ROW_BYTES;
    }
    for (int p = 0; p < panels; p++)
        for (int r = 0; r < n; r++)
            acc[p][r] = vi_zero();
    for (int32_t b = 0; b < group->n_blocks; b++, w += I8_TILE_BYTES)
        for (int q = 0; q < I8_BLOCK_K / 4; q++) {
            vi_weights quad[I8_PANELS];

            for (int p = 0; p < panels; p++) {
                const unsigned char *at = w + (size_t)p * t->panel_bytes + (size_t)q * 64;

                __builtin_prefetch(at + I8_PREFETCH_BYTES);
                quad[p] = vi_load(at);
            }
            for (int r = 0; r < n; r++) {
                int32_t four;

                memcpy(&four, x[r] + (size_t)b * I8_TILE_BYTES + (size_t)q * 4, sizeof(four));
                for (int p = 0; p < panels; p++)
                    acc[p][r] = vi_dot(acc[p][r], quad[p], four);
            }
        }
}

/* The groups of a slice: sum [panels][rows][16]. */
INLINE void sum_groups(const int panels, const int n, float *sum, const struct i8_tile *t, int32_t first, int32_t end)
{
    const struct i8_rows *rows = t->rows;
    v16                   out[I8_PANELS][I8_TILE_ROWS];

    for (int p = 0; p < panels; p++)
        for (int r = 0; r < n; r++)
            out[p][r] = v16_zero();
    for (int32_t g = first; g < end; g++) {
        struct i8_group group = i8_find_group(rows->w, g);
        size_t          at = (size_t)g * (size_t)i8_row_blocks(rows->n_rows) * LANES + (size_t)t->row;
        vi              acc[I8_PANELS][I8_TILE_ROWS];

        dot_group(panels, n, acc, t, &group);
        for (int p = 0; p < panels; p++) {
            v16 w_scale = v16_load((const float *)(const void *)(t->panel + (size_t)p * t->panel_bytes + t->scales_at) +
                                   g * LANES);

            for (int r = 0; r < n; r++)
                out[p][r] = v16_fma(vi_finish(acc[p][r], rows->sums[at + (size_t)r]),
                                    v16_mul(w_scale, v16_set(rows->scales[at + (size_t)r])), out[p][r]);
        }
    }
    for (int p = 0; p < panels; p++)
        for (int r = 0; r < n; r++)
            v16_store(sum + (p * n + r) * LANES, out[p][r]);
}

static void sum_groups_n(int panels, int n, float *sum, const struct i8_tile *t, int32_t first, int32_t end)
{
    switch (panels * 8 + n) {
    case 1 * 8 + 1: sum_groups(1, 1, sum, t, first, end); return;
    case 1 * 8 + 2: sum_groups(1, 2, sum, t, first, end); return;
    case 1 * 8 + 3: sum_groups(1, 3, sum, t, first, end); return;
    case 1 * 8 + 4: sum_groups(1, 4, sum, t, first, end); return;
    case 4 * 8 + 1: sum_groups(4, 1, sum, t, first, end); return;
    case 4 * 8 + 2: sum_groups(4, 2, sum, t, first, end); return;
    case 4 * 8 + 3: sum_groups(4, 3, sum, t, first, end); return;
    default: sum_groups(4, 4, sum, t, first, end); return;
    }
}

/* All slices, combined by the tree: partial sums, one per level, merge like a binary counter. */
static void sum_i8_tile(float *sum, const struct i8_tile *t, int panels, int n)
{
    const struct cpu_weight *w = t->rows->w;
    float                    stack[3][I8_PANELS * I8_TILE_ROWS * LANES];
    int                      depth = 0, n_slices = w->desc.n_slices, n_floats = panels * n * LANES;

    for (int s = 0; s < n_slices; s++) {
        bool is_last = s + 1 == n_slices;

        sum_groups_n(panels, n, sum, t, s > 0 ? w->group_end[s - 1] : 0, w->group_end[s]);
        for (int carry = s + 1; depth > 0 && ((carry & 1) == 0 || is_last); carry >>= 1) {
            depth--;
            for (int i = 0; i < n_floats; i += LANES)
                v16_store(sum + i, v16_add(v16_load(stack[depth] + i), v16_load(sum + i)));
        }
        if (!is_last)
            memcpy(stack[depth++], sum, (size_t)n_floats * sizeof(float));
    }
}

static void store_i8_tile(const struct matmul_job *job, const float *sum, int32_t panel, int32_t row, int n)
{
    int32_t n0 = panel * LANES, columns = job->w->desc.n - n0 < LANES ? job->w->desc.n - n0 : LANES;
    v16     bias = job->bias != NULL ? v16_load_n(job->bias + n0, (int)columns) : v16_zero();

    for (int r = 0; r < n; r++) {
        v16 v = v16_load(sum + r * LANES);

        v16_store_n(job->out + (row + r) * job->out_stride + n0, job->bias != NULL ? v16_add(v, bias) : v, (int)columns);
    }
}

/* Four panels at a time while they last: several streams keep the memory busier than one. */
static void matmul_i8(const struct matmul_job *job, const struct i8_rows *rows, int32_t first, int32_t end)
{
    float sum[I8_PANELS * I8_TILE_ROWS * LANES];

    for (int32_t panel = first; panel < end;) {
        int            panels = end - panel >= I8_PANELS ? I8_PANELS : 1;
        struct i8_tile t = {rows, i8_panel(job->w, panel), job->w->panel_bytes,
                            (size_t)job->w->units * I8_TILE_BYTES, 0};

        for (; t.row < job->n_rows; t.row += I8_TILE_ROWS) {
            int n = job->n_rows - t.row < I8_TILE_ROWS ? (int)(job->n_rows - t.row) : I8_TILE_ROWS;

            sum_i8_tile(sum, &t, panels, n);
            for (int p = 0; p < panels; p++)
                store_i8_tile(job, sum + p * n * LANES, panel + p, t.row, n);
        }
        panel += panels;
    }
}

const struct i8_isa I8_TABLE = {widen, quantise_group, quantise, matmul_i8};
