/* SPDX-License-Identifier: Apache-2.0
 * Products on AMX tiles (loop order: tiles.h).  The sums are those of body_matmul.h's rounded products, bit for
 * bit. */
#include "kernels/cpu/amx_block.h"

const struct tile_config phx_full_tiles = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .n_rows = {16, 16, 16, 16, 16, 16, 16, 16},
};

/* ---- packing ---------------------------------------------------------------------------------- */

enum { PARTS_MAX = 16 };

/* Few row blocks are cut along k, so that every thread has some. */
static int32_t count_parts(const struct tile_rows *rows)
{
    int32_t most = rows->w->n_blocks < PARTS_MAX ? rows->w->n_blocks : PARTS_MAX;

    return count_row_blocks(rows->n_rows) >= PARTS_MAX || most < 1 ? 1 : most;
}

int32_t phx_tiles_units(const struct tile_rows *rows)
{
    return count_row_blocks(rows->n_rows) * count_parts(rows);
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

/* Where a block lies: the k it begins at and how many it has, and its chunk. */
struct place {
    int32_t k, n;
    int32_t chunk, chunk_blocks;
};

static struct place find_place(const struct cpu_weight *w, int32_t block)
{
    struct place p;
    int32_t      s = 0, first;

    while (block >= w->block_end[s])
        s++;
    first = s > 0 ? w->block_end[s - 1] : 0;
    p.k = (s > 0 ? w->desc.slice_end[s - 1] : 0) + (block - first) * BLOCK_K;
    p.n = w->desc.slice_end[s] - p.k < BLOCK_K ? w->desc.slice_end[s] - p.k : BLOCK_K;
    p.chunk = first + (block - first) / CHUNK_BLOCKS * CHUNK_BLOCKS;
    p.chunk_blocks = w->block_end[s] - p.chunk < CHUNK_BLOCKS ? w->block_end[s] - p.chunk : CHUNK_BLOCKS;
    return p;
}

static size_t tile_offset(int32_t n_row_blocks, int32_t row_block, int32_t chunk, int32_t chunk_blocks)
{
    return ((size_t)chunk * (size_t)n_row_blocks + (size_t)row_block * (size_t)chunk_blocks) * TILE_BYTES;
}

static void pack_part(const struct tile_rows *rows, int32_t row_block, int32_t block_first, int32_t block_end)
{
    for (int32_t b = block_first; b < block_end; b++) {
        struct place   p = find_place(rows->w, b);
        unsigned char *to = rows->tiles + (size_t)(b - p.chunk) * TILE_BYTES +
                            tile_offset(count_row_blocks(rows->n_rows), row_block, p.chunk, p.chunk_blocks);

        for (int32_t i = 0; i < LANES; i++, to += TILE_ROW_BYTES) {
            int32_t row = row_block * LANES + i;

            if (row >= rows->n_rows) {
                memset(to, 0, TILE_ROW_BYTES);
                continue;
            }
            pack_row(to, rows->x + (rows->x_row != NULL ? rows->x_row[row] : row) * rows->x_stride + p.k, p.n);
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

/* One chunk of a slice: B tiles of each panel of a pair, one after the other. */
struct chunk {
    const unsigned char *b[PAIR_PANELS];
    const unsigned char *a;      /* of the band's first row block, at the chunk's first block */
    size_t               a_step; /* to the next row block */
    int32_t              n_blocks;
    bool                 is_first; /* of its slice: the sums start at 0 */
};

INLINE void load_sums(const int rows, const int panels, const float *sum, bool is_first)
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
        _tile_loadd(2, sum + TILE_SUMS, SUM_STRIDE);
    if (rows > 1 && panels > 1)
        _tile_loadd(3, sum + TILE_SUMS + LANES, SUM_STRIDE);
}

INLINE void store_sums(const int rows, const int panels, float *sum)
{
    _tile_stored(0, sum, SUM_STRIDE);
    if (panels > 1)
        _tile_stored(1, sum + LANES, SUM_STRIDE);
    if (rows > 1)
        _tile_stored(2, sum + TILE_SUMS, SUM_STRIDE);
    if (rows > 1 && panels > 1)
        _tile_stored(3, sum + TILE_SUMS + LANES, SUM_STRIDE);
}

/* rows x panels C tiles against one chunk. */
INLINE void multiply_tiles(const int rows, const int panels, float *sum, const struct chunk *c, const unsigned char *a)
{
    const unsigned char *a1 = a + c->a_step, *b0 = c->b[0], *b1 = c->b[panels - 1];

    load_sums(rows, panels, sum, c->is_first);
    for (size_t at = 0, end = (size_t)c->n_blocks * TILE_BYTES; at < end; at += TILE_BYTES) {
        _tile_loadd(6, b0 + at, TILE_ROW_BYTES);
        _tile_loadd(4, a + at, TILE_ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if (panels > 1) {
            _tile_loadd(7, b1 + at, TILE_ROW_BYTES);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (rows > 1) {
            _tile_loadd(5, a1 + at, TILE_ROW_BYTES);
            _tile_dpbf16ps(2, 5, 6);
            if (panels > 1)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    store_sums(rows, panels, sum);
}

INLINE void multiply_band(const int panels, float *sum, const struct chunk *c, int32_t n_row_blocks)
{
    const unsigned char *a = c->a;

    for (; n_row_blocks > 1; n_row_blocks -= 2, a += 2 * c->a_step, sum += 2 * TILE_SUMS)
        multiply_tiles(2, panels, sum, c, a);
    if (n_row_blocks > 0)
        multiply_tiles(1, panels, sum, c, a);
}

static void widen_chunk(const struct block *d, struct chunk *c, int32_t panel, int panels, int32_t block)
{
    const struct cpu_weight *w = d->w;

    for (int p = 0; p < panels; p++) {
        const unsigned char *data = panel_data(d, panel + p);
        unsigned char       *to = d->wide + (size_t)p * CHUNK_BLOCKS * TILE_BYTES;

        for (int32_t i = 0; i < c->n_blocks; i++) {
            size_t b = (size_t)(block + i);

            widen_block(to + (size_t)i * TILE_BYTES, data + b * MX_DATA_BYTES,
                        data + (size_t)w->units * MX_DATA_BYTES + b * LANES);
        }
        c->b[p] = to;
    }
}

static void sum_chunk(const struct block *d, float *sums, struct chunk *c, int32_t block)
{
    const struct cpu_weight *w = d->w;
    int32_t                  end = d->panel + d->n_panels, row_count = count_row_blocks(d->n_rows);

    c->a_step = (size_t)c->n_blocks * TILE_BYTES;
    c->a = d->tiles + tile_offset(count_row_blocks(d->tile_rows), d->row / LANES, block, c->n_blocks);
    for (int32_t panel = d->panel; panel < end; panel += PAIR_PANELS, sums += d->pair_floats) {
        int panels = end - panel < PAIR_PANELS ? 1 : PAIR_PANELS;

        if (w->desc.dtype == PHX_DTYPE_MXFP4)
            widen_chunk(d, c, panel, panels, block);
        else
            for (int p = 0; p < panels; p++)
                c->b[p] = panel_data(d, panel + p) + (size_t)block * TILE_BYTES;
        if (panels == PAIR_PANELS)
            multiply_band(PAIR_PANELS, sums, c, row_count);
        else
            multiply_band(1, sums, c, row_count);
    }
}

static void sum_slice(const struct block *d, float *sums, int32_t s)
{
    const struct cpu_weight *w = d->w;
    int32_t                  begin = s > 0 ? w->block_end[s - 1] : 0, end = w->block_end[s];
    struct chunk             c = {0};

    if (begin == end)
        memset(sums, 0, d->level_floats * sizeof(float));
    for (int32_t block = begin; block < end; block += CHUNK_BLOCKS) {
        c.n_blocks = end - block < CHUNK_BLOCKS ? end - block : CHUNK_BLOCKS;
        c.is_first = block == begin;
        sum_chunk(d, sums, &c, block);
    }
}

void phx_tiles_matmul(const struct matmul_job *job, const unsigned char *tiles, unsigned char *sums, int32_t first,
                      int32_t end)
{
    bool         is_sliced = job->w->desc.n_slices > 1;
    int32_t      band = is_sliced ? SLICED_BAND_ROWS : BAND_ROWS;
    int32_t      group = is_sliced ? SLICED_GROUP_PAIRS : GROUP_PAIRS;
    struct block d = open_block(job->w, sums);
    unsigned     mode = enter_matrix_mode();

    d.data = job->data;
    d.tiles = tiles;
    d.tile_rows = job->n_rows;
    _tile_loadconfig(&phx_full_tiles);
    for (int32_t pair = first; pair < end; pair += group) {
        take_group(&d, pair, end - pair < group ? end - pair : group);
        for (int32_t row = 0; row < job->n_rows; row += band) {
            take_band(&d, row, band);
            sum_slices(&d, sum_slice);
            for (int32_t r = 0; r < d.n_rows; r++)
                store_row(&d, job, r);
        }
    }
    _tile_release();
    leave_matrix_mode(mode);
}

/* ---- the down product of a mixture ----------------------------------------------------------------- */

enum { MOE_PAIRS = GROUP_PANELS / PAIR_PANELS };

/* partial[row][slice] = fma(gate, sum, partial) for the band's pairs of (row, expert). */
static void add_gated(const struct block *d, const struct moe_down_job *job, float *partial, int32_t first_pair, int32_t s)
{
    for (int32_t r = 0; r < d->n_rows; r++) {
        size_t row = (size_t)job->pair_row[first_pair + r];
        float *to = partial + (row * (size_t)d->w->desc.n_slices + (size_t)s) * GROUP_ROWS;
        v16    gate = v16_set(job->pair_gate[first_pair + r]);

        for (int32_t p = 0; p < d->n_panels; p++, to += LANES) {
            const float *sum = d->sums + (size_t)(p / PAIR_PANELS) * d->pair_floats + (size_t)r * PAIR_OUTPUTS;

            v16_store(to, v16_fma(gate, v16_load(sum + (p % PAIR_PANELS) * LANES), v16_load(to)));
        }
    }
}

static void sum_experts(struct block *d, const struct moe_down_job *job, const unsigned char *tiles,
                        const int32_t *row_block, float *partial)
{
    for (int32_t e = 0, begin = 0; e < d->w->desc.n_experts; begin = job->expert_end[e], e++) {
        d->data = expert_data(d->w, e);
        d->tiles = tiles + (size_t)row_block[e] * (size_t)d->w->n_blocks * TILE_BYTES;
        d->tile_rows = job->expert_end[e] - begin;
        for (int32_t row = 0; row < d->tile_rows; row += BAND_ROWS) {
            take_band(d, row, BAND_ROWS);
            for (int32_t s = 0; s < d->w->desc.n_slices; s++) {
                sum_slice(d, d->sums, s);
                add_gated(d, job, partial, begin + row, s);
            }
        }
    }
}

/* The tree over the slices of one row, in place, then out. */
static void finish_row(const struct block *d, const struct moe_down_job *job, float *partial, int32_t row)
{
    int32_t n_slices = d->w->desc.n_slices, n0 = d->panel * LANES;
    int32_t n = d->w->desc.n - n0 < d->n_panels * LANES ? d->w->desc.n - n0 : d->n_panels * LANES;

    for (int32_t step = 1; step < n_slices; step *= 2)
        for (int32_t s = 0; s + step < n_slices; s += 2 * step)
            add_level(partial + s * GROUP_ROWS, partial + (s + step) * GROUP_ROWS, GROUP_ROWS);
    memcpy(job->out + row * job->out_stride + n0, partial, (size_t)n * sizeof(float));
}

void phx_tiles_moe_down(const struct moe_down_job *job, const unsigned char *tiles, const int32_t *row_block,
                        int32_t member, unsigned char *sums, int32_t first, int32_t end)
{
    struct block d = open_block(job->w, sums);
    float       *partial = job->partial + (size_t)member * job->partial_stride;
    size_t       row_floats = (size_t)job->w->desc.n_slices * GROUP_ROWS;
    unsigned     mode = enter_matrix_mode();

    _tile_loadconfig(&phx_full_tiles);
    for (int32_t pair = first; pair < end; pair += MOE_PAIRS) {
        take_group(&d, pair, end - pair < MOE_PAIRS ? end - pair : MOE_PAIRS);
        memset(partial, 0, (size_t)job->n_rows * row_floats * sizeof(float));
        sum_experts(&d, job, tiles, row_block, partial);
        for (int32_t row = 0; row < job->n_rows; row++)
            finish_row(&d, job, partial + (size_t)row * row_floats, row);
    }
    _tile_release();
    leave_matrix_mode(mode);
}
