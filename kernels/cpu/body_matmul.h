/* SPDX-License-Identifier: Apache-2.0
 * Matrix products over packed panels.  Each output is one chain of fused multiply-adds over k ascending
 * inside a K-slice, starting at 0 (MXFP4: a chain per block of 32, then one multiply-add by the scale);
 * slices combine by the tree of adjacent pairs.  A register tile is PANELS x ROWS outputs-of-16; the tile
 * shape does not change the chains. */

/* The register tile that the instruction set has room for. */
#if defined(V16_AVX2)
#define TILE_PANELS 1
#else
#define TILE_PANELS 4 /* GROUP_PANELS */
#endif

/* acc += one slice [begin, end) of the layout's units.  The pair is loaded twice, for its low and its high
 * halves: a load costs less than the registers it would hold. */
INLINE void slice_bf16(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                       const unsigned char *const data[GROUP_PANELS], const float *const *x,
                       int32_t begin, int32_t end, int32_t k, int32_t k_end)
{
    for (int32_t j = begin; j < end; j++, k += 2) {
        v16 w[GROUP_PANELS];

        for (int p = 0; p < panels; p++) {
            __builtin_prefetch(data[p] + (size_t)j * 64 + 1536);
            w[p] = v16_load_bf16_low(data[p] + (size_t)j * 64);
        }
        for (int r = 0; r < rows; r++)
            for (int p = 0; p < panels; p++)
                acc[p][r] = v16_fma(w[p], v16_set(x[r][k]), acc[p][r]);
        if (k + 1 == k_end)
            continue; /* an odd slice: its last high half is padding */
        for (int p = 0; p < panels; p++)
            w[p] = v16_load_bf16_high(data[p] + (size_t)j * 64);
        for (int r = 0; r < rows; r++)
            for (int p = 0; p < panels; p++)
                acc[p][r] = v16_fma(w[p], v16_set(x[r][k + 1]), acc[p][r]);
    }
}

INLINE void slice_f32(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                      const unsigned char *const data[GROUP_PANELS], const float *const *x,
                      int32_t begin, int32_t end)
{
    for (int32_t k = begin; k < end; k++)
        for (int p = 0; p < panels; p++) {
            v16 w = v16_load((const float *)(const void *)data[p] + (size_t)k * LANES);

            for (int r = 0; r < rows; r++)
                acc[p][r] = v16_fma(w, v16_set(x[r][k]), acc[p][r]);
        }
}

INLINE void slice_f16(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                      const unsigned char *const data[GROUP_PANELS], const float *const *x,
                      int32_t begin, int32_t end)
{
    for (int32_t k = begin; k < end; k++)
        for (int p = 0; p < panels; p++) {
            v16 w = v16_load_f16((const uint16_t *)(const void *)data[p] + (size_t)k * LANES);

            for (int r = 0; r < rows; r++)
                acc[p][r] = v16_fma(w, v16_set(x[r][k]), acc[p][r]);
        }
}

/* One block of 32: acc += scale * sum of value * x. */
INLINE void block_mxfp4(const int rows, v16 *acc, const unsigned char *panel, size_t scale_offset,
                        const float *const *x, int32_t b)
{
    const unsigned char *at = panel + (size_t)b * MX_DATA_BYTES;
    v16                  sum[TILE_ROWS];
    v16                  scale = v16_mx_scale(panel + scale_offset + (size_t)b * LANES);

    __builtin_prefetch(at + 1536);
    for (int r = 0; r < rows; r++)
        sum[r] = v16_zero();
    for (int q = 0; q < 4; q++) {
        v16_nibbles d = v16_load_nibbles(at + q * 64);

#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) {
            v16 w = v16_mx_value(d, i);

            for (int r = 0; r < rows; r++)
                sum[r] = v16_fma(w, v16_set(x[r][b * PHX_MX_BLOCK + q * 8 + i]), sum[r]);
        }
    }
    for (int r = 0; r < rows; r++)
        acc[r] = v16_fma(scale, sum[r], acc[r]);
}

/* Few rows: panels inside, so that their chains overlap.  Many rows: one panel at a time keeps its sums in
 * registers. */
INLINE void slice_mxfp4(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                        const unsigned char *const data[GROUP_PANELS], size_t scale_offset,
                        const float *const *x, int32_t begin, int32_t end)
{
    if (rows == 1) {
        for (int32_t b = begin; b < end; b++)
            for (int p = 0; p < panels; p++)
                block_mxfp4(rows, acc[p], data[p], scale_offset, x, b);
        return;
    }
    for (int p = 0; p < panels; p++)
        for (int32_t b = begin; b < end; b++)
            block_mxfp4(rows, acc[p], data[p], scale_offset, x, b);
}

/* One slice of a tile: acc is overwritten. */
INLINE void tile_slice(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                       const struct cpu_weight *w, const unsigned char *const *data,
                       const float *const *x, int32_t slice)
{
    int32_t k0 = slice > 0 ? w->desc.slice_end[slice - 1] : 0, k1 = w->desc.slice_end[slice];
    int32_t begin = w->slice_begin[slice];

    for (int p = 0; p < panels; p++)
        for (int r = 0; r < rows; r++)
            acc[p][r] = v16_zero();
    switch (w->desc.dtype) {
    case PHX_DTYPE_BF16:
        slice_bf16(panels, rows, acc, data, x, begin, begin + (k1 - k0 + 1) / 2, k0, k1);
        break;
    case PHX_DTYPE_F16: slice_f16(panels, rows, acc, data, x, k0, k1); break;
    case PHX_DTYPE_MXFP4:
        slice_mxfp4(panels, rows, acc, data, (size_t)w->units * MX_DATA_BYTES, x,
                    k0 / PHX_MX_BLOCK, k1 / PHX_MX_BLOCK);
        break;
    default: slice_f32(panels, rows, acc, data, x, k0, k1); break;
    }
}

/* All slices of a tile, combined by the tree, in acc.  Slices are few: a small stack of partial sums, one
 * per level, is merged like a binary counter; n_slices is 1, 2, 4 or 8 or ends a ragged tree. */
INLINE void tile_product(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                         const struct cpu_weight *w, const unsigned char *const *data,
                         const float *const *x)
{
    v16 stack[4][GROUP_PANELS][TILE_ROWS];
    int n_slices = w->desc.n_slices, depth = 0, s = 0;

    do { /* there is always one slice */
        tile_slice(panels, rows, acc, w, data, x, s);
        for (int carry = s + 1; (carry & 1) == 0 || (s + 1 == n_slices && depth > 0); carry >>= 1) {
            depth--;
            for (int p = 0; p < panels; p++)
                for (int r = 0; r < rows; r++)
                    acc[p][r] = v16_add(stack[depth][p][r], acc[p][r]);
        }
        if (s + 1 < n_slices) {
            for (int p = 0; p < panels; p++)
                for (int r = 0; r < rows; r++)
                    stack[depth][p][r] = acc[p][r];
            depth++;
        }
    } while (++s < n_slices);
}

INLINE void store_tile(const int panels, const int rows, v16 acc[GROUP_PANELS][TILE_ROWS],
                       const struct matmul_job *job, int32_t panel, int32_t row)
{
    for (int p = 0; p < panels; p++) {
        int32_t n0 = (panel + p) * LANES, n = job->w->desc.n - n0;
        v16     bias = v16_zero();

        n = n < LANES ? n : LANES;
        if (job->bias != NULL)
            bias = v16_load_n(job->bias + n0, n);
        for (int r = 0; r < rows; r++) {
            v16 sum = job->bias != NULL ? v16_add(acc[p][r], bias) : acc[p][r];

            v16_store_n(job->out + (row + r) * job->out_stride + n0, sum, n);
        }
    }
}

INLINE void matmul_tile(const int panels, const int rows, const struct matmul_job *job,
                        int32_t panel, int32_t row)
{
    const unsigned char *data[GROUP_PANELS];
    const float         *x[TILE_ROWS];
    v16                  acc[GROUP_PANELS][TILE_ROWS];

    for (int p = 0; p < panels; p++)
        data[p] = job->data + (size_t)(panel + p) * job->w->panel_bytes;
    for (int r = 0; r < rows; r++)
        x[r] = job->x + (row + r) * job->x_stride;
    if (job->w->desc.n_slices == 1)
        tile_slice(panels, rows, acc, job->w, data, x, 0);
    else
        tile_product(panels, rows, acc, job->w, data, x);
    store_tile(panels, rows, acc, job, panel, row);
}

/* All rows against `panels` panels, in tiles of 6, 4, 2 and 1 rows. */
INLINE void matmul_panels(const int panels, const struct matmul_job *job, int32_t panel)
{
    int32_t row = 0;

    for (; row + 6 <= job->n_rows; row += 6)
        matmul_tile(panels, 6, job, panel, row);
    if (row + 4 <= job->n_rows) {
        matmul_tile(panels, 4, job, panel, row);
        row += 4;
    }
    if (row + 2 <= job->n_rows) {
        matmul_tile(panels, 2, job, panel, row);
        row += 2;
    }
    if (row < job->n_rows)
        matmul_tile(panels, 1, job, panel, row);
}

static void matmul(const struct matmul_job *job, int32_t group_first, int32_t group_end)
{
    for (int32_t g = group_first; g < group_end; g++) {
        int32_t panel = g * GROUP_PANELS, n = job->w->n_panels - panel;

        n = n < GROUP_PANELS ? n : GROUP_PANELS;
        if (n == TILE_PANELS)
            matmul_panels(TILE_PANELS, job, panel);
        else
            for (int32_t p = 0; p < n; p++)
                matmul_panels(1, job, panel + p);
    }
}
