/* SPDX-License-Identifier: Apache-2.0
 * Matrix products over packed panels.  Each output is one chain of fused multiply-adds over k ascending
 * inside a K-slice, starting at 0 (MXFP4: a chain per block of 32, then one multiply-add by the scale);
 * slices combine by the tree of adjacent pairs.  A register tile is panels x rows outputs-of-16; the tile
 * shape does not change the chains.
 *
 * Rounded products have the chains of the matrix unit (Intel SDM, TDPBF16PS): per block of 32 k two chains
 * from 0, over the even and over the odd k, whose sum is added to the output's; denormals are zeros. */

/* With four panels, a tile has this many rows before the sums leave the registers. */
#if defined(V16_AVX2)
enum { WIDE_ROWS = 1, WIDE_ROUNDED_ROWS = 1 };
#else
enum { WIDE_ROWS = TILE_ROWS, WIDE_ROUNDED_ROWS = 3 };
#endif

enum { PREFETCH_BYTES = 1536, TILE_FLOATS = GROUP_PANELS * TILE_ROWS * LANES };

/* One K-slice of a tile: panels, rows and where the slice lies in them. */
struct tile {
    const unsigned char *data[GROUP_PANELS];
    const float         *x[TILE_ROWS];
    size_t               scale_offset; /* of MXFP4, from a panel's data */
    int32_t              unit;         /* of the layout, where the slice begins */
    int32_t              k, k_end;     /* of x */
    bool                 is_rounded;
};

/* sum [panels][rows][16] of the panels from `first` on. */
typedef void (*slice_fn)(float *sum, const struct tile *t, int first);

INLINE void clear_tile(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS])
{
    for (int p = 0; p < panels; p++)
        for (int r = 0; r < rows; r++)
            acc[p][r] = v16_zero();
}

INLINE void save_tile(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS], float *sum)
{
    for (int p = 0; p < panels; p++)
        for (int r = 0; r < rows; r++)
            v16_store(sum + (p * rows + r) * LANES, acc[p][r]);
}

INLINE void multiply_add(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                         const v16 w[GROUP_PANELS], const float *const x[TILE_ROWS], int32_t k)
{
    for (int r = 0; r < rows; r++) {
        v16 v = v16_set(x[r][k]);

        for (int p = 0; p < panels; p++)
            acc[p][r] = v16_fma(w[p], v, acc[p][r]);
    }
}

/* A pair is loaded twice, for its low and its high halves: a load costs less than the registers it would
 * hold.  The last pair of an odd slice has padding in its high half. */
INLINE void slice_bf16(const int panels, const int rows, float *sum, const struct tile *t, int first)
{
    v16                  acc[GROUP_PANELS][TILE_ROWS], w[GROUP_PANELS];
    const unsigned char *at[GROUP_PANELS];
    const float         *x[TILE_ROWS];
    int32_t              k = t->k;

    clear_tile(panels, rows, acc);
    for (int p = 0; p < panels; p++)
        at[p] = t->data[first + p] + (size_t)t->unit * 64;
    for (int r = 0; r < rows; r++)
        x[r] = t->x[r];
    for (size_t at_byte = 0; k < t->k_end; at_byte += 64, k += 2) {
        for (int p = 0; p < panels; p++) {
            __builtin_prefetch(at[p] + at_byte + PREFETCH_BYTES);
            w[p] = v16_load_bf16_low(at[p] + at_byte);
        }
        multiply_add(panels, rows, acc, w, x, k);
        if (k + 1 == t->k_end)
            break;
        for (int p = 0; p < panels; p++)
            w[p] = v16_load_bf16_high(at[p] + at_byte);
        multiply_add(panels, rows, acc, w, x, k + 1);
    }
    save_tile(panels, rows, acc, sum);
}

/* F32 and F16: one k after the other. */
INLINE void slice_plain(const int panels, const int rows, const bool is_half, float *sum,
                        const struct tile *t, int first)
{
    const size_t         k_bytes = is_half ? LANES * 2 : LANES * 4;
    v16                  acc[GROUP_PANELS][TILE_ROWS], w[GROUP_PANELS];
    const unsigned char *at[GROUP_PANELS];
    const float         *x[TILE_ROWS];

    clear_tile(panels, rows, acc);
    for (int p = 0; p < panels; p++)
        at[p] = t->data[first + p];
    for (int r = 0; r < rows; r++)
        x[r] = t->x[r];
    for (int32_t k = t->k; k < t->k_end; k++) {
        for (int p = 0; p < panels; p++) {
            const void *from = at[p] + (size_t)k * k_bytes;

            if (!is_half || k % 2 == 0)
                __builtin_prefetch((const char *)from + PREFETCH_BYTES);
            w[p] = is_half ? v16_load_f16(from) : v16_load(from);
        }
        multiply_add(panels, rows, acc, w, x, k);
    }
    save_tile(panels, rows, acc, sum);
}

INLINE void slice_f32(const int panels, const int rows, float *sum, const struct tile *t, int first)
{
    slice_plain(panels, rows, false, sum, t, first);
}

INLINE void slice_f16(const int panels, const int rows, float *sum, const struct tile *t, int first)
{
    slice_plain(panels, rows, true, sum, t, first);
}

/* Per block of 32: the chain of value * x in registers, then one multiply-add into acc, which lies in
 * memory.  The panels' chains run side by side, because one alone waits for its own latency. */
INLINE void slice_mxfp4(const int panels, const int rows, float *sum, const struct tile *t, int first)
{
    const float *x[TILE_ROWS];

    for (int i = 0; i < panels * rows; i++)
        v16_store(sum + i * LANES, v16_zero());
    for (int r = 0; r < rows; r++)
        x[r] = t->x[r];
    for (int32_t b = t->unit, k = t->k; k < t->k_end; b++, k += PHX_MX_BLOCK) {
        v16 part[GROUP_PANELS][TILE_ROWS], w[GROUP_PANELS];

        clear_tile(panels, rows, part);
        for (int q = 0; q < 4; q++) {
            size_t at = (size_t)b * MX_DATA_BYTES + (size_t)q * 64;

            for (int p = 0; p < panels; p++)
                __builtin_prefetch(t->data[first + p] + at + PREFETCH_BYTES);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                for (int p = 0; p < panels; p++)
                    w[p] = v16_mx_value(t->data[first + p] + at, i);
                multiply_add(panels, rows, part, w, x, k + q * 8 + i);
            }
        }
        for (int p = 0; p < panels; p++) {
            v16 scale = v16_mx_scale(t->data[first + p] + t->scale_offset + (size_t)b * LANES);

            for (int r = 0; r < rows; r++) {
                float *to = sum + (p * rows + r) * LANES;

                v16_store(to, v16_fma(scale, part[p][r], v16_load(to)));
            }
        }
    }
}

/* The even and the odd chain of a block are done: its sum joins the output's, in memory. */
INLINE void add_block(const int panels, const int rows, float *sum, v16 even[GROUP_PANELS][TILE_ROWS],
                      v16 odd[GROUP_PANELS][TILE_ROWS])
{
    for (int p = 0; p < panels; p++)
        for (int r = 0; r < rows; r++) {
            float *to = sum + (p * rows + r) * LANES;

            v16_store(to, v16_add(v16_load(to), v16_add(even[p][r], odd[p][r])));
        }
}

INLINE void clear_sums(const int panels, const int rows, float *sum)
{
    for (int i = 0; i < panels * rows; i++)
        v16_store(sum + i * LANES, v16_zero());
}

INLINE void slice_rounded_bf16(const int panels, const int rows, float *sum, const struct tile *t, int first)
{
    v16                  even[GROUP_PANELS][TILE_ROWS], odd[GROUP_PANELS][TILE_ROWS], w[GROUP_PANELS];
    const unsigned char *at[GROUP_PANELS];
    const float         *x[TILE_ROWS];

    clear_sums(panels, rows, sum);
    for (int p = 0; p < panels; p++)
        at[p] = t->data[first + p] + (size_t)t->unit * 64;
    for (int r = 0; r < rows; r++)
        x[r] = t->x[r];
    for (int32_t block = t->k; block < t->k_end; block += BLOCK_K) {
        clear_tile(panels, rows, even);
        clear_tile(panels, rows, odd);
        for (int32_t k = block; k < block + BLOCK_K; k += 2) {
            size_t at_byte = (size_t)(k - t->k) * 32;

            for (int p = 0; p < panels; p++) {
                __builtin_prefetch(at[p] + at_byte + PREFETCH_BYTES);
                w[p] = v16_load_bf16_low(at[p] + at_byte);
            }
            multiply_add(panels, rows, even, w, x, k);
            for (int p = 0; p < panels; p++)
                w[p] = v16_load_bf16_high(at[p] + at_byte);
            multiply_add(panels, rows, odd, w, x, k + 1);
        }
        add_block(panels, rows, sum, even, odd);
    }
}

/* The scale is a power of two and nothing leaves the range: it may wait until the chains are done. */
INLINE void slice_rounded_mxfp4(const int panels, const int rows, float *sum, const struct tile *t, int first)
{
    v16          even[GROUP_PANELS][TILE_ROWS], odd[GROUP_PANELS][TILE_ROWS], w[GROUP_PANELS];
    const float *x[TILE_ROWS];

    clear_sums(panels, rows, sum);
    for (int r = 0; r < rows; r++)
        x[r] = t->x[r];
    for (int32_t b = t->unit, k = t->k; k < t->k_end; b++, k += BLOCK_K) {
        clear_tile(panels, rows, even);
        clear_tile(panels, rows, odd);
        for (int q = 0; q < 4; q++) {
            size_t at = (size_t)b * MX_DATA_BYTES + (size_t)q * 64;

            for (int p = 0; p < panels; p++)
                __builtin_prefetch(t->data[first + p] + at + PREFETCH_BYTES);
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++) {
                for (int p = 0; p < panels; p++)
                    w[p] = v16_mx_value(t->data[first + p] + at, i);
                multiply_add(panels, rows, i % 2 == 0 ? even : odd, w, x, k + q * 8 + i);
            }
        }
        for (int p = 0; p < panels; p++) {
            v16 scale = v16_mx_scale(t->data[first + p] + t->scale_offset + (size_t)b * LANES);

            for (int r = 0; r < rows; r++) {
                float *to = sum + (p * rows + r) * LANES;

                v16_store(to, v16_fma(scale, v16_add(even[p][r], odd[p][r]), v16_load(to)));
            }
        }
    }
}

#define SLICE(kind, panels, rows)                                                                  \
    static void slice_##kind##_##panels##x##rows(float *sum, const struct tile *t, int first)      \
    {                                                                                              \
        slice_##kind(panels, rows, sum, t, first);                                                 \
    }
#define ROWS(kind, panels)                                                                         \
    SLICE(kind, panels, 1)                                                                         \
    SLICE(kind, panels, 2)                                                                         \
    SLICE(kind, panels, 3)                                                                         \
    SLICE(kind, panels, 4)                                                                         \
    SLICE(kind, panels, 5)                                                                         \
    SLICE(kind, panels, 6)
#define NARROW(kind)                                                                               \
    {                                                                                              \
        slice_##kind##_1x1, slice_##kind##_1x2, slice_##kind##_1x3, slice_##kind##_1x4,            \
            slice_##kind##_1x5, slice_##kind##_1x6                                                 \
    }
#if defined(V16_AVX2)
#define KIND(kind) ROWS(kind, 1) SLICE(kind, 4, 1)
#define WIDE(kind)                                                                                 \
    {                                                                                              \
        slice_##kind##_4x1                                                                         \
    }
#else
#define KIND(kind) ROWS(kind, 1) ROWS(kind, 4)
#define WIDE(kind)                                                                                 \
    {                                                                                              \
        slice_##kind##_4x1, slice_##kind##_4x2, slice_##kind##_4x3, slice_##kind##_4x4,            \
            slice_##kind##_4x5, slice_##kind##_4x6                                                 \
    }
#endif

KIND(f32)
KIND(f16)
KIND(bf16)
KIND(mxfp4)
KIND(rounded_bf16)
KIND(rounded_mxfp4)

/* The routine for a dtype, one panel or four, and a number of rows. */
static slice_fn pick_slice(enum phx_dtype dtype, bool is_rounded, bool is_wide, int rows)
{
    static const slice_fn rounded_bf16[2][TILE_ROWS] = {NARROW(rounded_bf16), WIDE(rounded_bf16)};
    static const slice_fn rounded_mxfp4[2][TILE_ROWS] = {NARROW(rounded_mxfp4), WIDE(rounded_mxfp4)};
    static const slice_fn f32[2][TILE_ROWS] = {NARROW(f32), WIDE(f32)};
    static const slice_fn f16[2][TILE_ROWS] = {NARROW(f16), WIDE(f16)};
    static const slice_fn bf16[2][TILE_ROWS] = {NARROW(bf16), WIDE(bf16)};
    static const slice_fn mxfp4[2][TILE_ROWS] = {NARROW(mxfp4), WIDE(mxfp4)};

    if (is_rounded)
        return dtype == PHX_DTYPE_BF16 ? rounded_bf16[is_wide][rows - 1] : rounded_mxfp4[is_wide][rows - 1];
    switch (dtype) {
    case PHX_DTYPE_F16: return f16[is_wide][rows - 1];
    case PHX_DTYPE_BF16: return bf16[is_wide][rows - 1];
    case PHX_DTYPE_MXFP4: return mxfp4[is_wide][rows - 1];
    default: return f32[is_wide][rows - 1];
    }
}

/* Slice number s of a tile into sum [panels][rows][16]. */
static void sum_slice(float *sum, struct tile *t, const struct cpu_weight *w, int panels, int rows,
                      int s)
{
    bool     is_wide = panels == GROUP_PANELS && rows <= (t->is_rounded ? WIDE_ROUNDED_ROWS : WIDE_ROWS);
    slice_fn fn = pick_slice(w->desc.dtype, t->is_rounded, is_wide, rows);

    if (t->is_rounded) { /* x is padded as the blocks are */
        t->k = (s > 0 ? w->block_end[s - 1] : 0) * BLOCK_K;
        t->k_end = w->block_end[s] * BLOCK_K;
    } else {
        t->k = s > 0 ? w->desc.slice_end[s - 1] : 0;
        t->k_end = w->desc.slice_end[s];
    }
    t->unit = w->slice_begin[s];
    if (is_wide) {
        fn(sum, t, 0);
        return;
    }
    for (int p = 0; p < panels; p++)
        fn(sum + p * rows * LANES, t, p);
}

static void add_sums(float *to, const float *left, int n)
{
    for (int i = 0; i < n; i += LANES)
        v16_store(to + i, v16_add(v16_load(left + i), v16_load(to + i)));
}

/* All slices of a tile, combined by the tree: partial sums, one per level, merge like a binary counter. */
static void sum_tile(float *sum, struct tile *t, const struct cpu_weight *w, int panels, int rows)
{
    float stack[3][TILE_FLOATS];
    int   n_slices = w->desc.n_slices, depth = 0, n = panels * rows * LANES;

    for (int s = 0; s < n_slices; s++) {
        bool is_last = s + 1 == n_slices;

        sum_slice(sum, t, w, panels, rows, s);
        for (int carry = s + 1; depth > 0 && ((carry & 1) == 0 || is_last); carry >>= 1)
            add_sums(sum, stack[--depth], n);
        if (!is_last)
            memcpy(stack[depth++], sum, (size_t)n * sizeof(float));
    }
}

/* How many of the n rows left the next tile takes: as many as it may, but no small rest. */
static int count_tile_rows(int32_t n, bool is_rounded)
{
    int most = is_rounded && WIDE_ROUNDED_ROWS > 1 ? WIDE_ROUNDED_ROWS : TILE_ROWS;

    if (n <= most)
        return (int)n;
    return n >= 2 * most ? most : (int)(n + 1) / 2;
}

static void store_tile(const struct matmul_job *job, const float *sum, int panels, int rows,
                       int32_t panel, int32_t row)
{
    for (int p = 0; p < panels; p++) {
        int32_t n0 = (panel + p) * LANES, n = job->w->desc.n - n0;
        v16     bias = v16_zero();

        n = n < LANES ? n : LANES;
        if (job->bias != NULL)
            bias = v16_load_n(job->bias + n0, n);
        for (int r = 0; r < rows; r++) {
            v16 v = v16_load(sum + (p * rows + r) * LANES);

            v16_store_n(job->out + (row + r) * job->out_stride + n0,
                        job->bias != NULL ? v16_add(v, bias) : v, n);
        }
    }
}

/* All rows against panels [first, end), four panels at a time: those stay in the second-level cache while
 * the rows pass. */
static void matmul(const struct matmul_job *job, int32_t first, int32_t end)
{
    const struct cpu_weight *w = job->w;
    struct tile              t = {.scale_offset = (size_t)w->units * MX_DATA_BYTES, .is_rounded = job->is_rounded};
    unsigned                 mode = job->is_rounded ? enter_matrix_mode() : 0;
    float                    sum[TILE_FLOATS];

    for (int32_t panel = first; panel < end; panel += GROUP_PANELS) {
        int panels = end - panel < GROUP_PANELS ? (int)(end - panel) : GROUP_PANELS;

        for (int p = 0; p < panels; p++)
            t.data[p] = job->data + (size_t)(panel + p) * w->panel_bytes;
        for (int32_t row = 0, rows; row < job->n_rows; row += rows) {
            rows = count_tile_rows(job->n_rows - row, job->is_rounded);
            for (int32_t r = 0; r < rows; r++) {
                int32_t from = job->x_row != NULL ? job->x_row[row + r] : row + r;

                t.x[r] = job->x + from * job->x_stride;
            }
            sum_tile(sum, &t, w, panels, (int)rows);
            store_tile(job, sum, panels, (int)rows, panel, row);
        }
    }
    if (job->is_rounded)
        leave_matrix_mode(mode);
}

static void round_rows(const struct round_job *job, int32_t first, int32_t end)
{
    const struct cpu_weight *w = job->w;

    for (int32_t row = first; row < end; row++) {
        const float *x = job->x + row * job->x_stride;
        float       *to = job->out + (size_t)row * (size_t)w->n_blocks * BLOCK_K;

        for (int32_t s = 0, k = 0; s < w->desc.n_slices; s++) {
            float *slice_end = job->out + ((size_t)row * (size_t)w->n_blocks + (size_t)w->block_end[s]) * BLOCK_K;

            for (; k < w->desc.slice_end[s]; k += LANES, to += LANES) {
                int32_t n = w->desc.slice_end[s] - k < LANES ? w->desc.slice_end[s] - k : LANES;

                v16_store(to, v16_round_bf16(n == LANES ? v16_load(x + k) : v16_load_n(x + k, (int)n)));
            }
            k = w->desc.slice_end[s];
            for (; to < slice_end; to += LANES)
                v16_store(to, v16_zero());
        }
    }
}
