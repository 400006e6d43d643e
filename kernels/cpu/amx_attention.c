/* SPDX-License-Identifier: Apache-2.0
 * Rounded attention on AMX tiles: positions and dims are the rows of a C tile, 16 queries its columns. */
#include <immintrin.h>
#include <string.h>

#define V16_AVX512
#include "kernels/cpu/tiles.h"
#include "kernels/cpu/v16.h"

#include "kernels/cpu/body_rounded_attention.h"

enum { ROW_BYTES = 64 };

INLINE void score_tiles(const int n, struct query_unit *u, const struct pair_step *step, const unsigned char *low,
                        const unsigned char *high, int32_t part)
{
    int32_t row = part * PART_TOKENS;

    _tile_zero(0);
    _tile_zero(1);
    if (n > 1) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int32_t k = 0; k < u->key_blocks; k++) {
        size_t at = (size_t)k * MATRIX_BYTES;

        _tile_loadd(4, low + at, ROW_BYTES);
        _tile_loadd(6, step->tile[0]->q + at, ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, high + at, ROW_BYTES);
        _tile_dpbf16ps(1, 5, 6);
        if (n > 1) {
            _tile_loadd(7, step->tile[1]->q + at, ROW_BYTES);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, u->s[0][row], ROW_BYTES);
    _tile_stored(1, u->s[0][row + SUB_TOKENS], ROW_BYTES);
    if (n > 1) {
        _tile_stored(2, u->s[1][row], ROW_BYTES);
        _tile_stored(3, u->s[1][row + SUB_TOKENS], ROW_BYTES);
    }
}

static void score_part(struct query_unit *u, const struct pair_step *step, const unsigned char *low,
                       const unsigned char *high, int32_t part)
{
    if (step->n > 1)
        score_tiles(2, u, step, low, high, part);
    else
        score_tiles(1, u, step, low, high, part);
}

/* n tiles of queries, `rows` tiles of 16 dims from tile d on. */
INLINE void value_tiles(const int n, const int rows, struct query_unit *u, const struct pair_step *step,
                        const struct position_block *b, int32_t first, int32_t end, int32_t d)
{
    enum { ACC_FLOATS = LANES * LANES };
    float *acc[PAIR_TILES] = {step->tile[0]->acc + d * ACC_FLOATS, NULL};

    _tile_loadd(0, acc[0], ROW_BYTES);
    if (rows > 1)
        _tile_loadd(1, acc[0] + ACC_FLOATS, ROW_BYTES);
    if (n > 1) {
        acc[1] = step->tile[1]->acc + d * ACC_FLOATS;
        _tile_loadd(2, acc[1], ROW_BYTES);
        if (rows > 1)
            _tile_loadd(3, acc[1] + ACC_FLOATS, ROW_BYTES);
    }
    for (int32_t part = first; part < end; part++) {
        const unsigned char *values = (const unsigned char *)b->part[part] + (size_t)d * MATRIX_BYTES;

        _tile_loadd(4, values, ROW_BYTES);
        _tile_loadd(6, u->p[0][part], ROW_BYTES);
        _tile_dpbf16ps(0, 4, 6);
        if (rows > 1) {
            _tile_loadd(5, values + MATRIX_BYTES, ROW_BYTES);
            _tile_dpbf16ps(1, 5, 6);
        }
        if (n > 1) {
            _tile_loadd(7, u->p[1][part], ROW_BYTES);
            _tile_dpbf16ps(2, 4, 7);
            if (rows > 1)
                _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, acc[0], ROW_BYTES);
    if (rows > 1)
        _tile_stored(1, acc[0] + ACC_FLOATS, ROW_BYTES);
    if (n > 1) {
        _tile_stored(2, acc[1], ROW_BYTES);
        if (rows > 1)
            _tile_stored(3, acc[1] + ACC_FLOATS, ROW_BYTES);
    }
}

static void add_parts(struct query_unit *u, const struct pair_step *step, const struct position_block *b,
                       int32_t first, int32_t end)
{
    for (int32_t d = 0; d < u->dim_tiles; d += 2) {
        bool is_pair = d + 1 < u->dim_tiles;

        if (step->n > 1 && is_pair)
            value_tiles(2, 2, u, step, b, first, end, d);
        else if (step->n > 1)
            value_tiles(2, 1, u, step, b, first, end, d);
        else if (is_pair)
            value_tiles(1, 2, u, step, b, first, end, d);
        else
            value_tiles(1, 1, u, step, b, first, end, d);
    }
}

void phx_tiles_attention(const struct attention_job *job, int32_t first, int32_t end, int32_t n_shares)
{
    _tile_loadconfig(&phx_full_tiles);
    attend_share(job, first, end, n_shares);
    _tile_release();
}
