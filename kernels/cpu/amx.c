/* SPDX-License-Identifier: Apache-2.0
 * Products on AMX tiles.  A pair of panels passes all rows of a band chunk by chunk: its weights stay in the
 * first-level cache, the A tiles stream from the second, the sums of the band wait there too.  The sums are
 * those of body_matmul.h's rounded products, bit for bit. */
#include <immintrin.h>
#include <string.h>

#define V16_AVX512
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/v16.h"

struct tile_config {
    uint8_t  palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t  n_rows[16];
};

/* Eight full tiles.  It must not be a local: compilers have been seen to drop stores to one. */
static const struct tile_config full_tiles = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .n_rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* ---- packing ---------------------------------------------------------------------------------- */

enum { PARTS_MAX = 16 };

static int32_t row_blocks(int32_t n_rows)
{
    return (n_rows + LANES - 1) / LANES;
}

/* Few row blocks are cut along k, so that every thread has some. */
static int32_t count_parts(const struct tile_rows *rows)
{
    int32_t most = rows->w->n_blocks < PARTS_MAX ? rows->w->n_blocks : PARTS_MAX;

    return row_blocks(rows->n_rows) >= PARTS_MAX || most < 1 ? 1 : most;
}

int32_t phx_tiles_units(const struct tile_rows *rows)
{
    return row_blocks(rows->n_rows) * count_parts(rows);
}

static __m512i round_half(const float *x, int32_t n)
{
    if (n >= LANES)
        return _mm512_castps_si512(v16_round_bf16(v16_load(x)));
    return n > 0 ? _mm512_castps_si512(v16_round_bf16(v16_load_n(x, (int)n))) : _mm512_setzero_si512();
}

/* One row of one A tile: n of 32 k, zeros behind. */
static void pack_row(unsigned char *to, const float *x, int32_t n)
{
    __m512i low = _mm512_srli_epi32(round_half(x, n), 16), high = _mm512_srli_epi32(round_half(x + LANES, n - LANES), 16);

    _mm256_store_si256((__m256i *)(void *)to, _mm512_cvtepi32_epi16(low));
    _mm256_store_si256((__m256i *)(void *)(to + 32), _mm512_cvtepi32_epi16(high));
}

/* The slice of block b, and the k it begins at. */
static int32_t find_k(const struct cpu_weight *w, int32_t block, int32_t *n)
{
    int32_t s = 0, begin, block_begin;

    while (block >= w->block_end[s])
        s++;
    begin = s > 0 ? w->desc.slice_end[s - 1] : 0;
    block_begin = s > 0 ? w->block_end[s - 1] : 0;
    begin += (block - block_begin) * BLOCK_K;
    *n = w->desc.slice_end[s] - begin < BLOCK_K ? w->desc.slice_end[s] - begin : BLOCK_K;
    return begin;
}

static void pack_part(const struct tile_rows *rows, int32_t row_block, int32_t block_first, int32_t block_end)
{
    const struct cpu_weight *w = rows->w;
    unsigned char           *to = rows->tiles + (size_t)row_block * (size_t)w->n_blocks * TILE_BYTES;

    for (int32_t i = 0; i < LANES; i++) {
        int32_t      row = row_block * LANES + i;
        const float *x = NULL;

        if (row < rows->n_rows)
            x = rows->x + (rows->x_row != NULL ? rows->x_row[row] : row) * rows->x_stride;
        for (int32_t b = block_first; b < block_end; b++) {
            unsigned char *at = to + (size_t)b * TILE_BYTES + (size_t)i * TILE_ROW_BYTES;
            int32_t        n, k = find_k(w, b, &n);

            if (x != NULL)
                pack_row(at, x + k, n);
            else
                memset(at, 0, TILE_ROW_BYTES);
        }
    }
}

void phx_tiles_pack(const struct tile_rows *rows, int32_t first, int32_t end)
{
    int32_t parts = count_parts(rows), n_blocks = rows->w->n_blocks;

    for (int32_t u = first; u < end; u++) {
        int32_t part = u % parts;

        pack_part(rows, u / parts, (int32_t)((int64_t)n_blocks * part / parts),
                  (int32_t)((int64_t)n_blocks * (part + 1) / parts));
    }
}

/* ---- widening MXFP4 ----------------------------------------------------------------------------- */

/* bf16 of the 16 E2M1 values, twice: an index may have any fifth bit. */
static const uint16_t mx_bf16[32] = {0,      0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0,
                                     0x8000, 0xbf00, 0xbf80, 0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0,
                                     0,      0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0,
                                     0x8000, 0xbf00, 0xbf80, 0xbfc0, 0xc000, 0xc040, 0xc080, 0xc0c0};

/* One block of a panel as a B tile: 16 pairs of k x 16 lanes.  The scale joins the exponent of what is not 0. */
static void widen_block(unsigned char *to, const unsigned char *data, const uint8_t *scales)
{
    const __m512i table = _mm512_loadu_si512(mx_bf16), nibble = _mm512_set1_epi32(15);
    __m512i       shift = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)scales));

    shift = _mm512_slli_epi32(_mm512_sub_epi32(shift, _mm512_set1_epi32(127)), 7);
    shift = _mm512_or_si512(_mm512_and_si512(shift, _mm512_set1_epi32(0xffff)), _mm512_slli_epi32(shift, 16));
    for (int q = 0; q < 4; q++) {
        __m512i d = _mm512_loadu_si512(data + (size_t)q * TILE_ROW_BYTES);

        for (int i = 0; i < 4; i++) {
            __m512i low = _mm512_and_si512(d, nibble);
            __m512i high = _mm512_slli_epi32(_mm512_and_si512(_mm512_srli_epi32(d, 4), nibble), 16);
            __m512i v = _mm512_permutexvar_epi16(_mm512_or_si512(low, high), table);
            __mmask32 is_some = _mm512_test_epi16_mask(v, _mm512_set1_epi16(0x7fff));

            v = _mm512_mask_add_epi16(v, is_some, v, shift);
            _mm512_store_si512(to + (size_t)(q * 4 + i) * TILE_ROW_BYTES, v);
            d = _mm512_srli_epi32(d, 8);
        }
    }
}

/* ---- products ------------------------------------------------------------------------------------ */

/* One chunk of a slice: B tiles of each panel, one after the other. */
struct chunk {
    const unsigned char *b[PAIR_PANELS];
    const unsigned char *a;      /* of the band's first row block, at the chunk's first block */
    size_t               a_step; /* to the next row block */
    int32_t              n_blocks;
    bool                 is_first; /* of its slice: the sums start at 0 */
};

enum { SUM_STRIDE = PAIR_PANELS * LANES * 4 }; /* bytes of a row of sums */

INLINE void load_sums(const int rows, const int panels, float *sum, bool is_first)
{
    if (is_first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        return;
    }
    _tile_loadd(0, sum, SUM_STRIDE);
    if (panels > 1)
        _tile_loadd(1, sum + LANES, SUM_STRIDE);
    if (rows > 1)
        _tile_loadd(2, sum + LANES * PAIR_PANELS * LANES, SUM_STRIDE);
    if (rows > 1 && panels > 1)
        _tile_loadd(3, sum + LANES * PAIR_PANELS * LANES + LANES, SUM_STRIDE);
}

INLINE void store_sums(const int rows, const int panels, float *sum)
{
    _tile_stored(0, sum, SUM_STRIDE);
    if (panels > 1)
        _tile_stored(1, sum + LANES, SUM_STRIDE);
    if (rows > 1)
        _tile_stored(2, sum + LANES * PAIR_PANELS * LANES, SUM_STRIDE);
    if (rows > 1 && panels > 1)
        _tile_stored(3, sum + LANES * PAIR_PANELS * LANES + LANES, SUM_STRIDE);
}

/* The weights come from memory while the first row block passes. */
INLINE void prefetch_tile(const unsigned char *p)
{
    for (int i = 0; i < TILE_BYTES; i += 64)
        __builtin_prefetch(p + i);
}

enum { PREFETCH_TILES = 3 };

/* rows x panels C tiles against one chunk. */
INLINE void multiply_tiles(const int rows, const int panels, const bool is_cold, float *sum, const struct chunk *c,
                           const unsigned char *a)
{
    load_sums(rows, panels, sum, c->is_first);
    for (size_t i = 0; i < (size_t)c->n_blocks; i++) {
        _tile_loadd(6, c->b[0] + i * TILE_BYTES, TILE_ROW_BYTES);
        _tile_loadd(4, a + i * TILE_BYTES, TILE_ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if (is_cold)
            prefetch_tile(c->b[0] + (i + PREFETCH_TILES) * TILE_BYTES);
        if (panels > 1) {
            _tile_loadd(7, c->b[1] + i * TILE_BYTES, TILE_ROW_BYTES);
            _tile_dpbf16ps(1, 4, 7);
            if (is_cold)
                prefetch_tile(c->b[1] + (i + PREFETCH_TILES) * TILE_BYTES);
        }
        if (rows > 1) {
            _tile_loadd(5, a + c->a_step + i * TILE_BYTES, TILE_ROW_BYTES);
            _tile_dpbf16ps(2, 5, 6);
            if (panels > 1)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    store_sums(rows, panels, sum);
}

INLINE void multiply_band(const int panels, float *sum, const struct chunk *c, int32_t n_row_blocks)
{
    int32_t              b = 0;
    const unsigned char *a = c->a;

    if (n_row_blocks == 1) {
        multiply_tiles(1, panels, true, sum, c, a);
        return;
    }
    multiply_tiles(2, panels, true, sum, c, a);
    for (b = 2; b + 1 < n_row_blocks; b += 2)
        multiply_tiles(2, panels, false, sum + b * LANES * PAIR_PANELS * LANES, c, a + (size_t)b * c->a_step);
    if (b < n_row_blocks)
        multiply_tiles(1, panels, false, sum + b * LANES * PAIR_PANELS * LANES, c, a + (size_t)b * c->a_step);
}

/* What a member works on: a pair of panels (or the last one alone) and a band of rows. */
struct band {
    const struct matmul_job *job;
    const unsigned char     *panel[PAIR_PANELS];
    int                      panels;
    const unsigned char     *a;
    int32_t                  row, n_rows;
    float                   *sums; /* TREE_LEVELS of them */
    unsigned char           *wide;
};

static void widen_chunk(const struct band *d, struct chunk *c, int32_t block)
{
    const struct cpu_weight *w = d->job->w;

    for (int p = 0; p < d->panels; p++) {
        unsigned char *to = d->wide + (size_t)p * CHUNK_BLOCKS * TILE_BYTES;

        for (int32_t i = 0; i < c->n_blocks; i++) {
            size_t b = (size_t)(block + i);

            __builtin_prefetch(d->panel[p] + b * MX_DATA_BYTES + 2048);
            __builtin_prefetch(d->panel[p] + b * MX_DATA_BYTES + 2048 + 64);
            __builtin_prefetch(d->panel[p] + b * MX_DATA_BYTES + 2048 + 128);
            __builtin_prefetch(d->panel[p] + b * MX_DATA_BYTES + 2048 + 192);
            widen_block(to + (size_t)i * TILE_BYTES, d->panel[p] + b * MX_DATA_BYTES,
                        d->panel[p] + (size_t)w->units * MX_DATA_BYTES + b * LANES);
        }
        c->b[p] = to;
    }
}

static void sum_slice(const struct band *d, float *sum, int32_t s)
{
    const struct cpu_weight *w = d->job->w;
    int32_t                  begin = s > 0 ? w->block_end[s - 1] : 0, end = w->block_end[s];
    struct chunk             c = {.a_step = (size_t)w->n_blocks * TILE_BYTES};

    if (begin == end)
        memset(sum, 0, (size_t)d->n_rows * SUM_STRIDE);
    for (int32_t block = begin; block < end; block += CHUNK_BLOCKS) {
        c.n_blocks = end - block < CHUNK_BLOCKS ? end - block : CHUNK_BLOCKS;
        c.is_first = block == begin;
        c.a = d->a + (size_t)block * TILE_BYTES;
        if (w->desc.dtype == PHX_DTYPE_MXFP4)
            widen_chunk(d, &c, block);
        else
            for (int p = 0; p < d->panels; p++)
                c.b[p] = d->panel[p] + (size_t)block * TILE_BYTES;
        if (d->panels == PAIR_PANELS)
            multiply_band(PAIR_PANELS, sum, &c, row_blocks(d->n_rows));
        else
            multiply_band(1, sum, &c, row_blocks(d->n_rows));
    }
}

static void add_level(float *to, const float *right, int32_t n_rows)
{
    for (int32_t i = 0; i < n_rows * PAIR_PANELS * LANES; i += LANES)
        v16_store(to + i, v16_add(v16_load(to + i), v16_load(right + i)));
}

/* Partial sums, one per level, merge like a binary counter. */
static void sum_band(const struct band *d)
{
    int n_slices = d->job->w->desc.n_slices, depth = 0;

    for (int s = 0; s < n_slices; s++) {
        sum_slice(d, d->sums + (size_t)depth * BAND_FLOATS, s);
        for (int carry = s + 1; depth > 0 && ((carry & 1) == 0 || s + 1 == n_slices); carry >>= 1, depth--)
            add_level(d->sums + (size_t)(depth - 1) * BAND_FLOATS, d->sums + (size_t)depth * BAND_FLOATS, d->n_rows);
        depth++;
    }
}

static void store_band(const struct band *d, int32_t panel)
{
    const struct matmul_job *job = d->job;

    for (int p = 0; p < d->panels; p++) {
        int32_t n0 = (panel + p) * LANES, n = job->w->desc.n - n0;
        v16     bias = v16_zero();

        n = n < LANES ? n : LANES;
        if (job->bias != NULL)
            bias = v16_load_n(job->bias + n0, (int)n);
        for (int32_t r = 0; r < d->n_rows; r++) {
            v16 v = v16_load(d->sums + (size_t)r * PAIR_PANELS * LANES + (size_t)p * LANES);

            v16_store_n(job->out + (d->row + r) * job->out_stride + n0, job->bias != NULL ? v16_add(v, bias) : v,
                        (int)n);
        }
    }
}

void phx_tiles_matmul(const struct matmul_job *job, const unsigned char *tiles, unsigned char *sums, int32_t first,
                      int32_t end)
{
    const struct cpu_weight *w = job->w;
    struct band              d = {.job = job, .sums = (float *)(void *)sums};
    unsigned                 mode = enter_matrix_mode();

    d.wide = sums + (size_t)TREE_LEVELS * BAND_FLOATS * sizeof(float);
    _tile_loadconfig(&full_tiles);
    for (int32_t panel = first; panel < end; panel += PAIR_PANELS) {
        d.panels = end - panel < PAIR_PANELS ? 1 : PAIR_PANELS;
        for (int p = 0; p < d.panels; p++)
            d.panel[p] = job->data + (size_t)(panel + p) * w->panel_bytes;
        for (d.row = 0; d.row < job->n_rows; d.row += BAND_ROWS) {
            d.n_rows = job->n_rows - d.row < BAND_ROWS ? job->n_rows - d.row : BAND_ROWS;
            d.a = tiles + (size_t)(d.row / LANES) * (size_t)w->n_blocks * TILE_BYTES;
            sum_band(&d);
            store_band(&d, panel);
        }
    }
    _tile_release();
    leave_matrix_mode(mode);
}
